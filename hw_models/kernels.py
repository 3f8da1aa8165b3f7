"""Kernel: what a site in a format runs as on the CPU; the key of a measurement.

Several formats share a kernel: 5-, 6-, 7- and 8-bit weights all lie in int8 and run the same code, so they share one
measurement. Sites of equal shapes and attributes share it too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ..errors import NotMeasured
from ..formats import Format
from ..space import Site

#: Raise when a kernel is built differently: rows that were measured before are then not reused.
RECIPE = 1

_STORAGE = {2: "int2", 4: "int4", 8: "int8"}


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of the CPU runtime.

    Attributes:
        op: ONNX operator: Conv, ConvTranspose, Gemm (2-d input), MatMul (more dimensions), Gather.
        weight_format: how the weight is stored: fp32, bf16, int8, int4, int2.
        activation_format: what enters the operator: fp32, bf16, uint8, or int64 (indices).
        input_shape: with the asked batch.
        weight_shape: as torch lays the weight out.
        channel_axis: axis of the output channels in ``weight_shape``.
        attributes: ONNX attributes of the operator, sorted: (name, ints).
        bias: whether a bias is added.
    """

    op: str
    weight_format: str
    activation_format: str
    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    channel_axis: int
    attributes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    bias: bool = False

    @property
    def channels(self) -> int:
        """Length of a bias: output channels (of a grouped transposed convolution: of all groups)."""
        groups = dict(self.attributes).get("group", (1,))[0] if self.op == "ConvTranspose" else 1
        return self.weight_shape[self.channel_axis] * groups

    @property
    def shape(self) -> str:
        """``input;weight``, such as ``1x32x112x112;16x32x1x1``."""
        return ";".join("x".join(map(str, dims)) for dims in (self.input_shape, self.weight_shape))

    @property
    def parameters(self) -> str:
        """Attributes, channel axis and bias as a JSON object."""
        return json.dumps({**dict(self.attributes), "channel_axis": self.channel_axis, "bias": self.bias})

    def digest(self, device: str, hardware: str, runtime: str, version: str, threads: int) -> str:
        """Content hash of the kernel and of where it runs (sha256, 16 hex digits)."""
        where = (RECIPE, device, hardware, runtime, version, threads)
        what = (self.op, self.weight_format, self.activation_format, self.shape, self.parameters)
        return hashlib.sha256(json.dumps([where, what]).encode()).hexdigest()[:16]


def site_kernel(site: Site, format_name: str, batch: int = 1) -> Kernel:
    """The kernel that a site runs in a format.

    Args:
        site: a site of a traced model.
        format_name: a format that the site offers.
        batch: samples per forward pass; the first dimension of the recorded input is scaled to it.

    Returns:
        The kernel of one call.

    Raises:
        NotMeasured: the CPU runtime has no kernel for the format.
    """
    weight, activation = _storage(Format.parse(format_name))
    shape = batched(site.input_shape, site.samples, batch)
    attributes = dict(site.attributes)
    bias = bool(attributes.get("bias"))
    if site.kind == "embedding":
        return Kernel("Gather", weight, "int64", shape, site.weight_shape, site.channel_axis)
    if site.kind.startswith("conv"):
        transposed = site.kind.startswith("conv_transpose")
        axes = _convolution(attributes, site.weight_shape[2:], transposed)
        op = "ConvTranspose" if transposed else "Conv"
        return Kernel(op, weight, activation, shape, site.weight_shape, site.channel_axis, axes, bias)
    if site.kind.startswith("mha"):
        bias = True  # both projections of nn.MultiheadAttention carry one unless bias=False, which costs one addition
    features = site.weight_shape[1 - site.channel_axis]
    shape = (*shape[:-1], features)
    flat = site.kind in ("mha_out_proj", "hf_conv1d")  # exported as Gemm over all tokens
    if flat or len(shape) == 2:
        tokens = 1
        for size in shape[:-1]:
            tokens *= size
        return Kernel("Gemm", weight, activation, (tokens, features), site.weight_shape, site.channel_axis, (), bias)
    return Kernel("MatMul", weight, activation, shape, site.weight_shape, site.channel_axis, (), bias)


def batched(shape: tuple[int, ...], samples: int, batch: int) -> tuple[int, ...]:
    """A recorded shape at another batch: the first dimension scaled by batch / samples.

    A first dimension that is no multiple of the recorded batch does not hold the batch (positions, for example) and
    stays as it is.
    """
    if not shape or samples < 1 or shape[0] % samples:
        return shape
    return (shape[0] // samples * batch, *shape[1:])


def _storage(format_: Format) -> tuple[str, str]:
    """How a format stores its weight, and what activation enters the kernel."""
    if format_.is_float:
        name = {32: "fp32", 16: "bf16"}[format_.weight_bits]
        return name, name
    weight = _STORAGE[format_.weight.container_bits]
    if format_.activation_bits is None:
        return weight, "fp32"
    if format_.activation_bits != 8:
        raise NotMeasured(
            f"format {format_.name}: onnxruntime's integer kernels on the CPU take 8-bit activations only; "
            f"offer w{format_.weight_bits}a8 or w{format_.weight_bits} instead"
        )
    return weight, "uint8"


def _convolution(
    attributes: dict[str, Any], window: tuple[int, ...], transposed: bool
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """ONNX attributes of a torch convolution."""
    dims = len(window)

    def ints(key: str, default: int) -> tuple[int, ...]:
        value = attributes.get(key, default)
        return (value,) * dims if isinstance(value, int) else tuple(value)

    dilation = ints("dilation", 1)
    padding = attributes.get("padding", 0)
    if padding == "valid":
        before = after = (0,) * dims
    elif padding == "same":
        extra = tuple(step * (size - 1) for step, size in zip(dilation, window, strict=True))
        before = tuple(size // 2 for size in extra)
        after = tuple(size - size // 2 for size in extra)
    else:
        before = after = ints("padding", 0)
    found = {
        "dilations": dilation,
        "group": (int(attributes.get("groups", 1)),),
        "kernel_shape": window,
        "pads": before + after,
        "strides": ints("stride", 1),
    }
    if transposed:
        found["output_padding"] = ints("output_padding", 0)
    return tuple(sorted(found.items()))
