r"""How far a correct runtime may drift from the fake-quantized model: the measure of the check back.

Two correct implementations add in different orders, so the inputs of a layer differ in their last bits; and integer
kernels add the bias of a convolution as an int32 multiple of :math:`s_x s_w`. Where such an input is rounded, a value
next to the middle between two codes may fall to the other side, a whole step away; the next layers round again, and the
difference grows to a level that depends on the model and hardly on the size of the first difference. No fixed bound
fits both a small network (1e-7) and fifty rounded layers (3e-2), so the model is asked: perturb the input of every
rounded layer, round the biases, and see how far the outputs move.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..evaluators.quantizers import ActivationQuantizer
from ..formats import Format
from ..space import Site
from .comparison import reference, relative_error
from .protocol import ExportRequest

#: Size of the perturbation, relative to the root mean square of the tensor: 8 units in the last place of float32.
PERTURBATION = 1e-6


def rounding_noise(request: ExportRequest, draws: int = 2, seed: int = 0) -> float:
    """The largest relative change of any output of the fake-quantized model under what a correct runtime may change.

    Args:
        request: model, configuration and example.
        draws: how many perturbed passes are made.
        seed: of the perturbations.

    Returns:
        The largest relative error over passes and outputs; 0 where no input is rounded.
    """
    rounded = request.rounded_modules
    if not rounded:
        return 0.0
    sites = {site.name: site for site in request.space.sites}
    wanted = reference(request)
    generator = torch.Generator().manual_seed(seed)
    largest = 0.0
    with ExitStack() as stack:
        for path, name in rounded.items():
            module = request.model.get_submodule(path)
            stack.callback(module.register_forward_pre_hook(_perturbation(generator)).remove)
            shift = _bias_shift(request, sites[name], path)
            if shift is not None:
                stack.callback(module.register_forward_hook(_addition(shift)).remove)
        for _ in range(draws):
            moved = reference(request)
            errors = [relative_error(given, expected) for given, expected in zip(moved, wanted, strict=True)]
            largest = max(largest, *errors)
    return largest


def _perturbation(generator: torch.Generator) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def perturb(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        value: Tensor = args[0]
        noise = torch.randn(value.shape, generator=generator).to(value)
        return (value + PERTURBATION * value.square().mean().sqrt() * noise, *args[1:])

    return perturb


def _bias_shift(request: ExportRequest, site: Site, path: str) -> Tensor | None:
    """What rounding the bias of a convolution to int32 adds to its output: broadcast against it."""
    target = Format.parse(request.configuration[site.name])
    bias = getattr(request.model.get_submodule(path), "bias", None)
    integer = target.weight.number == "int" and target.weight.symmetric
    if not integer or not site.kind.startswith("conv") or not isinstance(bias, Tensor):
        return None
    weight = request.quantized.calibration.scales(site, target.weight).factor.to(bias)
    if len(weight) not in (1, len(bias)):
        return None  # a grouped transposed convolution, whose scales do not run along its output channels
    quantizer = request.quantized.calibration.activation(path, target.activation) if target.activation else None
    if not isinstance(quantizer, ActivationQuantizer):
        return None
    step = weight * quantizer.scale
    shift = (bias / step).round() * step - bias
    return shift.detach().reshape([-1 if axis == 1 else 1 for axis in range(len(site.weight_shape))])


def _addition(shift: Tensor) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
    def add(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        return output + shift

    return add
