"""The targets by name. Packages add their own through the entry point group ``bitfront.exporters``."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from ..errors import InvalidInput
from .protocol import Target

GROUP = "bitfront.exporters"

_BUILT_IN = {
    "aimet": EntryPoint("aimet", f"{__package__}.recipes:AimetRecipe", GROUP),
    "auto-round": EntryPoint("auto-round", f"{__package__}.recipes:AutoRoundRecipe", GROUP),
    "llama-cpp": EntryPoint("llama-cpp", f"{__package__}.recipes:LlamaCppRecipe", GROUP),
    "llm-compressor": EntryPoint("llm-compressor", f"{__package__}.recipes:LlmCompressorRecipe", GROUP),
    "modelopt": EntryPoint("modelopt", f"{__package__}.recipes:ModelOptRecipe", GROUP),
    "bundle": EntryPoint("bundle", f"{__package__}.bundle:BundleTarget", GROUP),
    "compressed-tensors": EntryPoint(
        "compressed-tensors", f"{__package__}.compressed_target:CompressedTensorsTarget", GROUP
    ),
    "executorch": EntryPoint("executorch", f"{__package__}.executorch_target:ExecutorchTarget", GROUP),
    "onnx": EntryPoint("onnx", f"{__package__}.onnx_exporter:OnnxExporter", GROUP),
    "openvino": EntryPoint("openvino", f"{__package__}.openvino_target:OpenVinoTarget", GROUP),
    "torchao": EntryPoint("torchao", f"{__package__}.torchao_target:TorchaoTarget", GROUP),
}


def names() -> list[str]:
    """The names of all exporters, built-in and installed, in alphabetical order."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def get(name: str) -> Target:
    """A new target.

    Args:
        name: one of ``names()``; a built-in name cannot be taken over by an installed package.

    Raises:
        InvalidInput: no exporter has this name (the nearest are named), or its entry point does not load.
    """
    points = {point.name: point for point in entry_points(group=GROUP)} | _BUILT_IN
    if name not in points:
        near = difflib.get_close_matches(str(name), points, n=3, cutoff=0.0)
        raise InvalidInput(f"unknown export target {name!r}; nearest: {', '.join(near)}")
    return _load(points[name])()


def _load(point: EntryPoint) -> Callable[[], Target]:
    module, _, attribute = point.value.partition(":")
    try:
        found: Callable[[], Target] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as cause:
        raise InvalidInput(f"the exporter {point.name!r} ({point.value}) does not load: {cause}") from cause
    return found
