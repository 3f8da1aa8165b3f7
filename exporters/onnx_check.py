"""The check back: the file that was written computes what the fake-quantized model computes.

Before the outputs are compared (``comparison``), what can be compared exactly is: the stored weights, decoded from the
file, and corrected biases must equal the fake-quantized ones bit for bit, and inputs must be rounded to integers with
the scales of the calibration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ExportMismatch
from ..evaluators.quantizers import ActivationQuantizer, Layout
from ..formats import Format
from . import onnx_nbits
from .onnx_rounding import unsigned
from .onnx_storage import decoded
from .protocol import ExportRequest


def check_weights(request: ExportRequest, path: Path) -> None:
    """Compare the weights in the file with the fake-quantized ones, bit for bit.

    Raises:
        ExportMismatch: names the first site that differs.
    """
    stored = initializers(path)
    for site in request.space.sites:
        target = Format.parse(request.configuration.to_dict().get(site.name, "fp32")).weight
        wanted = request.quantized.weight(site, target).float().cpu().numpy()
        names = [name for name in parameter_names(request, site.parameter) if name in stored]
        if not names:
            raise ExportMismatch(f"site {site.name}: its weight {site.parameter} is not in the file")
        try:
            layout = Layout(site.weight_shape, site.channel_axis, target)
            given = _decoded(stored, names[0], layout)
        except KeyError as missing:
            raise ExportMismatch(f"site {site.name}: {missing} is not in the file") from None
        if not np.array_equal(given, wanted):
            worst = float(np.abs(given - wanted).max())
            raise ExportMismatch(
                f"site {site.name}: the weight in the file differs from the fake-quantized one (by up to {worst:.3g})"
            )


def _decoded(stored: Mapping[str, NDArray[Any]], name: str, layout: Layout) -> NDArray[Any]:
    """The weight that the arrays of a file stand for; packed codes are known by their three axes."""
    if layout.target.is_wide:
        return stored[name].astype(np.float32)
    if len(layout.shape) == 2 and stored[name].ndim == 3:
        return onnx_nbits.decoded(stored, name, layout)
    return decoded(stored, name, layout)


def check_biases(request: ExportRequest, path: Path) -> None:
    """Compare the biases in the file that a correction changes with those of the fake-quantized model, bit for bit.

    Raises:
        ExportMismatch: names the first that differs.
    """
    stored = initializers(path)
    for name, bias in corrected_biases(request).items():
        if name not in stored or not np.array_equal(stored[name], bias.float().cpu().numpy()):
            raise ExportMismatch(f"the bias {name} in the file is not that of the fake-quantized model")


def check_rounding(request: ExportRequest, path: Path) -> None:
    """Compare scales and zero-points of the rounded inputs in the file with those of the calibration.

    Raises:
        ExportMismatch: they are not the same set.
    """
    import onnx_ir as ir

    graph = ir.load(path).graph
    wanted = set()
    for module, site in request.rounded_modules.items():
        activation = Format.parse(request.configuration[site]).activation
        assert activation is not None
        quantizer = unsigned(request.quantized.calibration.activation(module, activation))
        if isinstance(quantizer, ActivationQuantizer):
            wanted.add((quantizer.scale, quantizer.zero_point))
    given = set()
    for node in graph:
        if node.op_type == "QuantizeLinear":
            scale, zero_point = (ir.convenience.get_const_tensor(value) for value in node.inputs[1:3] if value)
            assert scale is not None
            assert zero_point is not None
            given.add((float(scale.numpy()), int(zero_point.numpy())))
    if given != wanted:
        raise ExportMismatch(
            f"the file rounds inputs with {len(given - wanted)} scales that the calibration does not have, and lacks "
            f"{len(wanted - given)} of its own"
        )


def corrected_biases(request: ExportRequest) -> dict[str, Tensor]:
    """Parameter name -> bias, for the biases that the calibration corrects in this configuration."""
    shifted = request.quantized.changes(request.configuration).biases
    return {name: request.quantized.bias(name, shift) for name, shift in shifted.items()}


class Initializers(Mapping[str, NDArray[Any]]):
    """The initializers of a file by name, in its own types, each read when it is asked for.

    Args:
        path: the ONNX file; what lies in other files is mapped and released again.
    """

    def __init__(self, path: Path) -> None:
        import onnx_ir as ir

        self._values = ir.load(path).graph.initializers

    def __getitem__(self, name: str) -> NDArray[Any]:
        import onnx_ir as ir

        tensor = self._values[name].const_value
        assert tensor is not None
        if not isinstance(tensor, ir.ExternalTensor):
            return tensor.numpy()
        array: NDArray[Any] = np.array(tensor.numpy())
        tensor.release()
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def initializers(path: Path) -> Initializers:
    """The initializers of a file."""
    return Initializers(path)


def parameter_names(request: ExportRequest, parameter: str) -> list[str]:
    """All names of a parameter in the model: more than one where it is shared."""
    wanted = request.model.get_parameter(parameter)
    return [name for name, tensor in request.model.named_parameters(remove_duplicate=False) if tensor is wanted]
