"""Formats as compressed-tensors names them: which scheme says the same, and which formats no scheme can say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..evaluators.quantizers import Layout, QuantizedWeight
from ..formats import Format, TensorFormat, activation_name, weight_name
from .compressed_packing import packed_floats, packed_integers, plain_codes
from .compressed_shards import Shape

_BLOCK = 128


def refusal(target: Format) -> str:
    """Why a format has no scheme that ``transformers`` and the servers read alike; empty if it has one."""
    if target.is_wide:
        return ""
    return _weight_refusal(target.weight) or _input_refusal(target)


def storage(target: Format) -> str:
    """The ``format`` of a group: how its weights lie in the file."""
    weight, value = target.weight, target.activation
    if weight.scale == "e8m0":
        return "mxfp8-quantized" if weight.bits == 8 else "mxfp4-pack-quantized"
    if weight.scale == "e4m3":
        return "nvfp4-pack-quantized"
    if weight.number == "float":
        return "float-quantized" if value else "naive-quantized"
    return "int-quantized" if value and weight.container_bits == 8 else "pack-quantized"


def shapes(target: Format, layout: Layout) -> dict[str, Shape]:
    """Types and shapes of ``tensors``."""
    (rows, columns), weight = layout.matrix_shape, target.weight
    scale = (rows, 1) if weight.granularity == "channel" else layout.scale_shape
    how = storage(target)
    if how == "pack-quantized":
        bits = weight.container_bits
        return {
            "weight_packed": (torch.int32, (rows, math.ceil(columns * bits / 32))),
            "weight_scale": (torch.float16 if weight.scale == "fp16" else torch.float32, scale),
            "weight_shape": (torch.int64, (2,)),
        }
    if how in ("mxfp4-pack-quantized", "nvfp4-pack-quantized"):
        kind = torch.float8_e4m3fn if weight.scale == "e4m3" else torch.uint8
        found: dict[str, Shape] = {"weight_packed": (torch.uint8, (rows, columns // 2)), "weight_scale": (kind, scale)}
        return {**found, "weight_global_scale": (torch.float32, (1,))} if weight.scale == "e4m3" else found
    return {
        "weight": (torch.int8 if weight.number == "int" else torch.float8_e4m3fn, (rows, columns)),
        "weight_scale": (torch.uint8 if weight.scale == "e8m0" else torch.float32, scale),
    }


def tensors(target: Format, weight: QuantizedWeight) -> dict[str, Tensor]:
    """What is stored for a weight: the parameters of the module by name."""
    how = storage(target)
    if how == "pack-quantized":
        return packed_integers(weight)
    return packed_floats(weight) if how in ("mxfp4-pack-quantized", "nvfp4-pack-quantized") else plain_codes(weight)


def scheme(target: Format, modules: list[str]) -> dict[str, Any]:
    """One entry of ``config_groups``.

    Args:
        target: a format without ``refusal``.
        modules: full names of the modules that have it.
    """
    value = target.activation
    return {
        "format": storage(target),
        "input_activations": None if value is None else _input_arguments(value),
        "output_activations": None,
        "targets": sorted(modules),
        "weights": _arguments(target.weight),
    }


def quantization_config(groups: Mapping[str, list[str]], ignore: list[str], version: str) -> dict[str, Any]:
    """The ``quantization_config`` of a model's ``config.json``.

    Args:
        groups: format name -> modules.
        ignore: linear modules that stay in float.
        version: of compressed-tensors.
    """
    parsed = {name: Format.parse(name) for name in groups}
    stored = {storage(target) for target in parsed.values()}
    return {
        "config_groups": {
            f"group_{number}": scheme(parsed[name], groups[name]) for number, name in enumerate(sorted(groups))
        },
        "format": stored.pop() if len(stored) == 1 else "mixed-precision",
        "global_compression_ratio": None,
        "ignore": sorted(ignore),
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "version": version,
    }


def _weight_refusal(weight: TensorFormat) -> str:
    name = weight_name(weight)
    if weight.number == "codebook":
        return "compressed-tensors has integers and floats, no tables of values"
    if weight.number == "int":
        if not weight.symmetric:
            return "transformers decodes packed zero-points by one scheme for all layers, so that mixed models go wrong"
        if weight.granularity in ("tensor", "block"):
            return "integer kernels of the servers have one scale per channel or group of weights"
        return ""
    if weight.scale in ("e8m0", "e4m3"):
        return "" if weight.bits in (4, 8) else f"{name}: the servers have no kernels for 6-bit floats"
    if (weight.exponent_bits, weight.mantissa_bits) != (4, 3):
        return f"{name}: of the floats with a plain scale only e4m3 has a type"
    return f"{name}: e4m3 weights have one scale per tensor, channel or square" if weight.granularity == "group" else ""


def _input_refusal(target: Format) -> str:
    weight, value = target.weight, target.activation
    if value is None:
        if weight.number == "float" and weight.granularity == "block" and weight.scale == "fp32":
            return "squares of e4m3 have kernels only with inputs in groups of 128"
        return ""
    name = activation_name(value)
    if value.is_wide:
        return f"{name}: a scheme narrows the input or leaves it as it is"
    if weight.scale in ("e8m0", "e4m3") or value.scale in ("e8m0", "e4m3"):
        if value.scale == "e8m0":
            return f"{name}: the library chooses the scale of an input block by another rule than that of OCP MX"
        return "" if weight.scale == value.scale else f"inputs of {name} go with weights of the same block format only"
    if value.number == "float":
        return _float_input_refusal(weight, value)
    if value.bits != 8:
        return f"{name}: the servers have integer inputs of 8 bits"
    if value.granularity not in ("tensor", "token"):
        return f"{name}: inputs have one scale per tensor or token"
    if weight.number != "int" or weight.granularity != "channel":
        return "integer inputs go with integer weights that have one scale per channel"
    if weight.container_bits not in (4, 8):
        return "integer inputs go with weights of 4 or 8 bits"
    if weight.container_bits == 4 and not (value.dynamic and value.symmetric):
        return "4-bit weights go with symmetric integer inputs that have one scale per token"
    return ""


def _float_input_refusal(weight: TensorFormat, value: TensorFormat) -> str:
    if weight.number != "float" or (value.exponent_bits, value.mantissa_bits) != (4, 3):
        return f"{activation_name(value)}: inputs are e4m3, with weights of e4m3"
    square = weight.granularity == "block"
    if value.granularity == "group" and not (square and value.group == weight.group == _BLOCK):
        return "inputs in groups of 128 go with weights in squares of 128"
    if square and value.granularity != "group":
        return "weights in squares of 128 go with inputs in groups of 128"
    return (
        f"{activation_name(value)}: inputs have one scale per tensor, token or group"
        if value.granularity == "channel"
        else ""
    )


def _arguments(target: TensorFormat) -> dict[str, Any]:
    """``QuantizationArgs``."""
    found: dict[str, Any] = {
        "actorder": None,
        "block_structure": [target.group, target.group] if target.granularity == "block" else None,
        "dynamic": target.dynamic,
        "group_size": target.group if target.granularity == "group" else None,
        "num_bits": target.container_bits,
        "observer": None,
        "observer_kwargs": {},
        "strategy": target.granularity,
        "symmetric": target.symmetric,
        "type": target.number,
    }
    if target.scale == "e4m3":
        found |= {"strategy": "tensor_group", "scale_dtype": "torch.float8_e4m3fn"}
    elif target.scale == "e8m0":
        found |= {"scale_dtype": "torch.uint8"}
    return found


def _input_arguments(target: TensorFormat) -> dict[str, Any]:
    """``QuantizationArgs`` of an input: of nvfp4 the scales of blocks are dynamic, that of the tensor is not."""
    found = _arguments(target)
    return {**found, "dynamic": "local"} if target.scale == "e4m3" else found


def decodes_in_half(target: TensorFormat) -> bool:
    """Whether the library decodes a weight in bfloat16, whatever the type of the model: nvfp4."""
    return target.scale == "e4m3"


def library_weight(target: TensorFormat, weight: Tensor) -> Tensor:
    """What the library makes of a fake-quantized weight."""
    return weight.to(torch.bfloat16).to(weight.dtype) if decodes_in_half(target) else weight
