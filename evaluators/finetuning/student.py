"""The student: a copy of the float model that runs with learnable quantizers and gives gradients to everything."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ...errors import InvalidInput
from ...formats import Format, activation_name, weight_name
from ...tracing import without_attention_fast_path
from ..calibration import Calibration
from ..float_run import on_device
from ..quantized_model import QuantizedModel, rounding_hook
from ..quantizers import Layout, QuantizedWeight, Quantizer, WeightScale, quantize_weight, round_to_float
from .learned_step import LearnedActivation, LearnedWeight, straight_through

if TYPE_CHECKING:
    from ...space import SearchSpace, Site
    from ...task import Batch

Fake = Callable[[Tensor], Tensor]


class Student:
    """A trainable copy of a model in one configuration.

    Integer weights and static integer activations have learnable steps (``learned_step``); every other format keeps
    its calibrated or dynamic scales and passes gradients straight through. Codes that a reconstruction chose become
    the starting point: the weight moves to the nearest value that rounds to them. Bias corrections are added to the
    biases of the copy. Batches and calibration may lie on another device than the model.

    Args:
        model: the float model, which is not changed.
        space: the sites that the configuration names.
        configuration: ``{site name: format name}`` for every site of the space.
        calibration: where scales and ranges begin.
    """

    def __init__(
        self, model: nn.Module, space: SearchSpace, configuration: Mapping[str, str], calibration: Calibration
    ) -> None:
        self.model = copy.deepcopy(model).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        self._space, self._given = space, calibration
        self._formats = {site.name: Format.parse(configuration[site.name]) for site in space.sites}
        self._weights: dict[str, Fake] = {}
        self._inputs: dict[str, Fake] = {}
        quantized = QuantizedModel(self.model, space, calibration)
        for site in space.sites:
            self._enter(site, self._formats[site.name], quantized)

    def _enter(self, site: Site, target: Format, quantized: QuantizedModel) -> None:
        parameter = self.model.get_parameter(site.parameter)
        if (site.name, weight_name(target.weight)) in self._given.codes:
            parameter.data = self._codes_kept(site, parameter.data, target)
        self._weights[site.name] = self._weight(site, parameter.data, target)
        shift = self._given.biases.get((site.name, target.name))
        for module in site.modules:
            layer = self.model.get_submodule(module)
            if shift is not None:
                _add_to_bias(layer, site.name, shift)
            quantizer = quantized.rounding(site, module, target)
            if quantizer is None or target.activation is None:
                continue
            if target.needs_ranges and target.activation.number == "int":
                found = self._given.ranges[module, activation_name(target.activation)]
                self._inputs[module] = LearnedActivation(target.activation, found, parameter.device)
            else:
                self._inputs[module] = _passing(quantizer)

    def _weight(self, site: Site, weight: Tensor, target: Format) -> Fake:
        wanted = target.weight
        if wanted.is_wide:
            return lambda value: straight_through(value, round_to_float(value.detach(), wanted))
        scales = _moved(self._given.scales(site, wanted), weight.device)
        if wanted.number == "int":
            return LearnedWeight(weight, wanted, scales, site.channel_axis)
        return _passing(
            lambda value: quantize_weight(value, wanted, scales, site.channel_axis).dequantize().to(value.dtype)
        )

    def _codes_kept(self, site: Site, weight: Tensor, target: Format) -> Tensor:
        """The weight moved as little as needed (to 1 % inside the cell) so that it rounds to the given codes."""
        codes = self._given.codes[site.name, weight_name(target.weight)].to(weight.device)
        scales = _moved(self._given.scales(site, target.weight), weight.device)
        quantized = QuantizedWeight(codes, scales, Layout.of(weight, target.weight, site.channel_axis))
        if target.weight.number != "int":
            return quantized.dequantize().to(weight.dtype)
        layout = quantized.layout
        step = layout.expand(quantized.scales.factor)
        middle = layout.matrix(quantized.dequantize())
        moved = torch.clamp(layout.matrix(weight.float()), middle - 0.49 * step, middle + 0.49 * step)
        return layout.tensor(moved).contiguous().to(weight.dtype)

    @property
    def steps(self) -> list[nn.Parameter]:
        """The learnable step sizes."""
        modules = [each for each in (*self._weights.values(), *self._inputs.values()) if isinstance(each, nn.Module)]
        return [parameter for module in modules for parameter in module.parameters()]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The weights, biases and normalization parameters of the copy."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @contextmanager
    def running(self) -> Iterator[Callable[[Batch], Any]]:
        """What runs the student on a batch, for the length of a ``with`` block."""
        with ExitStack() as stack:
            for module, fake in self._inputs.items():
                layer = self.model.get_submodule(module)
                stack.callback(layer.register_forward_pre_hook(rounding_hook(fake), with_kwargs=True).remove)
            stack.enter_context(without_attention_fast_path())
            yield self._run

    def _run(self, batch: Batch) -> Any:
        batch = on_device(batch, self.model)
        weights = {
            site.parameter: self._weights[site.name](self.model.get_parameter(site.parameter))
            for site in self._space.sites
        }
        if isinstance(batch.inputs, dict):
            return functional_call(self.model, weights, (), batch.inputs)
        return functional_call(self.model, weights, batch.inputs)

    def calibration(self) -> Calibration:
        """The learnt scales and ranges of the configuration, with which ``model`` is to be quantized."""
        found = Calibration()
        for site in self._space.sites:
            target, fake = self._formats[site.name], self._weights[site.name]
            key = site.name, weight_name(target.weight)
            if not target.weight.is_wide:
                found.weights[key] = fake.scales() if isinstance(fake, LearnedWeight) else self._given.weights[key]
            if target.activation is None or not target.needs_ranges:
                continue
            for module in site.modules:
                entry = module, activation_name(target.activation)
                learnt = self._inputs[module]
                found.ranges[entry] = (
                    learnt.range() if isinstance(learnt, LearnedActivation) else self._given.ranges[entry]
                )
        return found

    def state(self) -> list[Tensor]:
        """A copy of everything that is learnt."""
        return [parameter.detach().clone() for parameter in (*self.parameters, *self.steps)]

    def load(self, state: list[Tensor]) -> None:
        """Go back to what ``state`` returned."""
        for parameter, value in zip((*self.parameters, *self.steps), state, strict=True):
            parameter.data.copy_(value)


def _passing(quantizer: Quantizer) -> Fake:
    """A quantizer with fixed scales whose gradient is that of the identity."""
    return lambda value: straight_through(value, quantizer(value.detach()))


def _moved(scales: WeightScale, device: torch.device) -> WeightScale:
    """Scales on another device."""
    zero, whole = (None if each is None else each.to(device) for each in (scales.zero_point, scales.tensor_scale))
    return replace(scales, scale=scales.scale.to(device), zero_point=zero, tensor_scale=whole)


def _add_to_bias(layer: nn.Module, site: str, shift: Tensor) -> None:
    bias = getattr(layer, "bias", None)
    if not isinstance(bias, Tensor):
        raise InvalidInput(f"site {site} has a bias correction and no bias; calibrate and finetune the prepared task")
    bias.data.add_(shift.to(bias))
