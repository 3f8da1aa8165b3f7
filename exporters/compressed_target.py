"""compressed-tensors: a folder in the layout of the Hugging Face hub, one config group per format, packed weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from ..errors import UnsupportedModel
from ..formats import Format
from ..space import SearchSpace, Site, Tie
from .compressed_check import check_weights
from .compressed_difference import rule_distance
from .compressed_layers import layers
from .compressed_model import OUTPUT_LAYERS, Hub, fused_groups, is_tokenwise
from .compressed_schemes import (
    decodes_in_half,
    library_weight,
    quantization_config,
    refusal,
    storage,
)
from .compressed_shards import LIMIT, tensor_bytes, write_shards
from .compressed_wrapper import write_wrapper
from .protocol import Capability, ExportRequest, Layout, Runtime, Violation
from .report import Artifact


class CompressedTensorsTarget:
    """A folder with ``config.json`` and ``model.safetensors`` that ``transformers``, vLLM and SGLang read.

    Integers are packed (``pack-quantized``; ``int-quantized`` where the input is rounded too), e4m3 lies in float8,
    block formats as mxfp and nvfp4 (``compressed_schemes``). Linear layers alone are narrow: the servers keep
    embeddings and the output layer wide, and some read a packed one without an error and answer garbage.

    Three rules of the library differ from what was measured and are bounded (``compressed_difference``): symmetric
    dynamic scales, sites in 16 bits (their inputs stay in the type of the model), and nvfp4, which it decodes in bf16.
    """

    name = "compressed-tensors"
    layout: Layout = "folder"
    packages: tuple[str, ...] = ("compressed_tensors", "transformers", "safetensors")
    extra = "compressed-tensors"
    libraries: tuple[str, ...] = ("vLLM", "vLLM Marlin", "TensorRT-LLM", "CUTLASS")
    options: frozenset[str] = frozenset({"shard_bytes"})

    def capability(self, format: Format, site: Site | None = None) -> Capability:
        """Which formats have a scheme; the reason says how they are stored, or what is missing."""
        missing = refusal(format) or ("" if site is None else _site_refusal(format, site))
        if missing:
            return Capability(False, missing)
        return Capability(True, f"stored in {format.weight.bits} bits" if format.is_wide else storage(format))

    def fused(self, space: SearchSpace) -> list[Tie]:
        """Query, key and value; gate and up: the servers stack them into one matrix."""
        return fused_groups(space)

    def validate(self, request: ExportRequest) -> list[Violation]:
        """The kind of model, its types and its output layer."""
        try:
            hub = Hub.of(request.model)
        except UnsupportedModel as cause:
            return [Violation((), "", str(cause))]
        found = [Violation((), "", reason) for reason in hub.refusals()]
        narrow = {site.name: request.format_of(site) for site in request.space.sites}
        narrow = {name: target for name, target in narrow.items() if not target.is_wide}
        output = [name for name in narrow if hub.name(name) == hub.output_layer]
        found += [Violation((name,), str(narrow[name]), _OUTPUT, "bf16") for name in output]
        limit = request.options.get("shard_bytes", LIMIT)
        if not isinstance(limit, int) or limit <= 0:
            found.append(Violation((), "shard_bytes", f"expected a positive number of bytes, got {limit!r}"))
        return found

    def export(self, request: ExportRequest, folder: Path) -> Artifact:
        """Write the weights layer by layer, then ``config.json``.

        Raises:
            UnsupportedModel: the model is not one of ``transformers``.
        """
        hub = Hub.of(request.model)
        limit = request.options.get("shard_bytes", LIMIT)
        files = write_shards(folder, layers(request, hub), {"format": "pt"}, limit)
        config = hub.config()
        groups = _groups(request, hub)
        if groups:
            quantized = {name for names in groups.values() for name in names}
            ignore = [name for name in hub.linear() if name not in quantized]
            config["quantization_config"] = quantization_config(groups, ignore, version("compressed-tensors"))
        _write_json(folder / "config.json", config)
        written = ["config.json", *files]
        if hub.model.can_generate() and hub.model.generation_config is not None:
            settings = json.loads(hub.model.generation_config.to_json_string(use_diff=True))
            _write_json(folder / "generation_config.json", settings)
            written.append("generation_config.json")
        size = sum(tensor.numel() * tensor.element_size() for tensor in hub.stored().values())
        tensors = tensor_bytes(folder, files)
        return Artifact(tuple(written), size, notes=tuple(_notes(request)), tensor_bytes=tensors)

    def check(self, request: ExportRequest, folder: Path) -> None:
        """Decode every weight with the library and compare it with the fake-quantized one.

        Raises:
            ExportMismatch: names the first site that differs.
        """
        check_weights(request, Hub.of(request.model), folder)

    def runtime(self, request: ExportRequest, folder: Path, scratch: Path) -> Runtime:
        """``transformers`` on the CPU, with compressed-tensors doing what kernels do on a server.

        Raises:
            UnsupportedModel: what the searched model does around its transformers model cannot be written down.
        """
        hub = Hub.of(request.model)
        settings = {
            "architecture": type(hub.model).__name__,
            "arguments": hub.arguments(),
            "prefix": hub.prefix.rstrip("."),
            "wrapper": str(write_wrapper(request.model, hub, scratch)) if hub.prefix else None,
        }
        return Runtime(Path(__file__).with_name("compressed_loader.py"), settings)

    def default_bound(self, request: ExportRequest, noise: float) -> float:
        """1e-4, or twice the distance of the library's rules; with rounded inputs at least 5e-3 and three times noise.

        Without one of those rules the artifact was equal bit for bit in the formats that were tried.
        """
        changed = any(decodes_in_half(request.format_of(site).weight) for site in request.space.sites)
        distance = rule_distance(request, weights=library_weight if changed else None)
        least = max(5e-3, 3 * noise) if request.rounded_modules else 1e-4
        return min(max(least, 2 * distance), 0.5)


_OUTPUT = "the servers keep the output layer wide; older ones read a packed one without an error and answer garbage"


def _site_refusal(target: Format, site: Site) -> str:
    if target.is_wide:
        return ""
    if site.kind != "linear":
        return f"schemes are for linear layers; a layer of kind {site.kind} stays wide"
    if site.name.rpartition(".")[2] in OUTPUT_LAYERS:
        return _OUTPUT
    if len(site.modules) > 1:
        return "its weight is shared with another layer, and the file holds packed weights for one module each"
    value = target.activation
    if value is not None and value.granularity == "token" and not is_tokenwise(site):
        return "compressed-tensors takes one scale per token only of inputs [batch, tokens, features]"
    return ""


def _groups(request: ExportRequest, hub: Hub) -> dict[str, list[str]]:
    """Format name -> modules, of the narrow formats."""
    found: dict[str, list[str]] = {}
    for site in request.space.sites:
        target = request.format_of(site)
        if not target.is_wide:
            found.setdefault(str(target), []).append(hub.name(site.name))
    return found


def _notes(request: ExportRequest) -> Iterator[str]:
    formats = [request.format_of(site) for site in request.space.sites]
    yield "the tokenizer is not part of the model; copy its files into the folder"
    if any(each.weight.scale in ("e8m0", "e4m3") and each.weight.bits < 16 for each in formats):
        yield "transformers decodes mxfp and nvfp4 weights in bfloat16: load with dtype=torch.bfloat16 there"
    if any(each.activation is not None and each.activation.is_wide for each in formats):
        yield "sites in 16 bits compute in the type that the model is loaded in; their inputs are not rounded before"


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
