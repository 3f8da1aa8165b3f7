"""Weights as tensors of torchao: which of its tensor classes computes a format, with the codes and scales measured.

=======================  =============================================  ================================================
class                    weight                                         input
=======================  =============================================  ================================================
``Int8Tensor``           symmetric integers, one scale per channel or   as it is; 8-bit integers: static (``a8``,
                         tensor                                         ``a8s``) or per token (``a8d``, ``a8dz``)
``IntxUnpackedToInt8``   other integers; convolutions and embeddings    as it is; 8-bit integers per token (``a8dz``)
``Float8Tensor``         e4m3, one scale per channel or tensor          as it is; e4m3 per token (``ae4m3d``)
``MXTensor``             mxfp8, mxfp4                                   the same format
``NVFP4Tensor``          nvfp4                                          as it is
=======================  =============================================  ================================================

torchao keeps every integer in a byte; on disk codes are packed into as many bits as ``size_mb`` counts, and the loader
unpacks them. ``Stored`` says how.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..evaluators.quantizers import ActivationQuantizer, Layout, QuantizedWeight, Quantizer
from ..formats import Format, TensorFormat
from ..space import Site
from .compressed_packing import pack_bytes
from .compressed_shards import Shape

_PER_TOKEN = "int8_asym_per_token"


@dataclass(frozen=True)
class Packed:
    """An integer tensor in fewer bits than a byte.

    Attributes:
        bits: of one code: 2, 4 or 8.
        offset: what is added to a code to make it unsigned.
        shape: of the tensor.
    """

    bits: int
    offset: int
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Room that it takes."""
        return math.ceil(math.prod(self.shape) * self.bits / 8)

    def pack(self, codes: Tensor) -> Tensor:
        """uint8 [bytes], the first code in the lowest bits."""
        unsigned = (codes.cpu().to(torch.int16) + self.offset).to(torch.uint8)
        return pack_bytes(unsigned.reshape(1, -1), self.bits).reshape(-1)


@dataclass(frozen=True)
class Stored:
    """One weight in the file.

    Attributes:
        kind: name of the class of torchao.
        shapes: name of its data (``qdata``, ``scale``, …) -> type and shape in the file.
        packed: data that is packed.
        attributes: what the class is made with besides.
        zeros: data that is all zero and not stored -> its shape (int8).
        kernel: whether torchao computes with the narrow weight; the loader decodes others once, where torchao would
            decode them in every pass.
    """

    kind: str
    shapes: dict[str, Shape]
    packed: dict[str, Packed]
    attributes: dict[str, Any]
    zeros: dict[str, tuple[int, ...]]
    kernel: bool

    @property
    def common(self) -> dict[str, Any]:
        """What the loader must know and many weights share, in plain JSON types."""
        return {
            "attributes": {name: value for name, value in self.attributes.items() if name != "block_size"},
            "data": sorted(self.shapes),
            "kernel": self.kernel,
            "kind": self.kind,
        }

    @property
    def own(self) -> dict[str, Any]:
        """What it must know of this weight besides, likewise."""
        return {
            "block_size": self.attributes["block_size"],
            "packed": {name: [each.bits, each.offset, list(each.shape)] for name, each in self.packed.items()},
            "zeros": {name: list(shape) for name, shape in self.zeros.items()},
        }


def refusal(target: Format, site: Site | None = None) -> str:
    """Why torchao has no tensor for a format at a site, or none with its scales; empty if it has one."""
    if target.is_wide:
        return ""
    found = _weight_refusal(target.weight) or _input_refusal(target)
    return found or ("" if site is None else _site_refusal(target, site))


def stored(target: Format, site: Site, quantizer: Quantizer | None) -> Stored:
    """How the weight of a site lies in the file.

    Args:
        target: a narrow format without ``refusal``.
        site: where.
        quantizer: what rounds its input, or ``None``.
    """
    layout = Layout(site.weight_shape, site.channel_axis, target.weight)
    if target.weight.number == "float":
        return _float(target, layout, site)
    plain = target.weight.symmetric and target.weight.granularity in ("channel", "tensor") and site.kind == "linear"
    return _int8(target, layout, quantizer, len(site.input_shape)) if plain else _intx(target, layout, site)


