"""What lies in the weights file: one layer for every site, and one for every other tensor of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..evaluators.quantizers import (
    ActivationQuantizer,
    BlockScaledQuantizer,
    FloatQuantizer,
    Layout,
    Quantizer,
    round_to_float,
)
from ..formats import Format, TensorFormat
from ..space import Site
from .compressed_model import Hub
from .compressed_packing import reciprocal_scale
from .compressed_schemes import shapes, tensors
from .compressed_shards import Layer
from .protocol import ExportRequest

_HALF = {8: torch.bfloat16, 5: torch.float16}
#: Unsigned 8-bit codes become signed ones.
_OFFSET = 128


def layers(request: ExportRequest, hub: Hub) -> Iterator[Layer]:
    """The layers of a checkpoint in the order of the model.

    Args:
        request: model, configuration, calibration.
        hub: its transformers model.
    """
    biases = request.quantized.changes(request.configuration).biases
    sites = {hub.name(site.parameter): site for site in request.space.sites}
    for name, tensor in hub.stored().items():
        target = request.format_of(sites[name]) if name in sites else Format.parse("fp32")
        full = hub.prefix + name
        if not target.is_wide:
            yield _narrow(request, sites[name], target, name.rpartition(".")[0])
        elif target.weight_bits == 16:
            yield half(name, tensor, target.weight)
        else:
            yield Layer.of({name: request.quantized.bias(full, biases[full]) if full in biases else tensor})


def half(name: str, tensor: Tensor, target: TensorFormat) -> Layer:
    """A tensor in a float of 16 bits."""
    kind = _HALF[target.exponent_bits]
    return Layer({name: (kind, tuple(tensor.shape))}, lambda: {name: round_to_float(tensor, target).to(kind)})


def _narrow(request: ExportRequest, site: Site, target: Format, module: str) -> Layer:
    calibration, weight = request.quantized.calibration, request.model.get_parameter(site.parameter)
    inputs: dict[str, Tensor] = {}
    if target.activation is not None:
        inputs = input_tensors(calibration.activation(site.name, target.activation))
    own = shapes(target, Layout(site.weight_shape, site.channel_axis, target.weight))
    own |= {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in inputs.items()}

    def make() -> Mapping[str, Tensor]:
        stored = tensors(target, calibration.quantize(site, weight, target.weight))
        return {f"{module}.{name}": tensor for name, tensor in {**stored, **inputs}.items()}

    return Layer({f"{module}.{name}": shape for name, shape in own.items()}, make)


def input_tensors(quantizer: Quantizer) -> dict[str, Tensor]:
    """What is stored for the input of a module: static scales and zero-points, each of shape [1].

    Raises:
        InvalidInput: the quantizer has static scales of another kind.
    """
    if isinstance(quantizer, ActivationQuantizer):
        found = {"input_scale": torch.tensor([quantizer.scale], dtype=torch.float32)}
        if not quantizer.symmetric:
            found["input_zero_point"] = torch.tensor([quantizer.zero_point - _OFFSET], dtype=torch.int8)
        return found
    if isinstance(quantizer, FloatQuantizer):
        return {"input_scale": torch.tensor([quantizer.scale], dtype=torch.float32)}
    if isinstance(quantizer, BlockScaledQuantizer):
        return {"input_global_scale": reciprocal_scale(quantizer.tensor_scale)}
    if getattr(getattr(quantizer, "target", None), "dynamic", False):
        return {}
    raise InvalidInput(f"compressed-tensors has no place for the scales of {type(quantizer).__name__}")
