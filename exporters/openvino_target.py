"""OpenVINO: the traced ONNX graph with packed weights, as an intermediate representation that its runtimes load."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UnsupportedModel
from ..evaluators.quantizers import ActivationQuantizer
from ..formats import Format, weight_name
from ..space import SearchSpace, Site, Tie
from . import onnx_rounding, openvino_weights
from .onnx_check import parameter_names
from .onnx_graph import rounded_graph
from .onnx_kernels import site_node_name
from .onnx_storage import INT4_OPSET
from .onnx_trace import DOMAIN
from .openvino_check import check_weights
from .openvino_ir import BIN, XML, compact
from .protocol import Capability, ExportRequest, Layout, Runtime, Violation
from .report import Artifact

if TYPE_CHECKING:
    import openvino as ov

    from ..evaluators.quantizers import QuantizedWeight

_PRODUCTS = frozenset({"MatMul", "Convolution", "GroupConvolution", "ConvolutionBackpropData"})
_PRODUCTS_OF_GROUPS = frozenset({"GroupConvolutionBackpropData"})
#: What turns a stored weight into the operand of a product.
_PASSING = frozenset({"Convert", "Subtract", "Multiply", "Reshape", "Transpose", "Unsqueeze"})


class OpenVinoTarget:
    """A folder with ``openvino_model.xml`` and ``openvino_model.bin``.

    Weights are packed constants (``openvino_weights``); inputs that a format rounds are rounded as in the ONNX target,
    which OpenVINO turns into ``FakeQuantize`` and, where it has one, an int8 kernel. Conversions of an input to a
    narrow float and back it removes, so an input is rounded to integers or not at all: ``fp16`` stores weights in 16
    bits, and computes in float32 (within 1e-3 of what was measured, which the check back shows). The file tells the
    runtime not to round the inputs of packed products on its own (``DYNAMIC_QUANTIZATION_GROUP_SIZE`` 0).
    """

    name = "openvino"
    layout: Layout = "folder"
    packages = ("openvino", "onnx", "onnxscript")
    extra = "openvino"
    libraries = ("OpenVINO",)
    options: frozenset[str] = frozenset()

    def capability(self, format: Format, site: Site | None = None) -> Capability:
        """Which formats can be stored; the reason says how, or what is missing."""
        weight, activation = format.weight, format.activation
        if format.name == "bf16":
            return Capability(False, "OpenVINO removes conversions to bfloat16 and back; take fp16 or fp32")
        if format.is_wide:
            return Capability(True, f"stored in {weight.bits} bits, computed in float32")
        shape, axis = (site.weight_shape, site.channel_axis) if site is not None else (None, 0)
        if missing := openvino_weights.refusal(weight, shape, axis):
            return Capability(False, missing)
        if activation is not None and activation.number == "float":
            reason = "OpenVINO removes conversions to 8-bit floats and back; inputs are rounded to integers (a8, a8d)"
            return Capability(False, f"{reason}; {weight_name(weight)} leaves them alone")
        if activation is not None and (missing := onnx_rounding.refusal(activation)):
            return Capability(False, f"{missing}; {weight_name(weight)} leaves them alone")
        return Capability(True, f"codes stored as {openvino_weights.code_type(weight)}")

    def fused(self, space: SearchSpace) -> list[Tie]:
        """None: every product is a node of its own."""
        return []

    def validate(self, request: ExportRequest) -> list[Violation]:
        """Types of the weights; the operator set is OpenVINO's own."""
        found = request.narrow_weights()
        if request.opset is not None:
            found.append(Violation((), f"opset={request.opset}", "OpenVINO chooses its operator set; leave opset out"))
        return found

    def export(self, request: ExportRequest, folder: Path) -> Artifact:
        """Trace, round the inputs, let OpenVINO read the graph, exchange the weights, write the files.

        Raises:
            UnsupportedModel: ``torch.onnx.export`` or OpenVINO refuses the model, or drops a weight of a site.
        """
        import onnx_ir as ir
        import openvino as ov

        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / "float.onnx"
            ir.save(rounded_graph(request, INT4_OPSET).model, source, external_data="float.onnx.data")
            try:
                model = ov.Core().read_model(source)
            except RuntimeError as cause:
                lines = [line for line in str(cause).splitlines() if line.strip()]
                raise UnsupportedModel(f"openvino does not read the traced model: {lines[-1].strip()}") from cause
            float_bytes = sum(node.get_byte_size() for node in _constants(model).values())
            kept = self._store(request, model)
            model.set_rt_info("0", ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
            ov.save_model(model, folder / XML, compress_to_fp16=False)
        compact(folder / XML, kept)
        notes = (
            "on CPUs with bfloat16 units OpenVINO computes float layers in bfloat16; compile with "
            "EXECUTION_MODE_HINT=ACCURACY for what was measured",
        )
        sizes = [(folder / name).stat().st_size for name in (XML, BIN)]
        return Artifact((XML, BIN), float_bytes + sizes[0], 0, notes, tensor_bytes=sizes[1])

    def check(self, request: ExportRequest, folder: Path) -> None:
        """Compare the weights in the file with those of the fake-quantized model, bit for bit.

        Raises:
            ExportMismatch: names the first that differs.
        """
        check_weights(request, folder)

    def runtime(self, request: ExportRequest, folder: Path, scratch: Path) -> Runtime:
        """The CPU plugin, in float32 where nothing is rounded."""
        weights = {
            f"{name}{end}": site.name
            for site in request.space.sites
            for name in parameter_names(request, site.parameter)
            for end in ("", ".int8")
        }
        settings = {"xml": XML, "domain": DOMAIN, "weights": weights}
        return Runtime(Path(__file__).with_name("openvino_loader.py"), settings)

    def default_bound(self, request: ExportRequest, noise: float) -> float:
        """Weight-only: 1e-4. Where inputs are rounded: three times the model's own noise, within [5e-3, 0.5]."""
        return min(max(5e-3, 3 * noise), 0.5) if request.rounded_modules else 1e-4

    def _store(self, request: ExportRequest, model: ov.Model) -> set[str]:
        """Exchange the weights of all sites; names of the nodes that carry a meaning."""
        found, kept = _constants(model), set()
        integer = _integer_sites(request)
        done: dict[str, ov.Node] = {}
        for site in request.space.sites:
            names = [name for name in parameter_names(request, site.parameter) if name in found]
            if not names:
                raise UnsupportedModel(
                    f"site {site.name}: OpenVINO did not keep its weight {site.parameter}; exclude the site"
                )
            constant = found[names[0]]
            readers = tuple(constant.output(0).get_target_inputs())
            for number, node in enumerate(_products(constant)):
                node.set_friendly_name(site_node_name(site.name, number))
                kept.add(node.get_friendly_name())
            kept.add(names[0])
            target = request.format_of(site).weight
            if target.is_wide and target.bits == 32:
                continue
            if names[0] not in done:
                done[names[0]] = self._node(request, site, names[0], site.name in integer)
                for port in readers:
                    port.replace_source_output(done[names[0]].output(0))
            kept |= {f"{names[0]}{end}" for end in (".int8", ".scale", ".zero_point", ".tensor_scale")}
        return kept

    @staticmethod
    def _node(request: ExportRequest, site: Site, name: str, integer: bool) -> ov.Node:
        target = request.format_of(site).weight
        if target.is_wide:
            return openvino_weights.half(name, request.quantized.weight(site, target), target.exponent_bits == 8)
        weight: QuantizedWeight = request.quantized.calibration.quantize(
            site, request.model.get_parameter(site.parameter), target
        )
        return openvino_weights.decompression(name, weight, integer)


def _constants(model: ov.Model) -> dict[str, ov.Node]:
    """The constants of a graph by name."""
    return {node.get_friendly_name(): node for node in model.get_ops() if node.get_type_name() == "Constant"}


def _products(constant: ov.Node) -> list[ov.Node]:
    """The products that read a constant as their weight, past operators that only change its shape."""
    found = []
    for port in constant.output(0).get_target_inputs():
        node = port.get_node()
        kind = node.get_type_name()
        if kind in _PRODUCTS | _PRODUCTS_OF_GROUPS and port.get_index() == 1:
            found.append(node)
        elif kind in _PASSING and port.get_index() == 0:
            found += _products(node)
    return found


def _integer_sites(request: ExportRequest) -> set[str]:
    """Sites whose input is rounded to integers with one static scale."""
    found = set()
    for module, site in request.rounded_modules.items():
        activation = Format.parse(request.configuration[site]).activation
        assert activation is not None
        if isinstance(request.quantized.calibration.activation(module, activation), ActivationQuantizer):
            found.add(site)
    return found
