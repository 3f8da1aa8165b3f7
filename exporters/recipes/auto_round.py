"""AutoRound: ``layer_config``, the settings of every layer as a JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...formats import Format, TensorFormat
from ..protocol import ExportRequest
from .recipe import Recipe

_BLOCKS = {"e8m0": "mx_fp", "e4m3": "nv_fp"}


class AutoRoundRecipe(Recipe):
    """``{module: {bits, group_size, sym, data_type, act_bits, …}}`` for ``AutoRound(model, layer_config=…)``.

    ``group_size``: -1 one scale per channel (inputs: token), 0 per tensor, else the group. 16 bits: left in float.
    """

    name = "auto-round"
    kinds = frozenset({"linear", "hf_conv1d"})
    usage = "AutoRound(model, layer_config=json.load(open(FILE))) takes the file"

    def refusal(self, format: Format) -> str:
        """Codebooks, squares, scales per feature, and floats that AutoRound has no data type for."""
        if format.is_wide:
            return ""
        for each in (format.weight, format.activation):
            if each is not None and (why := _missing(each)):
                return why
        if format.activation is not None and format.activation.granularity == "channel":
            return "AutoRound has inputs with one scale per tensor, token or group, not per feature"
        return ""

    def settings(self, request: ExportRequest) -> dict[str, Any]:
        """Module -> settings."""
        return {module: _scheme(format) for module, _, format in self._layers(request)}

    def text(self, request: ExportRequest, settings: Mapping[str, Any]) -> str:
        """JSON."""
        return json.dumps(settings, indent=1) + "\n"

    def parsed(self, text: str) -> dict[str, Any]:
        """Module -> settings."""
        found: dict[str, Any] = json.loads(text)
        return found


def _missing(target: TensorFormat) -> str:
    if target.is_wide:
        return "AutoRound narrows an input or leaves it as it is"
    if target.number == "codebook":
        return "AutoRound has integers and floats, no tables of values"
    if target.granularity == "block":
        return "AutoRound has no squares of weights"
    if target.number == "float":
        kind = f"e{target.exponent_bits}m{target.mantissa_bits}"
        if target.scale == "fp32" and (kind != "e4m3" or target.granularity == "group"):
            return f"AutoRound has {kind} with a plain scale neither per group nor as another type than e4m3"
        if target.bits not in (4, 8):
            return f"AutoRound has no {kind}"
    return ""


def _scheme(format: Format) -> dict[str, Any]:
    """``QuantizationScheme``."""
    if format.is_wide:
        return {"bits": 16, "act_bits": 16, "data_type": "float"}
    weight, value = format.weight, format.activation
    found = {
        "bits": weight.bits,
        "group_size": _group(weight),
        "sym": weight.symmetric,
        "data_type": _type(weight),
    }
    if value is None:
        return {**found, "act_bits": 16}
    return {
        **found,
        "act_bits": value.bits,
        "act_group_size": _group(value),
        "act_sym": value.symmetric,
        "act_data_type": _type(value),
        "act_dynamic": value.dynamic or value.scale == "e4m3",
    }


def _type(target: TensorFormat) -> str:
    if target.scale in _BLOCKS:
        return _BLOCKS[target.scale]
    return "int" if target.number == "int" else "fp"


def _group(target: TensorFormat) -> int:
    return {"channel": -1, "token": -1, "tensor": 0}.get(target.granularity, target.group)
