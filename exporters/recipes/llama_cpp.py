"""llama.cpp: a ``--tensor-type`` list for ``llama-quantize``, with the tensor names of gguf."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...formats import Format
from ..protocol import ExportRequest, Violation
from .recipe import Recipe

#: Formats that say what a type of ggml says: blocks of 32 weights of a row, one float16 scale (q4_1, q5_1: and a
#: minimum) for each.
TYPES = {
    "w4g32": "q4_0",
    "w4g32z": "q4_1",
    "w5g32": "q5_0",
    "w5g32z": "q5_1",
    "w8g32": "q8_0",
    "wmxfp4": "mxfp4",
    "bf16": "bf16",
    "fp16": "f16",
    "fp32": "f32",
}


class LlamaCppRecipe(Recipe):
    r"""One line a tensor, ``^blk\.0\.attn_q\.weight$=q4_0``, for ``llama-quantize --tensor-type-file FILE``.

    The left side is a regular expression that is searched in the names of the gguf file, so it is anchored and its
    points are escaped. Names come from the ``gguf`` package for the architecture of the model (its ``config``).

    Options: ``architecture`` (as gguf calls it) and ``blocks``, for a model without a ``config`` of transformers.
    """

    name = "llama-cpp"
    packages = ("gguf",)
    extra = "llama-cpp"
    options = frozenset({"architecture", "blocks"})
    kinds = frozenset({"linear", "embedding"})
    usage = "llama-quantize --tensor-type-file FILE takes it; its last argument is the type of all other tensors"

    def refusal(self, format: Format) -> str:
        """All but the types of ggml that have an equal among the formats."""
        if format.name in TYPES:
            return ""
        return f"no type of ggml says it; those that have an equal are {', '.join(sorted(TYPES))}"

    def validate(self, request: ExportRequest) -> list[Violation]:
        """The architecture is one that gguf knows, and every site has a name there."""
        architecture, blocks = _architecture(request)
        known = _architectures()
        if architecture not in known or blocks < 1:
            given = f"architecture {architecture!r} with {blocks} blocks"
            reason = "gguf has no names for it; give options={'architecture': ..., 'blocks': ...} such as 'llama', 32"
            return [Violation((), given, reason)]
        names = _names(request)
        lost = tuple(
            site.name
            for site in request.space.sites
            if site.kind in self.kinds and not any(names.get(module) for module in site.modules)
        )
        if lost:
            return [Violation(lost, "", f"gguf has no tensor of this name in architecture {architecture!r}")]
        return []

    def settings(self, request: ExportRequest) -> dict[str, Any]:
        """Tensor of gguf -> type, of the sites that the configuration names."""
        names = _names(request)
        return {
            str(names[module]): TYPES[str(format)]
            for module, site, format in self._layers(request)
            if site.name in request.configuration and names.get(module)
        }

    def text(self, request: ExportRequest, settings: Mapping[str, Any]) -> str:
        """One line a tensor."""
        return "".join(f"^{re.escape(name)}$={kind}\n" for name, kind in settings.items())

    def parsed(self, text: str) -> dict[str, Any]:
        """Tensor of gguf -> type."""
        lines = [line.rpartition("=") for line in text.splitlines()]
        return {re.sub(r"\\(.)", r"\1", pattern)[1:-1]: kind for pattern, _, kind in lines}


def _architecture(request: ExportRequest) -> tuple[str, int]:
    """What gguf calls the architecture, and how many blocks the model has."""
    config = getattr(request.model, "config", None)
    blocks = next((found for key in ("num_hidden_layers", "n_layer") if (found := getattr(config, key, None))), 0)
    name = str(getattr(config, "model_type", ""))
    return str(request.options.get("architecture", name)), int(request.options.get("blocks", blocks))


def _architectures() -> dict[str, Any]:
    import gguf

    return {name: architecture for architecture, name in gguf.MODEL_ARCH_NAMES.items()}


def _names(request: ExportRequest) -> dict[str, str | None]:
    """Module -> name of its weight in gguf, ``None`` where it has none."""
    import gguf

    architecture, blocks = _architecture(request)
    table = gguf.get_tensor_name_map(_architectures()[architecture], blocks)
    modules = [module for site in request.space.sites for module in site.modules]
    return {module: table.get_name(f"{module}.weight", try_suffixes=(".weight",)) for module in modules}
