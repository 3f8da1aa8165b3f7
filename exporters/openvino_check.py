"""The check of an OpenVINO model before it runs: its stored weights, decoded, equal the fake-quantized ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ExportMismatch
from ..evaluators.quantizers import Layout, codebook
from .bit_packing import unpacked
from .onnx_check import parameter_names
from .openvino_ir import Constant, constants
from .openvino_weights import TWO_BIT_ZERO, bits_of, code_type
from .protocol import ExportRequest

_NUMPY = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "f8e8m0": "float8_e8m0fnu", "f8e4m3": "float8_e4m3fn"}
_MINIFLOATS = {"f8e4m3", "f8e5m2", "f4e2m1", "nf4"}


def check_weights(request: ExportRequest, folder: Path) -> None:
    """Compare the weights in the files with the fake-quantized ones, bit for bit.

    Raises:
        ExportMismatch: names the first site that differs.
    """
    stored = constants(folder)
    for site in request.space.sites:
        target = request.format_of(site).weight
        names = [name for name in parameter_names(request, site.parameter) if name in stored]
        if not names:
            raise ExportMismatch(f"site {site.name}: its weight {site.parameter} is not in the file")
        wanted = request.quantized.weight(site, target).float().cpu().numpy()
        try:
            given = decoded(stored, names[0], Layout(site.weight_shape, site.channel_axis, target))
        except KeyError as missing:
            raise ExportMismatch(f"site {site.name}: {missing} is not in the file") from None
        if given.shape != wanted.shape or not np.array_equal(given, wanted):
            raise ExportMismatch(f"site {site.name}: the weight in the file differs from the fake-quantized one")


def decoded(stored: dict[str, Constant], name: str, layout: Layout) -> NDArray[np.float32]:
    """The float32 weight that the constants of a file stand for.

    Args:
        stored: constants by name.
        name: of the parameter.
        layout: which elements share a scale.

    Raises:
        KeyError: a constant is missing; it carries the name.
    """
    target, codes = layout.target, stored[name]
    if target.is_wide:
        return _floats(codes).reshape(layout.shape)
    matrix = _elements(codes, layout)
    if not target.symmetric:
        zero = stored[f"{name}.zero_point"]
        count = int(np.prod(zero.shape))
        points = unpacked(zero.data, bits_of(zero.element_type), count, signed=False).astype(np.float32)
        matrix = matrix - layout.expand(torch.from_numpy(points))
    factor = torch.from_numpy(_floats(stored[f"{name}.scale"]))
    if target.scale == "e4m3":
        factor = factor * float(_floats(stored[f"{name}.tensor_scale"])[0])
    found: NDArray[np.float32] = layout.tensor(matrix * layout.expand(factor)).contiguous().numpy()
    return found


def _elements(codes: Constant, layout: Layout) -> torch.Tensor:
    """The elements as a matrix [channels, elements], before zero-points and scales."""
    target = layout.target
    kind = codes.element_type
    if kind != code_type(target):
        raise ExportMismatch(f"codes are stored as {kind}, not {code_type(target)}")
    count = int(np.prod(codes.shape))
    bits = bits_of(kind)
    raw = unpacked(codes.data, bits, count, signed=kind.startswith("i"))
    if kind in _MINIFLOATS:
        elements = codebook(target).numpy()[raw]
    else:
        elements = raw.astype(np.float32) - (TWO_BIT_ZERO if kind == "u2" and target.symmetric else 0)
    flat = torch.from_numpy(np.ascontiguousarray(elements, dtype=np.float32))
    if target.granularity in ("group", "block"):
        return flat.reshape(layout.matrix_shape)
    return layout.matrix(flat.reshape(layout.shape))


def _floats(constant: Constant) -> NDArray[np.float32]:
    """The values of a floating-point constant, flat."""
    import ml_dtypes

    name = _NUMPY[constant.element_type]
    dtype: Any = getattr(ml_dtypes, name) if hasattr(ml_dtypes, name) else np.dtype(name)
    return np.frombuffer(constant.data.tobytes(), dtype=dtype).astype(np.float32)
