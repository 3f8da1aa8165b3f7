"""Groups of channels that can be cut: dependency tracking by torch-pruning, every group verified on the example."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import InvalidInput
from ....evaluators import run_float
from ....task import Batch
from .blocks import Skip, calls
from .masking import misread
from .pruning import CONSUMERS, ChannelGroup, Member
from .running import replace
from .scope import Scope

#: Attributes under which attention modules keep their number of heads.
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")
#: What torch-pruning raises on operations that it cannot follow.
_TRACING = (TypeError, AttributeError, RuntimeError, IndexError, KeyError, AssertionError)


@dataclass(frozen=True)
class Candidate:
    """A group as it was traced.

    Attributes:
        path: the first layer that makes the channels.
        channels: how many.
        members: what they run through.
        traced: the group of the dependency graph.
    """

    path: str
    channels: int
    members: tuple[Member, ...]
    traced: Any

    @property
    def readers(self) -> list[str]:
        """Paths of the layers that read the channels."""
        return [member.path for member in self.members if member.operation in CONSUMERS]


def candidates(model: nn.Module, example: Batch, scope: Scope, left_out: dict[str, str]) -> list[Candidate]:
    """Trace the dependencies between channels.

    Args:
        model: a copy for this purpose alone; the groups refer to its modules.
        example: inputs.
        scope: which layers may change.
        left_out: takes the reasons why groups cannot be cut, by name of the dimension.

    Returns:
        Groups that might be cut, in the order of their first layers.

    Raises:
        InvalidInput: torch-pruning is not installed.
    """
    try:
        import torch_pruning  # noqa: F401
    except ImportError:
        raise InvalidInput("widths need torch-pruning: pip install 'bitfront[compression]', or give width=()") from None
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    graph = _graph_around_attention(model, example, left_out)
    if graph is None:
        return []
    found: list[Candidate] = []
    order = {path: position for position, (path, _) in enumerate(model.named_modules())}
    for group in graph.get_all_groups():
        path = _maker(graph, group, order)
        members = list(_members(graph, group))
        known = tuple(each for each in members if each is not None)
        if not scope.group(path, [each.path for each in known]):
            continue
        tied = scope.tied([each.path for each in known])
        if tied:
            left_out[f"{path}.width"] = f"{tied} shares its weight with another module"
        elif len(known) < len(members):
            left_out[f"{path}.width"] = "an operation between its layers cannot be cut"
        elif _grouped(model, known):
            left_out[f"{path}.width"] = "a grouped convolution reads or makes its channels"
        else:
            found.append(Candidate(path, len(group[0].idxs), known, group))
    return sorted(found, key=lambda each: order[each.path])


def verified(
    model: nn.Module,
    candidate: Candidate,
    score: Tensor,
    kept: Callable[[ChannelGroup], int],
    example: Batch,
    expected: Sequence[Tensor],
) -> tuple[ChannelGroup | None, str]:
    """A group with its channels ranked, if it can be cut by channels or, in attention, by heads.

    Args:
        model: the original.
        candidate: the traced group.
        score: importance of each channel [channels].
        kept: units that stay in the trial.
        example: inputs.
        expected: outputs of the original.

    Returns:
        The group, or ``None`` and the reason.
    """
    why = ""
    for unit, heads in _units(model, candidate):
        per_unit = score.view(-1, unit).sum(1)
        ranked = tuple(int(each) for each in torch.argsort(per_unit, descending=True, stable=True))
        group = ChannelGroup(candidate.path, candidate.channels, unit, candidate.members, ranked, heads)
        stay = kept(group)
        if stay == len(ranked):
            why = why or "no share keeps fewer channels"
            continue
        why = misread(model, group, stay, example, expected)
        if not why:
            return group, ""
    return None, why


def _graph_around_attention(model: nn.Module, example: Batch, left_out: dict[str, str]) -> Any:
    """The dependency graph; ``None`` if the model cannot be traced even without its attention."""
    try:
        return _graph(model, example)
    except _TRACING as cause:
        whole = _without_attention(model, example)
        left_out |= {f"{path}.width": "torch-pruning cannot trace its operations; it stays whole" for path in whole}
        why = cause
    if whole:
        try:
            return _graph(model, example)
        except _TRACING as cause:
            why = cause
    left_out["*.width"] = f"the dependencies between channels cannot be traced: {why}"
    return None


def _graph(model: nn.Module, example: Batch) -> Any:
    import torch_pruning

    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # about parameters of their own, which the verification judges
        return torch_pruning.DependencyGraph().build_dependency(
            model, example, forward_fn=lambda module, batch: run_float(module, batch, "example"), verbose=False
        )


def _without_attention(model: nn.Module, example: Batch) -> list[str]:
    """Replace attention modules by their input, in place, so that the rest can be traced; returns their paths.

    Groups that ran through them are then misread, which the verification on the original network finds.
    """
    found = []
    for path, call in calls(model, example).items():
        if call.same and _is_attention(model.get_submodule(path)):
            replace(model, path, Skip(call.keyword, call.length))
            found.append(path)
    return found


def _members(graph: Any, group: Any) -> Iterator[Member | None]:
    """What the group runs through; ``None`` for what cannot be cut."""
    from torch_pruning.pruner import function

    names = {getattr(function, name): name for name in function.__all__ if name.startswith("prune_")}
    for position in range(len(group)):
        dependency, index = group[position].dep, group[position].idxs
        target = dependency.target.module
        path = graph._param_to_name.get(target) if isinstance(target, nn.Parameter) else graph._module2name.get(target)
        if path is None:
            continue  # an operation without weights: a view, a sum, a concatenation
        channel = group[position].root_idxs
        if dependency.handler not in names or any(each is None for each in channel):
            yield None
            continue
        axis = dependency.target.pruning_dim
        yield Member(path, names[dependency.handler], tuple(map(int, index)), tuple(map(int, channel)), axis)


def _maker(graph: Any, group: Any, order: dict[str, int]) -> str:
    """The first layer with weights of its own that makes the channels, depthwise convolutions and norms after it."""
    made: list[str] = [
        graph._module2name[item.dep.target.module]
        for item in (group[position] for position in range(len(group)))
        if isinstance(item.dep.target.module, (nn.modules.conv._ConvNd, nn.Linear))
        and item.dep.handler.__name__ == "prune_out_channels"
    ]
    depthwise = [path for path in made if getattr(graph.model.get_submodule(path), "groups", 1) > 1]
    return min([path for path in made if path not in depthwise] or made, key=lambda path: order[path])


def _grouped(model: nn.Module, members: Sequence[Member]) -> bool:
    """Whether a convolution is in several groups, but not depthwise."""
    for member in members:
        if member.operation.startswith("prune_conv"):
            layer = model.get_submodule(member.path)
            if getattr(layer, "groups", 1) > 1:
                return True
    return False


def _heads(module: nn.Module) -> list[str]:
    return [
        name
        for name in _HEADS
        if isinstance(vars(module).get(name), int) and not isinstance(module, nn.MultiheadAttention)
    ]


def _is_attention(module: nn.Module) -> bool:
    """Whether a module counts heads and none of its parts does."""
    return bool(_heads(module)) and not any(_heads(part) for part in module.modules() if part is not module)


def _units(model: nn.Module, candidate: Candidate) -> Iterator[tuple[int, tuple[tuple[str, str], ...]]]:
    """Ways to cut: channel by channel; by heads of the attention that holds the layer, its count changed or not."""
    yield 1, ()
    parts = candidate.path.split(".")
    for length in range(len(parts) - 1, -1, -1):
        path = ".".join(parts[:length])
        module = model.get_submodule(path)
        names = _heads(module)
        if names:
            count = int(vars(module)[names[0]])
            if count > 1 and candidate.channels % count == 0:
                yield candidate.channels // count, ()
                yield candidate.channels // count, tuple((path, name) for name in names)
            return
