"""ONNX for onnxruntime: really quantized weights, and integer kernels where the runtime has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import UnsupportedModel
from ..formats import Format, weight_name
from ..space import SearchSpace, Site, Tie
from . import onnx_rounding, onnx_storage
from .onnx_activations import InputRounding
from .onnx_check import check_biases, check_rounding, check_weights, corrected_biases, parameter_names
from .onnx_kernels import INTEGER_OPERATORS, products, site_node_name, write_products
from .onnx_simplify import simplify
from .onnx_storage import E8M0_OPSET, INT4_OPSET, needed_opset
from .onnx_trace import DOMAIN, trace
from .onnx_weights import StoredWeight, store_bias, store_half
from .protocol import Capability, ExportRequest, Layout, Runtime, Violation
from .report import Artifact

if TYPE_CHECKING:
    import onnx_ir as ir

_PROTOBUF_BYTES = 2**31


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
    =====================  =======================================================================================

    Inputs are rounded before the product (``onnx_rounding``): static ones by ``QuantizeLinear, DequantizeLinear``, with
    ``DequantizeLinear`` on the weight where an integer kernel takes it; per token by plain operators.
    """

    name = "onnx"
    layout: Layout = "file"
    packages = ("onnx", "onnxscript", "onnxruntime")
    extra = "onnx"
    libraries = ("onnxruntime", "TensorRT")
    options: frozenset[str] = frozenset()

    def capability(self, format: Format, site: Site | None = None) -> Capability:
        """Which formats can be stored; the reason says how, or what is missing."""
        weight, activation = format.weight, format.activation
        if format.is_wide:
            return Capability(True, f"stored in {weight.bits} bits")
        if missing := onnx_storage.refusal(weight):
            return Capability(False, missing)
        if activation is not None and (missing := onnx_rounding.refusal(activation)):
            return Capability(False, f"{missing}; {weight_name(weight)} leaves them alone")
        return Capability(True, f"codes stored in {weight.container_bits} bits")

    def fused(self, space: SearchSpace) -> list[Tie]:
        """None: every product is a node of its own."""
        return []

    def validate(self, request: ExportRequest) -> list[Violation]:
        """Types of the weights, the operator set, and what one file can hold."""
        found = []
        for site in request.space.sites:
            dtype = request.model.get_parameter(site.parameter).dtype
            if dtype != torch.float32:
                found.append(Violation((site.name,), str(dtype), "the weight must be float32; export model.float()"))
        opset = self._opset(request)
        if opset < INT4_OPSET:
            found.append(Violation((), f"opset={opset}", f"has no 4-bit integers; give at least {INT4_OPSET}"))
        for name in sorted(set(request.configuration.values())):
            if opset < E8M0_OPSET and Format.parse(name).weight.scale == "e8m0":
                reason = f"has no powers of two as scales for {name}; give at least {E8M0_OPSET}"
                found.append(Violation((), f"opset={opset}", reason))
        size = sum(parameter.numel() * parameter.element_size() for parameter in request.model.parameters())
        if size >= _PROTOBUF_BYTES:
            found.append(Violation((), f"a model of {size / 1e9:.1f} GB", "one ONNX file holds less than 2 GB"))
        return found

    def export(self, request: ExportRequest, folder: Path) -> Artifact:
        """Trace the float model, exchange the weights, round the inputs, write the file.

        Raises:
            UnsupportedModel: ``torch.onnx.export`` refuses the model, or drops a weight or a corrected bias of a site.
        """
        import onnx_ir as ir
        import onnx_ir.passes.common as passes

        opset = self._opset(request)
        traced = trace(request, opset)
        graph = traced.model.graph
        simplify(traced.model)
        rounding = InputRounding(graph, request)
        rounding.drop_implied_bounds()
        for name, bias in corrected_biases(request).items():
            store_bias(graph, name, bias)
        for site in request.space.sites:
            self._store(graph, request, site.name, rounding, opset)
        rounding.apply()
        passes.RemoveUnusedNodesPass()(traced.model)
        passes.RemoveUnusedOpsetsPass()(traced.model)
        ir.save(traced.model, folder / request.name)
        return Artifact((request.name,), traced.float_bytes, opset)

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
        target = Format.parse(request.configuration.to_dict().get(site.name, "fp32")).weight
        if target.is_wide:
            if target.bits == 16:
                store_half(graph, initializer, request.quantized.weight(site, target), target)
            return
        codes = request.quantized.calibration.quantize(site, request.model.get_parameter(site.parameter), target)
        weight = StoredWeight(graph, initializer, codes, opset)
        write_products(graph, found, weight, rounding)
        weight.replace_float()

    @staticmethod
    def _opset(request: ExportRequest) -> int:
        if request.opset is not None:
            return request.opset
        return max(
            (needed_opset(Format.parse(name).weight) for name in request.configuration.values()), default=INT4_OPSET
        )
