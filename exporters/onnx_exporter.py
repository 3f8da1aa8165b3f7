"""ONNX for onnxruntime: really quantized weights, and integer kernels where the runtime has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UnsupportedModel
from ..formats import Format, weight_name
from ..space import SearchSpace, Site, Tie
from . import onnx_nbits, onnx_rounding, onnx_storage
from .onnx_activations import InputRounding
from .onnx_check import check_biases, check_rounding, check_weights, parameter_names
from .onnx_graph import marked_graph
from .onnx_kernels import INTEGER_OPERATORS, Product, products, site_node_name, write_products
from .onnx_storage import E8M0_OPSET, INT4_OPSET, needed_opset
from .onnx_trace import DOMAIN
from .onnx_weights import DeferredWeight, StoredWeight, deferred, store_half
from .protocol import Capability, ExportRequest, Layout, Runtime, Violation
from .report import Artifact

if TYPE_CHECKING:
    import onnx_ir as ir

#: Files with more initializers than this (bytes) keep them in ``NAME.data`` beside the graph: protobuf ends at 2 GB.
EXTERNAL_BYTES = 1_000_000_000
_WEIGHTS = ("folded", "packed")


class OnnxExporter:
    """One ``.onnx`` file: narrow codes and their scales, rounded inputs as QDQ pairs.

    =====================  =======================================================================================
    weight                 in the file (``onnx_storage``)
    =====================  =======================================================================================
    ``w2`` … ``w8``        INT2 (operator set 25), INT4 or INT8 codes, ``Cast(codes) * scale``; ``z``: unsigned
    ``t``, ``g``, ``b``    the same with one scale per tensor, group (FLOAT16) or square
    ``we4m3``, ``we5m2``   FLOAT8 codes, ``Cast(codes) * scale``
    other minifloats, nf4  UINT4 or UINT8 codes, ``Gather(table, codes) * scale``
    ``wmxfp8``, ``wmxfp4``  likewise with FLOAT8E8M0 scales (operator set 24), ``wnvfp4`` with FLOAT8E4M3FN scales
    ``bf16``, ``fp16``     BFLOAT16 or FLOAT16; the input is cast to it and back
    ``w4g32a8g32``, …      UINT8, packed for ``MatMulNBits`` on int8 inputs (``onnx_nbits``)
    =====================  =======================================================================================

    Inputs are rounded before the product (``onnx_rounding``): static ones by ``QuantizeLinear, DequantizeLinear``, with
    ``DequantizeLinear`` on the weight where an integer kernel takes it; per token by plain operators.
    """

    name = "onnx"
    layout: Layout = "file"
    packages = ("onnx", "onnxscript", "onnxruntime")
    extra = "onnx"
    libraries = ("onnxruntime", "TensorRT")
    options: frozenset[str] = frozenset({"weights", "external_bytes"})

    def capability(self, format: Format, site: Site | None = None) -> Capability:
        """Which formats can be stored; the reason says how, or what is missing."""
        weight, activation = format.weight, format.activation
        if format.is_wide:
            return Capability(True, f"stored in {weight.bits} bits")
        if missing := onnx_storage.refusal(weight):
            return Capability(False, missing)
        if onnx_nbits.multiplies_integers(format):
            return Capability(True, f"MatMulNBits on {weight.container_bits}-bit codes and int8 inputs")
        if activation is not None and (missing := onnx_rounding.refusal(activation)):
            return Capability(False, f"{missing}; {weight_name(weight)} leaves them alone")
        return Capability(True, f"codes stored in {weight.container_bits} bits")

    def fused(self, space: SearchSpace) -> list[Tie]:
        """None: every product is a node of its own."""
        return []

    def validate(self, request: ExportRequest) -> list[Violation]:
        """Types of the weights, the operator set, the options."""
        found = request.narrow_weights()
        opset = self._opset(request)
        if opset < INT4_OPSET:
            found.append(Violation((), f"opset={opset}", f"has no 4-bit integers; give at least {INT4_OPSET}"))
        for name in sorted(set(request.configuration.values())):
            if opset < E8M0_OPSET and Format.parse(name).weight.scale == "e8m0":
                reason = f"has no powers of two as scales for {name}; give at least {E8M0_OPSET}"
                found.append(Violation((), f"opset={opset}", reason))
        weights, limit = request.options.get("weights", "folded"), request.options.get("external_bytes", 0)
        if weights not in _WEIGHTS:
            found.append(Violation((), f"weights={weights!r}", f"choose one of {', '.join(_WEIGHTS)}"))
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
            found.append(Violation((), f"external_bytes={limit!r}", "give a number of bytes, 0 or more"))
        return found

    def export(self, request: ExportRequest, folder: Path) -> Artifact:
        """Trace the float model, exchange the weights, round the inputs, write the file.

        Raises:
            UnsupportedModel: ``torch.onnx.export`` refuses the model, or drops a weight or a corrected bias of a site.
        """
        import onnx_ir.passes.common as passes

        opset = self._opset(request)
        traced, rounding = marked_graph(request, opset)
        graph = traced.model.graph
        for site in request.space.sites:
            self._store(graph, request, site.name, rounding, opset)
        rounding.apply()
        passes.RemoveUnusedNodesPass()(traced.model)
        passes.RemoveUnusedOpsetsPass()(traced.model)
        size = sum(tensor.nbytes for tensor in _tensors(traced.model))
        files = _save(traced.model, folder, request)
        return Artifact(files, traced.float_bytes, opset, tensor_bytes=size)

    def check(self, request: ExportRequest, folder: Path) -> None:
        """Compare weights, corrected biases and rounding in the file with those of the fake-quantized model.

        Raises:
            ExportMismatch: names the first that differs.
        """
        path = folder / request.name
        check_weights(request, path)
        check_biases(request, path)
        check_rounding(request, path)

    def runtime(self, request: ExportRequest, folder: Path, scratch: Path) -> Runtime:
        """The CPU provider of onnxruntime."""
        settings = {"domain": DOMAIN, "integer_operators": sorted(INTEGER_OPERATORS)}
        return Runtime(Path(__file__).with_name("onnx_loader.py"), settings)

    def default_bound(self, request: ExportRequest, noise: float) -> float:
        """Weight-only: 1e-4. Where inputs are rounded: three times the model's own noise, within [5e-3, 0.5].

        Measured with onnxruntime 1.31: weight-only configurations agree to 2e-6 (1e-4 leaves room for other CPUs);
        where inputs are rounded the error was 0.4 to 1.5 times the noise, and in a small network one code that falls
        to the other side is an error of 1e-3. Unrelated outputs of equal size have an error of 1.4: beyond 0.5 the
        check would prove nothing.
        """
        return min(max(5e-3, 3 * noise), 0.5) if request.rounded_modules else 1e-4

    def _store(
        self, graph: ir.Graph, request: ExportRequest, site_name: str, rounding: InputRounding, opset: int
    ) -> None:
        site = next(site for site in request.space.sites if site.name == site_name)
        names = [name for name in parameter_names(request, site.parameter) if name in graph.initializers]
        if not names:
            raise UnsupportedModel(
                f"site {site.name}: torch.onnx.export did not keep its weight {site.parameter}; exclude the site"
            )
        initializer = graph.initializers[names[0]]
        found = list(products(initializer))
        for number, product in enumerate(found):
            product.node.name = site_node_name(site.name, number)
        format = request.format_of(site)
        target = format.weight
        if target.is_wide:
            if target.bits == 16:
                store_half(graph, initializer, lambda: request.quantized.weight(site, target), target)
            return
        weight = deferred(request, site, target)
        level = _nbits_level(request, format, weight, initializer, found)
        if level is not None:
            graph.opset_imports[onnx_nbits.DOMAIN] = 1
            rounding.leave_to(site.name)
            onnx_nbits.write_nbits(graph, initializer, found, weight, level)
            return
        if onnx_nbits.multiplies_integers(format):
            raise UnsupportedModel(
                f"site {site.name}: its weight is used outside of matrix products, so {format} has no kernel; take "
                f"{weight_name(target)}"
            )
        stored = StoredWeight(graph, initializer, weight, opset)
        write_products(graph, found, stored, rounding)
        stored.replace_float()

    @staticmethod
    def _opset(request: ExportRequest) -> int:
        if request.opset is not None:
            return request.opset
        return max(
            (needed_opset(Format.parse(name).weight) for name in request.configuration.values()), default=INT4_OPSET
        )


def _nbits_level(
    request: ExportRequest, format: Format, weight: DeferredWeight, initializer: ir.Value, found: list[Product]
) -> int | None:
    """The ``accuracy_level`` of MatMulNBits for a site, or ``None`` where it is not to be used."""
    readers = {node for node, _ in initializer.uses()}
    behind = {reader for node in readers if node.op_type == "Transpose" for reader, _ in node.outputs[0].uses()}
    products_only = bool(found) and {product.node for product in found} == behind | {
        node for node in readers if node.op_type != "Transpose"
    }
    matrices = all(product.node.op_type in ("MatMul", "Gemm") for product in found)
    if not (products_only and matrices) or initializer.is_graph_output():
        return None
    if onnx_nbits.multiplies_integers(format):
        return onnx_nbits.INT8
    packed = request.options.get("weights") == "packed" and onnx_nbits.stays_packed(format, weight.layout)
    return onnx_nbits.FLOAT32 if packed else None


def _tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    """The initializers of a graph."""
    return [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]


def _save(model: ir.Model, folder: Path, request: ExportRequest) -> tuple[str, ...]:
    """Write the file, tensor after tensor; large initializers into ``NAME.data`` beside it. The names of the files."""
    import onnx_ir as ir

    limit = int(request.options.get("external_bytes", EXTERNAL_BYTES))
    if sum(tensor.nbytes for tensor in _tensors(model)) <= limit:
        ir.save(model, folder / request.name)
        return (request.name,)
    data = f"{request.name}.data"
    ir.save(model, folder / request.name, external_data=data)
    return (request.name, data)
