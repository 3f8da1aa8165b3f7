"""llm-compressor: a recipe YAML with one ``QuantizationModifier``, one group for each format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ...formats import Format, TensorFormat
from ..protocol import ExportRequest
from .recipe import Recipe


class LlmCompressorRecipe(Recipe):
    """``default_stage: {default_modifiers: {QuantizationModifier: {config_groups, ignore}}}``.

    ``targets`` are full names of modules, so that no pattern catches a layer by accident. Layers that stay in float
    are in ``ignore``. Its vocabulary is that of compressed-tensors: integers and floats with one scale per tensor,
    channel, group or 128 x 128 square, inputs per tensor, token or group.
    """

    name = "llm-compressor"
    usage = "llmcompressor.oneshot(model=..., recipe=FILE, dataset=...) takes the file"

    def refusal(self, format: Format) -> str:
        """Codebooks, and floats that compressed-tensors has no type for."""
        if format.is_wide:
            return ""
        weight, value = format.weight, format.activation
        if weight.number == "codebook":
            return "compressed-tensors has integers and floats, no tables of values"
        for each in (weight, value):
            if each is not None and not each.is_wide and (why := _missing(each)):
                return why
        if value is not None and value.is_wide:
            return f"{format}: an input is narrowed or left as it is"
        if value is not None and value.granularity == "channel":
            return "inputs have one scale per tensor, token or group, not per feature"
        return ""

    def settings(self, request: ExportRequest) -> dict[str, Any]:
        """Module -> its scheme; ``None`` for those that stay in float."""
        return {module: None if format.is_wide else _scheme(format) for module, _, format in self._layers(request)}

    def text(self, request: ExportRequest, settings: Mapping[str, Any]) -> str:
        """YAML; a group for each format in the order of its name."""
        by_format: dict[str, list[str]] = {}
        for module, _, format in self._layers(request):
            if not format.is_wide:
                by_format.setdefault(str(format), []).append(module)
        groups = {
            f"group_{number}": {"targets": sorted(modules), **_scheme(Format.parse(name))}
            for number, (name, modules) in enumerate(sorted(by_format.items()))
        }
        ignore = sorted(module for module, scheme in settings.items() if scheme is None)
        modifier = {"QuantizationModifier": {"config_groups": groups, "ignore": ignore}}
        return str(yaml.safe_dump({"default_stage": {"default_modifiers": modifier}}, sort_keys=False))

    def parsed(self, text: str) -> dict[str, Any]:
        """Module -> its scheme."""
        content = yaml.safe_load(text)["default_stage"]["default_modifiers"]["QuantizationModifier"]
        found: dict[str, Any] = dict.fromkeys(content["ignore"])
        for group in content["config_groups"].values():
            scheme = {key: value for key, value in group.items() if key != "targets"}
            found |= dict.fromkeys(group["targets"], scheme)
        return found


def _missing(target: TensorFormat) -> str:
    if target.number != "float":
        return ""
    kind = f"e{target.exponent_bits}m{target.mantissa_bits}"
    if target.scale == "fp32" and kind != "e4m3":
        return f"of the floats with a plain scale compressed-tensors has only e4m3, not {kind}"
    return f"compressed-tensors has no {kind}" if target.bits not in (4, 8) else ""


def _scheme(format: Format) -> dict[str, Any]:
    value = format.activation
    return {
        "weights": _arguments(format.weight),
        "input_activations": None if value is None else _input(value),
    }


def _arguments(target: TensorFormat) -> dict[str, Any]:
    """``QuantizationArgs``."""
    found: dict[str, Any] = {
        "num_bits": target.bits,
        "type": target.number,
        "symmetric": target.symmetric,
        "strategy": target.granularity,
        "dynamic": target.dynamic,
    }
    if target.granularity == "group":
        found["group_size"] = target.group
    if target.granularity == "block":
        found["block_structure"] = [target.group, target.group]
    if target.scale == "e4m3":
        found |= {"strategy": "tensor_group", "scale_dtype": "torch.float8_e4m3fn"}
    elif target.scale == "e8m0":
        found["scale_dtype"] = "torch.uint8"
    return found


def _input(target: TensorFormat) -> dict[str, Any]:
    """Of nvfp4 the scales of the blocks are dynamic, that of the tensor is not."""
    found = _arguments(target)
    return {**found, "dynamic": "local"} if target.scale == "e4m3" else found