def data(how: Stored, weight: QuantizedWeight, quantizer: Quantizer | None) -> Mapping[str, Tensor]:
    """The tensors of ``how.shapes``.

    Args:
        how: from ``stored``.
        weight: codes and scales.
        quantizer: what rounds the input.
    """
    found = {"qdata": weight.codes.cpu(), "scale": weight.scale.cpu()}
    if weight.scales.zero_point is not None:
        half = 1 << (weight.target.container_bits - 1)  # torchao has signed codes
        found["qdata"] = found["qdata"].to(torch.int16) - half
        found["zero_point"] = weight.scales.zero_point.cpu().to(torch.int16) - half
    if weight.scales.tensor_scale is not None:
        found["per_tensor_scale"] = weight.scales.tensor_scale.cpu()
    if isinstance(quantizer, ActivationQuantizer):
        found["act_quant_scale"] = torch.tensor([quantizer.scale])
        found["act_quant_zero_point"] = torch.tensor([quantizer.zero_point - 128])
    made = {}
    for name, (kind, shape) in how.shapes.items():
        if name in how.packed:
            made[name] = how.packed[name].pack(found[name])
        elif name == "qdata" and kind == torch.uint8:
            made[name] = pack_bytes(found[name], 4)
        else:
            value = found[name]
            made[name] = (value.view(kind) if value.dtype == torch.uint8 else value.to(kind)).reshape(shape)
    return made


def _weight_refusal(weight: TensorFormat) -> str:
    if weight.number == "codebook":
        return "the nf4 of torchao rounds its scales to 8 bits, which are other values than those measured"
    if weight.number == "int":
        return ""
    if (weight.scale, weight.bits) in (("e8m0", 8), ("e8m0", 4), ("e4m3", 4)):
        return ""
    if (weight.exponent_bits, weight.mantissa_bits) != (4, 3) or weight.scale != "fp32":
        return "of the floats below 16 bits torchao has e4m3, mxfp8, mxfp4 and nvfp4"
    return "" if weight.granularity in ("channel", "tensor") else "e4m3 weights have one scale per channel or tensor"


def _input_refusal(target: Format) -> str:
    weight, value = target.weight, target.activation
    if weight.scale == "e8m0":
        same = value is not None and (value.scale, value.bits) == (weight.scale, weight.bits)
        return "" if same else "the mx tensors of torchao round the input to the same format"
    if value is None:
        return ""
    if value.is_wide or weight.scale == "e4m3":
        return "torchao rounds inputs to 8 bits, or not at all" if value.is_wide else "nvfp4 inputs need a GPU kernel"
    if weight.number == "float":
        per_token = value.number == "float" and value.granularity == "token"
        e4m3 = (value.exponent_bits, value.mantissa_bits) == (4, 3)
        return "" if per_token and e4m3 and weight.granularity == "channel" else _FLOAT_INPUT
    if value.number != "int" or value.bits != 8 or value.granularity not in ("tensor", "token"):
        return "integer weights go with inputs of 8-bit integers with one scale per tensor or token"
    plain = weight.symmetric and weight.granularity in ("channel", "tensor")
    asymmetric = value.dynamic and not value.symmetric
    return "" if plain or asymmetric else "these weights go with asymmetric 8-bit inputs per token (a8dz)"


_FLOAT_INPUT = "e4m3 weights with one scale per channel go with e4m3 inputs that have one scale per token"


def _site_refusal(target: Format, site: Site) -> str:
    weight, value = target.weight, target.activation
    if site.kind not in ("linear", "conv2d", "embedding"):
        return f"torchao has no narrow {site.kind}"
    if site.kind != "linear" and (value is not None or weight.scale in ("e8m0", "e4m3")):
        return f"torchao narrows the weight of a {site.kind} alone, to integers or e4m3"
    if site.kind == "conv2d" and weight.number == "float":
        return "torchao has integer weights for convolutions"
    if value is not None and not value.dynamic and len(site.modules) > 1:
        return "its weight is shared by several layers, and torchao keeps the scale of the input with the weight"
    if weight.granularity == "block":
        rows, columns = site.weight_shape[0], math.prod(site.weight_shape[1:])
        if rows % weight.group or columns % weight.group:
            return f"squares of {weight.group} must divide the matrix [{rows}, {columns}]"
    return ""


def _int8(target: Format, layout: Layout, quantizer: Quantizer | None, rank: int) -> Stored:
    rows, columns = layout.matrix_shape
    whole = target.weight.granularity == "tensor"
    bits = target.weight.container_bits
    packed = {"qdata": Packed(bits, 1 << (bits - 1), (rows, columns))}
    shapes: dict[str, Shape] = {
        "qdata": (torch.uint8, (packed["qdata"].bytes,)),
        "scale": (torch.float32, (1, 1) if whole else (rows, 1)),
    }
    attributes: dict[str, Any] = {
        "block_size": [rows if whole else 1, columns],
        "dtype": {"_type": "torch.dtype", "_data": "float32"},
    }
    value = target.activation
    if value is not None:
        spread = "PerRow" if value.dynamic else "PerTensor"
        mapping = {"_type": "MappingType", "_data": "SYMMETRIC" if value.symmetric else "ASYMMETRIC"}
        granularity = {"_type": spread, "_data": {"dim": -1} if value.dynamic else {}}
        arguments = {"granularity": granularity, "mapping_type": mapping, "reduce_range": False}
        attributes["act_quant_kwargs"] = {"_type": "QuantizeTensorToInt8Kwargs", "_data": arguments}
    if isinstance(quantizer, ActivationQuantizer):
        single = (1,) * rank  # torchao wants as many dimensions as the input has
        shapes["act_quant_scale"] = (torch.float32, single)
        if not quantizer.symmetric:
            shapes["act_quant_zero_point"] = (torch.int8, single)
    return Stored("Int8Tensor", shapes, packed, attributes, {}, True)


