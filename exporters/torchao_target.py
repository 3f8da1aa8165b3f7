"""torchao: a folder with the weights as torchao's tensors, the graph as Python source, and a loader of one page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ExportMismatch
from ..evaluators.quantizers import Quantizer
from ..formats import Format, TensorFormat
from ..space import SearchSpace, Site, Tie
from .compressed_difference import as_runtime, rule_distance
from .compressed_layers import half
from .compressed_shards import LIMIT, Layer, tensor_bytes, write_shards
from .protocol import Capability, ExportRequest, Layout, Runtime, Violation
from .report import Artifact
from .torchao_graph import Graph, trace
from .torchao_tensors import Stored, data, refusal, stored

_LOAD = Path(__file__).with_name("torchao_load.py")


class TorchaoTarget:
    """A folder: ``model.safetensors``, ``model.py``, ``load.py``; it needs torch, torchao and safetensors.

    Codes and scales are those of bitfront, put into torchao's own tensor classes (``torchao_tensors``), so that its
    kernels run on what was measured. ``load()`` gives a module that ``torch.compile`` takes.

    One rule of torchao differs and is bounded (``compressed_difference``): the scale of symmetric dynamic inputs.
    """

    name = "torchao"
    layout: Layout = "folder"
    packages: tuple[str, ...] = ("torchao", "safetensors")
    extra = "torchao"
    libraries: tuple[str, ...] = ()
    options: frozenset[str] = frozenset({"compile", "shard_bytes"})

    def capability(self, format: Format, site: Site | None = None) -> Capability:
        """Which formats torchao has a tensor for; the reason says in how many bits they lie on disk."""
        missing = refusal(format, site)
        return Capability(False, missing) if missing else Capability(True, f"stored in {_bits(format)} bits")

    def fused(self, space: SearchSpace) -> list[Tie]:
        """None: torch runs every layer by itself."""
        return []

    def validate(self, request: ExportRequest) -> list[Violation]:
        """Types of the weights, and the options."""
        found = []
        for site in request.space.sites:
            dtype = request.model.get_parameter(site.parameter).dtype
            if dtype != torch.float32:
                found.append(Violation((site.name,), "", f"its weight is {dtype}; export model.float()"))
        limit = request.options.get("shard_bytes", LIMIT)
        if not isinstance(limit, int) or isinstance(limit, bool) or limit <= 0:
            found.append(Violation((), "shard_bytes", f"expected a positive number of bytes, got {limit!r}"))
        if not isinstance(request.options.get("compile", False), bool):
            found.append(Violation((), "compile", f"expected true or false, got {request.options['compile']!r}"))
        return found

    def export(self, request: ExportRequest, folder: Path) -> Artifact:
        """Trace the float model, write its graph, then the weights layer by layer.

        Raises:
            UnsupportedModel: ``torch.export`` cannot express the model.
        """
        graph = trace(request)
        narrow = _narrow(request)
        classes = sorted({_compact(how.common) for how in narrow.values()})
        metadata = {
            "aliases": _compact(graph.aliases),
            "classes": f"[{','.join(classes)}]",
            "format": "pt",
            "weights": _compact({name: [classes.index(_compact(how.common)), how.own] for name, how in narrow.items()}),
        }
        limit = request.options.get("shard_bytes", LIMIT)
        files = write_shards(folder, _layers(request, graph), metadata, limit)
        (folder / "model.py").write_text(graph.source, encoding="utf-8")
        (folder / "load.py").write_text(_LOAD.read_text(encoding="utf-8"), encoding="utf-8")
        size = sum(tensor.numel() * tensor.element_size() for tensor in graph.tensors.values())
        notes = () if graph.dynamic else ("torch.export fixes the batch size of this model",)
        written = (*files, "model.py", "load.py")
        return Artifact(written, size, notes=notes, tensor_bytes=tensor_bytes(folder, files))

    def check(self, request: ExportRequest, folder: Path) -> None:
        """Load the weights as torchao's tensors and compare what they stand for with the fake-quantized ones.

        Raises:
            ExportMismatch: names the first site that differs.
        """
        from .torchao_load import state_dict

        state = state_dict(folder)
        for site in request.space.sites:
            target = request.format_of(site)
            given, wanted = state[site.parameter], request.quantized.weight(site, target.weight)
            given = given.dequantize() if type(given) is not Tensor else given
            exact = target.weight.scale != "e4m3"
            same = torch.equal(given, wanted) if exact else torch.allclose(given, wanted, rtol=1e-6, atol=0.0)
            if given.shape != wanted.shape or not same:
                raise ExportMismatch(f"site {site.name}: the weight in the file differs from the fake-quantized one")

    def runtime(self, request: ExportRequest, folder: Path, scratch: Path) -> Runtime:
        """``load.py`` of the folder, on the CPU; compiled where the option says so."""
        settings = {"compile": request.options.get("compile", False)}
        return Runtime(Path(__file__).with_name("torchao_loader.py"), settings)

    def default_bound(self, request: ExportRequest, noise: float) -> float:
        """1e-4; with rounded inputs the largest of 5e-3, three times the noise, twice the distance of the rules."""
        if not request.rounded_modules:
            return 1e-4
        distance = rule_distance(request, inputs=_as_torchao)
        return min(max(5e-3, 3 * noise, 2 * distance), 0.5)


def _compact(content: object) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _as_torchao(target: TensorFormat, quantizer: Quantizer) -> Quantizer:
    """What rounds inputs in the artifact; those of sites in 16 bits are rounded in its graph."""
    return quantizer if target.is_wide else as_runtime(target, quantizer)


def _bits(format: Format) -> int:
    return format.weight.bits if format.is_wide else format.weight.container_bits


def _quantizer(request: ExportRequest, site: Site, target: Format) -> Quantizer | None:
    if target.activation is None:
        return None
    return request.quantized.calibration.activation(site.modules[0], target.activation)


def _narrow(request: ExportRequest) -> dict[str, Stored]:
    """Parameter name -> how it lies in the file, for the sites in narrow formats."""
    found = {}
    for site in request.space.sites:
        target = request.format_of(site)
        if not target.is_wide:
            found[site.parameter] = stored(target, site, _quantizer(request, site, target))
    return found


def _layers(request: ExportRequest, graph: Graph) -> Iterator[Layer]:
    biases = request.quantized.changes(request.configuration).biases
    sites = {site.parameter: site for site in request.space.sites}
    narrow = _narrow(request)
    for name, tensor in graph.tensors.items():
        if name in narrow:
            yield _weight_layer(request, sites[name], narrow[name])
        elif name in sites and request.format_of(sites[name]).weight_bits == 16:
            yield half(name, tensor, request.format_of(sites[name]).weight)
        else:
            yield Layer.of({name: request.quantized.bias(name, biases[name]) if name in biases else tensor})


def _weight_layer(request: ExportRequest, site: Site, how: Stored) -> Layer:
    module, _, leaf = site.parameter.rpartition(".")
    prefix = f"{module}._{leaf}_" if module else f"_{leaf}_"
    target, weight = request.format_of(site), request.model.get_parameter(site.parameter)

    def make() -> Mapping[str, Tensor]:
        codes = request.quantized.calibration.quantize(site, weight, target.weight)
        made = data(how, codes, _quantizer(request, site, target))
        return {prefix + part: tensor for part, tensor in made.items()}

    return Layer({prefix + part: shape for part, shape in how.shapes.items()}, make)
