"""Calibration: the weight scales of every site and format, and the ranges of the activations that enter the sites."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import BitfrontError, InvalidInput, NonFiniteOutput, UnsupportedModel
from ..formats import Format, TensorFormat
from ..space import SearchSpace, Site
from ..tracing import without_attention_fast_path
from .quantizers import ActivationQuantizer, QuantizedWeight, mse_scales, quantize_weight

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..task import Batch, Task

#: Raise when a quantizer changes what it computes: stored evaluations of older versions are then not reused.
VERSION = 2

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Calibration:
    """What the quantizers need to know, small enough to send to every worker.

    Attributes:
        scales: (site name, weight bits) -> float32 tensor [channels].
        ranges: module path -> (minimum, maximum) of the tensor that enters it over the calibration data.
    """

    scales: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    def quantize(self, site: Site, weight: Tensor, target: TensorFormat) -> QuantizedWeight:
        """Integer codes and scales of the weight of a site.

        Raises:
            InvalidInput: the format was not calibrated at this site.
        """
        scale = self.scales.get((site.name, target.bits))
        if scale is None:
            raise InvalidInput(f"site {site.name} was not calibrated for {target.bits}-bit weights; calibrate it first")
        return quantize_weight(weight, target, scale, site.channel_axis)

    def activation(self, module: str, bits: int) -> ActivationQuantizer:
        """The activation quantizer of a module's input.

        Raises:
            InvalidInput: the calibration data never reached the module.
        """
        if module not in self.ranges:
            raise InvalidInput(f"no activation range for {module}; calibrate with a format that quantizes activations")
        return ActivationQuantizer.from_range(*self.ranges[module], bits)

    def merged(self, other: Calibration) -> Calibration:
        """Both calibrations together; the other wins where they overlap."""
        return Calibration({**self.scales, **other.scales}, {**self.ranges, **other.ranges})

    def to_arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Plain arrays by name, for storage: ``scale|<bits>|<site>`` and ``range|<module>``."""
        arrays = {f"scale|{bits}|{site}": scale.numpy() for (site, bits), scale in self.scales.items()}
        return arrays | {f"range|{module}": np.array(bounds) for module, bounds in self.ranges.items()}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray[Any, Any]]) -> Calibration:
        """The inverse of ``to_arrays``."""
        found = Calibration()
        for name, array in arrays.items():
            kind, _, rest = name.partition("|")
            if kind == "range":
                found.ranges[rest] = (float(array[0]), float(array[1]))
            else:
                bits, _, site = rest.partition("|")
                found.scales[site, int(bits)] = torch.from_numpy(array)
        return found

    @property
    def digest(self) -> str:
        """Content hash of scales and ranges (16 hex digits)."""
        content = hashlib.sha256(f"v{VERSION}".encode())
        for (site, bits), scale in sorted(self.scales.items()):
            content.update(f"{site}|{bits}".encode())
            content.update(scale.cpu().numpy().tobytes())
        content.update(repr(sorted(self.ranges.items())).encode())
        return content.hexdigest()[:16]


def calibrate(task: Task, space: SearchSpace, advance: Advance | None = None) -> Calibration:
    """Choose weight scales (least squared error) and activation ranges (minimum and maximum).

    Args:
        task: model and calibration data.
        space: sites and formats; activation ranges are only gathered where a format needs them.
        advance: called with 1 after each site and each calibration batch, for progress bars.

    Returns:
        The calibration.

    Raises:
        NonFiniteOutput: a weight or an activation is NaN or infinite; the message names the layer.
    """
    scales: dict[tuple[str, int], Tensor] = {}
    for site in space.sites:
        weight = task.model.get_parameter(site.parameter)
        if not bool(torch.isfinite(weight).all()):
            raise NonFiniteOutput(f"the weight of {site.name} holds NaN or infinity")
        for target in integer_weights(site):
            scales[site.name, target.bits] = mse_scales(weight, target, site.channel_axis)
        if advance:
            advance(1)
    modules = [
        module
        for site in space.sites
        if any(Format.parse(name).quantizes_activations for name in site.formats)
        for module in site.modules
    ]
    return Calibration(scales, _ranges(task, modules, advance) if modules else {})


def integer_weights(site: Site) -> list[TensorFormat]:
    """The distinct integer weight formats that a site offers."""
    found = {Format.parse(name).weight for name in site.formats}
    return sorted((target for target in found if target.number == "int"), key=lambda target: target.bits)


def _ranges(task: Task, modules: Sequence[str], advance: Advance | None) -> dict[str, tuple[float, float]]:
    """Minimum and maximum of the first floating-point input of each module over the calibration batches."""
    ranges: dict[str, tuple[float, float]] = {}

    def observer(name: str) -> Callable[..., None]:
        def observe(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            value = first_tensor(args, kwargs)
            if value is None or not value.is_floating_point():
                return
            low, high = (float(bound) for bound in torch.aminmax(value.detach()))
            if not (low > -float("inf") and high < float("inf")):
                raise NonFiniteOutput(f"the activation that enters {name} is NaN or infinite on the calibration data")
            before = ranges.get(name, (low, high))
            ranges[name] = min(low, before[0]), max(high, before[1])

        return observe

    with ExitStack() as stack, torch.no_grad():
        for name in modules:
            handle = task.model.get_submodule(name).register_forward_pre_hook(observer(name), with_kwargs=True)
            stack.callback(handle.remove)
        for batch in task.calibration:
            run_float(task.model, batch, "calibration")
            if advance:
                advance(1)
    return ranges


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The first tensor among the arguments of a module."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)


def run_float(model: nn.Module, batch: Batch, where: str) -> Any:
    """Run the float model on a batch; a failure becomes one clear error.

    Raises:
        UnsupportedModel: the model does not accept the batch; the message gives the shapes.
    """
    try:
        with without_attention_fast_path():
            return batch(model)
    except BitfrontError:
        raise
    except Exception as cause:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in batch.tensors.items())
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise UnsupportedModel(f"the model does not accept the {where} data ({shapes}): {reason}") from cause
