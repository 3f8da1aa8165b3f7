"""A family of compressed versions of any model, without training."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from ....architecture import ArchitectureSpace
from ....errors import InvalidInput, UnsupportedModel
from ....evaluators import batch_norm_statistics
from ....task import Batch
from .blocks import skippable_blocks
from .dimensions import dimensions
from .family import CompressionFamily, Knowledge
from .groups import Candidate, candidates, verified
from .importance import activation_scores, taylor_scores, weight_scores
from .layers import factorable_layers
from .moments import Moments, input_moments, is_matrix
from .pruning import ChannelGroup
from .running import outputs
from .scope import Scope
from .settings import Importance, Recovery, Settings
from .statistics import joined, output_means


def compress(
    model: nn.Module,
    example_inputs: Any,
    *,
    skip: bool = True,
    width: Sequence[float] = (0.5, 0.75, 1.0),
    rank: Sequence[float] = (0.25, 0.5, 1.0),
    include: Iterable[str] = ("*",),
    exclude: Iterable[str] = (),
    importance: Importance = "magnitude",
    calibration: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    round_to: int = 8,
    recover: Sequence[Recovery] = ("reconstruct", "statistics"),
) -> CompressionFamily:
    """Find what a model can do without, and offer it as dimensions of an architecture.

    Three kinds of dimension: ``PATH.skip`` (``True``: the block passes its input on), ``PATH.width`` (kept share of the
    channels that the layer at PATH makes, cut in every layer that they run through; attention is cut by whole heads)
    and ``PATH.rank`` (share of the full rank of a linear layer or a convolution; below 1 it becomes two thin layers).
    In a block that is skipped the others do not exist. Every dimension was tried on the example before it is offered;
    ``family.left_out`` says what was not offered and why.

    Args:
        model: any ``nn.Module``; it is copied and never changed.
        example_inputs: a small batch of inputs: a tensor, a tuple or a dict of tensors.
        skip: offer blocks to be skipped.
        width: kept shares to offer; equal ones after rounding are offered once; ``()`` for none.
        rank: shares of the full rank to offer where they save weights; ``()`` for none.
        include: globs of module paths; only blocks, groups (by the layer that names them) and layers that match.
        exclude: globs of modules that must stay exactly as they are, inputs and outputs included.
        importance: how channels are ranked: ``"magnitude"`` (L2) or ``"l1"`` of the weights, ``"activation"`` (needs
            ``calibration``), ``"taylor"`` (needs ``calibration`` with targets, and ``loss``).
        calibration: batches for activation-weighted factors, ``importance`` and ``recover``; no labels are needed.
        loss: ``loss(outputs, targets) -> scalar`` for ``"taylor"``.
        round_to: channel counts and ranks are multiples of it.
        recover: with calibration data, ``"reconstruct"`` readers of cut channels by least squares, and take
            ``"statistics"`` (of batch normalizations, else mean outputs) again; ``()`` for neither.

    Returns:
        The family; with 1.0 among the shares, ``family.build(family.architecture.largest())`` is the original network.

    Raises:
        InvalidInput: an argument out of range, data missing for what was asked, or a glob without a match.
        UnsupportedModel: the model does not run on the example, or nothing can be compressed.
    """
    settings = Settings(
        skip, tuple(width), tuple(rank), tuple(include), tuple(exclude), importance, round_to, tuple(recover)
    )
    example = Batch.of((example_inputs, None))
    own = copy.deepcopy(model).eval()
    data = [] if calibration is None else [Batch.of(each) for each in calibration]
    if importance in ("activation", "taylor") and not data:
        raise InvalidInput(f"importance={importance!r} needs calibration batches")
    if importance == "taylor" and loss is None:
        raise InvalidInput("importance='taylor' needs a loss(outputs, targets)")
    expected = outputs(own, example)
    scope = Scope(own, settings)
    left_out: dict[str, str] = {}

    blocks = skippable_blocks(own, example, expected, scope, left_out) if settings.skip else []
    layers = factorable_layers(own, example, expected, scope, settings, left_out)
    traced = copy.deepcopy(own)
    narrow = any(share < 1 for share in settings.width)
    possible = candidates(traced, example, scope, left_out) if narrow else []
    readers = [path for each in possible for path in each.readers if is_matrix(own.get_submodule(path))]
    moments = input_moments(own, data, {*readers, *layers}) if data else {}
    scores = _scores(own, traced, possible, settings, data, loss, moments)

    def fewest(group: ChannelGroup) -> int:
        return group.kept(min(settings.width), settings.round_to)

    groups = []
    for each, score in zip(possible, scores, strict=True):
        group, why = verified(own, each, score, fewest, example, expected)
        if group is None:
            left_out[f"{each.path}.width"] = why
        else:
            groups.append(group)
    architecture = ArchitectureSpace(tuple(dimensions(blocks, groups, layers, settings)))
    if not architecture.dimensions:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:3])
        raise UnsupportedModel(
            f"nothing of {type(model).__name__} can be compressed as asked; widen skip, width, rank or include"
            + (f" ({reasons})" if reasons else "")
        )
    knowledge = _knowledge(own, data, moments, settings)
    return CompressionFamily(own, settings, architecture, blocks, groups, example, expected, knowledge, left_out)


def _scores(
    model: nn.Module,
    traced: nn.Module,
    possible: Sequence[Candidate],
    settings: Settings,
    data: Sequence[Batch],
    loss: Callable[[Any, Any], Tensor] | None,
    moments: dict[str, Moments],
) -> list[Tensor]:
    """One score for each channel of each group."""
    if settings.importance == "activation":
        return [activation_scores(model, each.channels, each.members, moments) for each in possible]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library, about layers that it does not score
        if settings.importance == "taylor" and loss is not None:
            return taylor_scores(model, traced, [each.traced for each in possible], data, loss)
        return weight_scores(settings.importance, [each.traced for each in possible])


def _knowledge(model: nn.Module, data: Sequence[Batch], moments: dict[str, Moments], settings: Settings) -> Knowledge:
    batches = joined(data) if data else []
    if not batches or "statistics" not in settings.recover:
        return Knowledge(batches, moments, {}, {})
    statistics = batch_norm_statistics(model, batches)
    return Knowledge(batches, moments, {} if statistics else output_means(model, batches), statistics)
