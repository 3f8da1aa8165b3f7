"""Layers that two thin ones can stand for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ....task import Batch
from .low_rank import factored, rank_of, saves, shape
from .moments import is_matrix
from .running import fault, replaced
from .scope import Scope
from .settings import Settings


def factorable_layers(
    model: nn.Module,
    example: Batch,
    expected: Sequence[Tensor],
    scope: Scope,
    settings: Settings,
    left_out: dict[str, str],
) -> dict[str, tuple[float, ...]]:
    """Find the layers that can be factored, each tried on the example.

    Args:
        model: as before afterwards.
        example: inputs.
        expected: outputs of the model on them.
        scope: which layers may change.
        settings: has the shares and the rounding.
        left_out: takes the reasons, by name of the dimension.

    Returns:
        Path -> shares of the full rank that save weights, from the smallest, different after rounding; then 1.0.
    """
    found: dict[str, tuple[float, ...]] = {}
    for path, layer in list(model.named_modules()):
        if not settings.rank or not is_matrix(layer) or not scope.layer(path):
            continue
        size = shape(layer)
        by_rank: dict[int, float] = {}
        for share in sorted(settings.rank):
            if saves(share, *size, settings.round_to):
                by_rank.setdefault(rank_of(share, *size, settings.round_to), share)
        if not by_rank:
            continue
        if scope.tied([path]):
            left_out[f"{path}.rank"] = "another module has the same weight"
            continue
        with replaced(model, path, factored(layer, 1)):
            why = fault(model, example, expected)
        if why:
            left_out[f"{path}.rank"] = why
        else:
            found[path] = (*by_rank.values(), *((1.0,) if 1.0 in settings.rank else ()))
    return found