def _intx(target: Format, layout: Layout, site: Site) -> Stored:
    weight, shape = target.weight, site.weight_shape
    bits, size = weight.container_bits, weight.group
    block = {
        "tensor": list(shape),
        "channel": [1, *shape[1:]],
        "group": [1, size],
        "block": [size, size],
    }[weight.granularity]
    grid = tuple(length // step for length, step in zip(shape, block, strict=True))
    packed = {"qdata": Packed(bits, 1 << (bits - 1), tuple(shape))}
    scale = torch.float16 if weight.scale == "fp16" else torch.float32
    shapes: dict[str, Shape] = {"qdata": (torch.uint8, (packed["qdata"].bytes,)), "scale": (scale, grid)}
    zeros = {}
    if weight.symmetric:
        zeros["zero_point"] = grid
    else:
        packed["zero_point"] = Packed(max(4, bits), 1 << (bits - 1), grid)
        shapes["zero_point"] = (torch.uint8, (packed["zero_point"].bytes,))
    attributes = {
        "activation_quantization": _PER_TOKEN if target.activation is not None else None,
        "block_size": block,
        "dtype": {"_type": "torch.dtype", "_data": "float32"},
        "target_dtype": {"_type": "torch.dtype", "_data": f"int{bits}"},
    }
    return Stored("IntxUnpackedToInt8Tensor", shapes, packed, attributes, zeros, site.kind == "linear")


def _float(target: Format, layout: Layout, site: Site) -> Stored:
    weight, (rows, columns) = target.weight, layout.matrix_shape
    float32 = {"_type": "torch.dtype", "_data": "float32"}
    if weight.scale == "fp32":
        whole = weight.granularity == "tensor"
        shapes: dict[str, Shape] = {
            "qdata": (torch.float8_e4m3fn, (rows, columns)),
            "scale": (torch.float32, (1, 1) if whole else (rows, 1)),
        }
        attributes: dict[str, Any] = {"block_size": [rows if whole else 1, columns], "dtype": float32}
        if target.activation is not None:
            attributes |= _FLOAT8
        return Stored("Float8Tensor", shapes, {}, attributes, {}, site.kind == "linear")
    half = weight.bits == 4
    data_type = (torch.uint8, (rows, columns // 2)) if half else (torch.float8_e4m3fn, (rows, columns))
    if weight.scale == "e4m3":
        shapes = {
            "qdata": data_type,
            "scale": (torch.float8_e4m3fn, layout.scale_shape),
            "per_tensor_scale": (torch.float32, ()),
        }
        attributes = {"block_size": 16, "orig_dtype": float32, "act_quant_kwargs": None}
        return Stored("NVFP4Tensor", shapes, {}, attributes, {}, True)
    element = {"_type": "torch.dtype", "_data": "float4_e2m1fn_x2" if half else "float8_e4m3fn"}
    emulated = {"_type": "KernelPreference", "_data": "EMULATED"}
    arguments = {"elem_dtype": element, "block_size": 32, "kernel_preference": emulated, "is_swizzled_scales": False}
    attributes = {
        "act_quant_kwargs": {"_type": "QuantizeTensorToMXKwargs", "_data": arguments},
        "block_size": 32,
        "elem_dtype": element,
        "is_swizzled_scales": False,
        "kernel_preference": emulated,
        "orig_dtype": float32,
    }
    shapes = {"qdata": data_type, "scale": (torch.float8_e8m0fnu, layout.scale_shape)}
    return Stored("MXTensor", shapes, {}, attributes, {}, True)


_MM = {"_type": "Float8MMConfig", "_data": {"emulate": False, "use_fast_accum": False, "pad_inner_dim": False}}
_TORCH = {"_type": "KernelPreference", "_data": "TORCH"}
_FLOAT8 = {
    "act_quant_kwargs": {
        "_type": "QuantizeTensorToFloat8Kwargs",
        "_data": {
            "float8_dtype": {"_type": "torch.dtype", "_data": "float8_e4m3fn"},
            "granularity": {"_type": "PerRow", "_data": {"dim": -1}},
            "mm_config": _MM,
            "kernel_preference": _TORCH,
        },
    },
    "kernel_preference": _TORCH,
    "mm_config": _MM,
}
