"""A family of compressed versions of any model, without training."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from ....architecture import ArchitectureSpace, Dimension, Value
from ....errors import InvalidInput, UnsupportedModel
from ....evaluators import batch_norm_statistics
from ....space import match_sites
from ....task import Batch
from .blocks import Block, skippable_blocks
from .family import CompressionFamily, Knowledge
from .groups import Candidate, candidates, verified
from .importance import activation_scores, taylor_scores, weight_scores
from .low_rank import factored, matrix, rank_of, saves
from .moments import Moments, input_moments, is_matrix
from .pruning import ChannelGroup
from .running import fault, outputs, replace
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
        The family; ``family.build(family.architecture.largest())`` is the original network.

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
    chosen = _Globs(own, settings)
    left_out: dict[str, str] = {}

    blocks: list[Block] = []
    if settings.skip:
        found_blocks, why = skippable_blocks(own, example, expected)
        blocks = [block for block in found_blocks if chosen.block(block.path)]
        left_out |= {f"{path}.skip": reason for path, reason in why.items()}
    layers = _factorable(own, example, expected, chosen, settings, left_out)
    traced = copy.deepcopy(own)
    possible, why = candidates(traced, example) if any(share < 1 for share in settings.width) else ([], {})
    left_out |= {f"{path}.width".lstrip("."): reason for path, reason in why.items()}
    possible = [each for each in possible if chosen.group(each) and not _shared(own, each, left_out)]

    readers = [path for each in possible for path in each.readers if is_matrix(own.get_submodule(path))]
    moments = input_moments(own, data, {*readers, *layers}) if data else {}
    scores = _scores(traced, possible, settings, data, loss, moments)
    groups: list[ChannelGroup] = []
    for each, score in zip(possible, scores, strict=True):
        group, reason = verified(own, each, score, _fewest(settings), example, expected)
        if group is None:
            left_out[f"{each.path}.width"] = reason
        else:
            groups.append(group)
    architecture = ArchitectureSpace(tuple(_dimensions(own, blocks, groups, layers, settings)))
    if not architecture.dimensions:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:3])
        raise UnsupportedModel(
            f"nothing of {type(model).__name__} can be compressed as asked; widen skip, width, rank or include"
            + (f" ({reasons})" if reasons else "")
        )
    knowledge = _knowledge(own, data, moments, settings)
    return CompressionFamily(own, settings, architecture, blocks, groups, example, expected, knowledge, left_out)


class _Globs:
    """Which modules may change."""

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        names = [path for path, _ in model.named_modules() if path]
        self._included = match_sites(names, settings.include, "include")
        self._excluded = match_sites(names, settings.exclude, "exclude")

    def layer(self, path: str) -> bool:
        return path in self._included and path not in self._excluded

    def block(self, path: str) -> bool:
        return self.layer(path) and not any(each.startswith(f"{path}.") for each in self._excluded)

    def group(self, candidate: Candidate) -> bool:
        return candidate.path in self._included and not self._excluded & {each.path for each in candidate.members}


def _factorable(
    model: nn.Module,
    example: Batch,
    expected: Sequence[Tensor],
    chosen: _Globs,
    settings: Settings,
    left_out: dict[str, str],
) -> dict[str, tuple[float, ...]]:
    """Layers that two thin ones can stand for -> the shares that save weights, with 1.0."""
    found: dict[str, tuple[float, ...]] = {}
    shared = _shared_parameters(model)
    for path, layer in model.named_modules():
        if not is_matrix(layer) or not chosen.layer(path) or not settings.rank:
            continue
        shape = matrix(layer).shape
        by_rank: dict[int, float] = {}
        for share in sorted(settings.rank):
            if saves(share, *shape, settings.round_to):
                by_rank.setdefault(rank_of(share, *shape, settings.round_to), share)
        if not by_rank:
            continue
        trial = copy.deepcopy(model)
        replace(trial, path, factored(layer, 1))
        why = "another module has the same weight" if id(layer.weight) in shared else fault(trial, example, expected)
        if why:
            left_out[f"{path}.rank"] = why
        else:
            found[path] = (*by_rank.values(), *((1.0,) if 1.0 in settings.rank else ()))
    return found


def _shared_parameters(model: nn.Module) -> set[int]:
    """Identities of parameters that several modules hold."""
    held = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in {id(each): each for each in module._parameters.values() if each is not None}.values()
    )
    return {identity for identity, count in held.items() if count > 1}


def _shared(model: nn.Module, candidate: Candidate, left_out: dict[str, str]) -> bool:
    shared = _shared_parameters(model)
    for member in candidate.members:
        parent, _, name = member.path.rpartition(".")
        target = getattr(model.get_submodule(parent), name)
        if any(id(each) in shared for each in ([target] if isinstance(target, nn.Parameter) else target.parameters())):
            left_out[f"{candidate.path}.width"] = f"{member.path} shares its weight with another module"
            return True
    return False


def _fewest(settings: Settings) -> Callable[[ChannelGroup], int]:
    return lambda group: group.kept(min(settings.width), settings.round_to)


def _scores(
    traced: nn.Module,
    possible: Sequence[Candidate],
    settings: Settings,
    data: Sequence[Batch],
    loss: Callable[[Any, Any], Tensor] | None,
    moments: dict[str, Moments],
) -> list[Tensor]:
    if settings.importance == "activation":
        return [activation_scores(traced, each.channels, each.members, moments) for each in possible]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if settings.importance == "taylor" and loss is not None:
            return taylor_scores(traced, [each.traced for each in possible], data, loss)
        return weight_scores(settings.importance, [each.traced for each in possible])


def _dimensions(
    model: nn.Module,
    blocks: Sequence[Block],
    groups: Sequence[ChannelGroup],
    layers: dict[str, tuple[float, ...]],
    settings: Settings,
) -> list[Dimension]:
    """Skips first, outer before inner; widths and ranks in the order of the layers."""

    def inside(paths: Sequence[str]) -> tuple[tuple[str, tuple[Value, ...]], ...]:
        holding = [block.path for block in blocks if all(path.startswith(f"{block.path}.") for path in paths)]
        return ((f"{max(holding, key=len)}.skip", (False,)),) if holding else ()

    found = [
        Dimension(f"{block.path}.skip", "skip", (True, False), inside([block.path])) for block in blocks
    ]  # fmt: skip
    for group in groups:
        by_count: dict[int, float] = {}
        for share in sorted(settings.width, reverse=True):
            by_count.setdefault(group.kept(share, settings.round_to), share)
        values = tuple(sorted(by_count.values()))
        condition = inside([member.path for member in group.members])
        found.append(Dimension(f"{group.path}.width", "width", values, condition))
    found += [Dimension(f"{path}.rank", "rank", shares, inside([path])) for path, shares in layers.items()]
    return found


def _knowledge(model: nn.Module, data: Sequence[Batch], moments: dict[str, Moments], settings: Settings) -> Knowledge:
    batches = joined(data) if data else []
    if not batches or "statistics" not in settings.recover:
        return Knowledge(batches, moments, {}, {})
    statistics = batch_norm_statistics(model, batches)
    return Knowledge(batches, moments, {} if statistics else output_means(model, batches), statistics)
