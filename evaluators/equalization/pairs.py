"""Pairs of layers between which a positive scale per channel can be moved.

f(s x) = s f(x) holds for ReLU, leaky ReLU and PReLU, dropout, pooling, padding with zeros, interpolation and
reshaping, channel by channel. ReLU6 is ReLU behind an upper bound, and a bound per channel scales with the channel: a
pair may have a ReLU6 between if every call of that module reads a layer that nothing else reads, so that the bound can
be moved to the output of that layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from ...space import SearchSpace, Site
from .dataflow import Dataflow, Operand, Step

_ELEMENTWISE = frozenset(
    {"relu", "relu_", "leaky_relu", "leaky_relu_", "prelu", "dropout", "dropout_", "contiguous", "clone"}
    | {"feature_dropout", "dropout1d", "dropout2d", "dropout3d"}
)
#: They work along the last one, two or three axes.
_SPATIAL = {
    f"{kind}{axes}d": axes
    for kind in ("max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool")
    for axes in (1, 2, 3)
}
_RESHAPES = frozenset({"flatten", "view", "reshape", "squeeze"})
_CLIPS = frozenset({"relu6", "hardtanh", "hardtanh_"})


@dataclass(frozen=True)
class Pair:
    """Two layers, the second of which alone reads the first, through operations that keep scales per channel.

    Attributes:
        first: the layer whose output channels are scaled.
        second: the layer whose input channels are scaled back.
        repeat: how many input features of the second each channel of the first becomes (flattened positions).
        clip: path of the ReLU6 between, if there is one.
    """

    first: Site
    second: Site
    repeat: int = 1
    clip: str = ""


class Layers:
    """The sites of a space as steps of a recorded forward pass.

    Attributes:
        steps: site -> its step, for linear layers and convolutions whose weight is read once, by that step alone.
    """

    def __init__(self, space: SearchSpace, dataflow: Dataflow) -> None:
        self._dataflow = dataflow
        self.steps: dict[Site, Step] = {}
        for site in space.sites:
            if not site.kind.startswith(("linear", "conv")):
                continue
            uses = dataflow.uses.get(site.parameter, [])
            if len(uses) == len(site.modules) == 1 and uses[0].module == site.modules[0] and len(uses[0].outputs) == 1:
                step = uses[0]
                weight = step.argument(1, "weight")
                if step.function == site.kind and isinstance(weight, Operand) and weight.parameter == site.parameter:
                    self.steps[site] = step
        self._sites = {id(step): site for site, step in self.steps.items()}

    def site(self, step: Step | None) -> Site | None:
        """The site that a step computes."""
        return self._sites.get(id(step))

    def axis(self, site: Site, tensor: Operand) -> int:
        """The axis of the channels in the input or output of a layer."""
        return len(tensor.shape) - 1 - (0 if site.kind == "linear" else int(site.kind[-2]))

    def clips(self, model: nn.Module) -> dict[str, list[Site]]:
        """Path of each ReLU6 whose bound can be moved -> the layers that it reads."""
        found: dict[str, list[Site]] = {}
        blocked = set()
        for step in self._dataflow.steps:
            if step.function not in _CLIPS or not step.module:
                continue
            source = step.argument(0, "input")
            before = self._dataflow.producer.get(source.value) if isinstance(source, Operand) else None
            site = self.site(before)
            alone = before is not None and self._dataflow.only_reader(before.outputs[0].value) is step
            module = model.get_submodule(step.module)
            bounded = isinstance(module, nn.ReLU6) or (isinstance(module, nn.Hardtanh) and module.min_val == 0)
            if site is None or not alone or not bounded:
                blocked.add(step.module)
            else:
                found.setdefault(step.module, []).append(site)
        return {path: sites for path, sites in found.items() if path not in blocked}


def find_pairs(model: nn.Module, space: SearchSpace, dataflow: Dataflow) -> list[Pair]:
    """The pairs of a model, in the order of execution.

    Args:
        model: the recorded model.
        space: its sites; layers that are no sites are left alone, and so are weights that several modules share.
        dataflow: of the model.
    """
    layers = Layers(space, dataflow)
    clips = layers.clips(model)
    return [pair for site in layers.steps if (pair := _pair(site, layers, dataflow, clips)) is not None]


def _pair(first: Site, layers: Layers, dataflow: Dataflow, clips: dict[str, list[Site]]) -> Pair | None:
    value = layers.steps[first].outputs[0]
    axis = layers.axis(first, value)
    channels, pair = value.shape[axis], Pair(first, first)
    while (step := dataflow.only_reader(value.value)) is not None:
        source = step.argument(0, "input")
        if not isinstance(source, Operand) or source.value != value.value:
            return None
        second = layers.site(step)
        if second is not None:
            if axis != layers.axis(second, value):
                return None
            repeat = value.shape[axis] // channels
            return replace(pair, second=second, repeat=repeat) if repeat == 1 or second.kind == "linear" else None
        if step.function in _CLIPS:
            if step.module not in clips:
                return None
            pair = replace(pair, clip=step.module)
        elif not _keeps_scales(step, value, axis):
            return None
        value = step.outputs[0]
    return None


def _keeps_scales(step: Step, value: Operand, axis: int) -> bool:
    """Whether f(s x) = s f(x) for scales along the axis, which stays where it is."""
    others = [operand for operand in step.operands if operand.value != value.value and not operand.parameter]
    if others or len(step.outputs) != 1:
        return False
    output, trailing = step.outputs[0].shape, len(value.shape) - 1 - axis
    if step.function in _ELEMENTWISE:
        return output == value.shape
    if step.function in _SPATIAL:
        return _SPATIAL[step.function] <= trailing
    if step.function == "interpolate":
        return axis == 1 and trailing > 0
    if step.function == "pad":
        zero = step.argument(2, "mode", "constant") != "constant" or not step.argument(3, "value")
        return zero and len(step.argument(1, "pad", ())) // 2 <= trailing
    if step.function == "mean":
        axes = step.argument(1, "dim")
        axes = (axes,) if isinstance(axes, int) else axes or (0,)
        return all(each % len(value.shape) > axis for each in axes)
    if step.function in _RESHAPES:
        kept = output[:axis] == value.shape[:axis] and len(output) > axis
        return kept and (output[axis] == value.shape[axis] or len(output) == axis + 1)
    return False
