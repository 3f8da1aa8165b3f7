"""Kernel: what a site in a format runs as on the CPU; the key of a measurement.

Many formats share a kernel. An exported weight is ``Cast(codes) * scale``, which onnxruntime folds to a float32 weight
while it loads the model, so all weight-only formats (``w2`` to ``w8``, groups, minifloats, nf4) and ``fp32`` run the
very same code: narrow weights make a smaller file, not a faster kernel. ``w2a8`` to ``w8a8`` all run the int8 kernel,
because narrower codes are folded to int8; symmetric inputs (``a8s``) are exported in the same uint8 codes. Asymmetric
weights, groups and minifloats have no integer kernel: beside 8-bit inputs they run the float kernel on rounded input.
Sites of equal shapes and attributes share a kernel too, and a kernel is timed once.

onnxruntime has no integer kernel for transposed convolutions, and takes the one for convolutions only where the output
is rounded as well; otherwise a pointwise convolution runs as an integer product over the pixels, and any other as the
float kernel on the rounded input (``unfused``).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from ..errors import NotMeasured
from ..formats import Format, weight_name
from ..space import WEIGHT_ONLY_KINDS, Site

#: Raise when a kernel is built differently: rows that were measured before are then not reused.
RECIPE = 4


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of the CPU runtime.

    Attributes:
        op: ONNX operator of the float graph: Conv, ConvTranspose, Gemm (2-d input), MatMul (more dimensions), Gather.
        weight_format: what the kernel reads: fp32 or int8.
        activation_format: what enters the operator: fp32, bf16 or fp16 (rounded to it, computed in float32), uint8
            (rounded to it), or int64 (indices).
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
    def converts(self) -> bool:
        """Whether layout or type may be converted before and after, depending on the neighbours."""
        return self.op.startswith("Conv") and self.activation_format not in ("bf16", "fp16")

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
    weight, activation = _computed(Format.parse(format_name), site.kind)
    shape = batched(site.input_shape, site.samples, batch)
    attributes = dict(site.attributes)
    bias = bool(attributes.get("bias"))
    if site.kind == "embedding":
        return Kernel("Gather", weight, "int64", shape, site.weight_shape, site.channel_axis)
    if site.kind.startswith("conv"):
        transposed = site.kind.startswith("conv_transpose")
        axes = _convolution(attributes, site.weight_shape[2:], transposed)
        op = "ConvTranspose" if transposed else "Conv"
        weight = "fp32" if transposed else weight
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


def computes_in(format_name: str) -> str:
    """What activations a format computes on: ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"uint8"``."""
    return _computed(Format.parse(format_name), kind="")[1]


def unfused(kernel: Kernel) -> Kernel | None:
    """What runs in place of an integer convolution whose output is not rounded; ``None`` for other kernels."""
    if kernel.op != "Conv" or kernel.weight_format != "int8":
        return None
    if not is_pointwise(kernel):
        return replace(kernel, weight_format="fp32")
    batch, channels, *pixels = kernel.input_shape
    return replace(
        kernel,
        op="MatMul",
        input_shape=(batch, *pixels, channels),
        weight_shape=kernel.weight_shape[:2],
        attributes=(),
    )


def is_pointwise(kernel: Kernel) -> bool:
    """Whether a convolution multiplies each pixel with one matrix."""
    attributes = dict(kernel.attributes)
    return (
        kernel.op == "Conv"
        and attributes["group"] == (1,)
        and set(attributes["kernel_shape"]) == set(attributes["strides"]) == {1}
        and set(attributes["pads"]) == {0}
    )


def batched(shape: tuple[int, ...], samples: int, batch: int) -> tuple[int, ...]:
    """A recorded shape at another batch: the first dimension scaled by batch / samples.

    A first dimension that is no multiple of the recorded batch does not hold the batch (positions, for example) and
    stays as it is.
    """
    if not shape or samples < 1 or shape[0] % samples:
        return shape
    return (shape[0] // samples * batch, *shape[1:])


def _computed(format_: Format, kind: str) -> tuple[str, str]:
    """What weight the kernel reads, and what activation enters it."""
    weight, activation = format_.weight, format_.activation
    if weight.number == "float" and weight.bits == 6:
        raise NotMeasured(
            f"format {format_.name}: onnxruntime has no container for 6-bit elements; "
            "offer 4 or 8 bits instead, such as wmxfp4, wmxfp8, w4 or w8"
        )
    if format_.is_wide:
        return "fp32", "fp32" if weight.bits == 32 or kind in WEIGHT_ONLY_KINDS else format_.name
    if activation is None:
        return "fp32", "fp32"
    if (weight.number, weight.granularity, activation.granularity, activation.group) == (
        "int", "group", "group", weight.group,
    ):  # fmt: skip
        alone = weight_name(weight)
        raise NotMeasured(
            f"format {format_.name}: runs as MatMulNBits on int8 groups, which the tables here do not time; search by "
            f"size and export with against_float for its real latency, or offer {alone}a8 or {alone}"
        )
    if (activation.number, activation.bits, activation.granularity) != ("int", 8, "tensor"):
        alone = weight_name(weight)
        with_input = f"{alone}a8 or " if alone.startswith("w") else ""
        raise NotMeasured(
            f"format {format_.name}: onnxruntime's integer kernels on the CPU take 8-bit activations with one static "
            f"scale only; offer {with_input}{alone} instead"
        )
    integer = weight.number == "int" and weight.symmetric and weight.granularity in ("tensor", "channel")
    return ("int8" if integer else "fp32"), "uint8"


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
