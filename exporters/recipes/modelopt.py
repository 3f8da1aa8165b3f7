"""NVIDIA ModelOpt: ``quant_cfg`` for ``mtq.quantize``.

A list of entries, the last that matches wins (modelopt.torch.quantization.config, 0.40 and later): everything is
switched off, then the weight quantizer of every narrow layer gets its bits, and its input quantizer where the format
rounds inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ...formats import Format, TensorFormat
from ..protocol import ExportRequest
from .recipe import Recipe

_FLOATS = {(4, 3), (2, 1), (2, 3), (3, 2)}


class ModelOptRecipe(Recipe):
    """YAML of ``{quant_cfg: [...], algorithm: max}``.

    =====================  ========================================================================================
    format                 in ModelOpt
    =====================  ========================================================================================
    ``w4``, ``w8``         ``num_bits: 4``, ``axis``: the output channels; ``t``: ``axis: null``
    ``w4g128``             ``block_sizes: {-1: 128}``; ``b128``: ``{-1: 128, -2: 128}``
    ``…a8s``               ``num_bits: 8``, ``axis: null`` on the input quantizer; ``…a8d``: one dynamic scale per row
    ``fp8``, ``fp8d``      ``num_bits: [4, 3]``
    ``mxfp8``, ``mxfp4``   dynamic blocks of 32 with ``scale_bits: [8, 0]``; ``nvfp4``: of 16 with ``[4, 3]``
    =====================  ========================================================================================

    ModelOpt has no zero-points, no tables of values, and e5m2 only in blocks.
    """

    name = "modelopt"
    kinds = frozenset({"linear", "conv1d", "conv2d", "conv3d"})
    usage = "mtq.quantize(model, yaml.safe_load(open(FILE)), forward_loop) of NVIDIA ModelOpt takes the file"

    def refusal(self, format: Format) -> str:
        """Zero-points, codebooks and floats that ModelOpt does not have."""
        return next((why for each in (format.weight, format.activation) if each and (why := _missing(each))), "")

    def settings(self, request: ExportRequest) -> dict[str, Any]:
        """Quantizer name -> attributes."""
        found: dict[str, Any] = {}
        for module, site, format in self._layers(request):
            if format.is_wide:
                continue
            found[f"{module}.weight_quantizer"] = _attributes(format.weight, site.channel_axis)
            if format.activation is not None and not format.activation.is_wide:
                found[f"{module}.input_quantizer"] = _attributes(format.activation, -1)
        return found

    def text(self, request: ExportRequest, settings: Mapping[str, Any]) -> str:
        """YAML, because block sizes have integer keys."""
        entries = [{"quantizer_name": name, "cfg": attributes} for name, attributes in settings.items()]
        content = {"quant_cfg": [{"quantizer_name": "*", "enable": False}, *entries], "algorithm": "max"}
        return str(yaml.safe_dump(content, sort_keys=False))

    def parsed(self, text: str) -> dict[str, Any]:
        """Quantizer name -> attributes."""
        entries = yaml.safe_load(text)["quant_cfg"][1:]
        return {entry["quantizer_name"]: entry["cfg"] for entry in entries}


def _missing(target: TensorFormat) -> str:
    if target.is_wide:
        return ""
    if target.number == "codebook":
        return "ModelOpt has integers and floats, no tables of values"
    if not target.symmetric:
        return "ModelOpt has no zero-points"
    if target.number == "float":
        kind = target.exponent_bits, target.mantissa_bits
        if kind not in _FLOATS:
            return f"ModelOpt has no e{kind[0]}m{kind[1]}"
        if target.scale == "fp32" and kind != (4, 3):
            return f"ModelOpt has e{kind[0]}m{kind[1]} in blocks with narrow scales only"
    if target.granularity == "channel" and target.dynamic:
        return "ModelOpt has no dynamic scale per feature"
    return ""


def _attributes(target: TensorFormat, axis: int) -> dict[str, Any]:
    """``QuantizerAttributeConfig``."""
    bits: Any = [target.exponent_bits, target.mantissa_bits] if target.number == "float" else target.bits
    if target.scale in ("e8m0", "e4m3"):
        scale = [8, 0] if target.scale == "e8m0" else [4, 3]
        return {"num_bits": bits, "block_sizes": {-1: target.group, "type": "dynamic", "scale_bits": scale}}
    blocks: dict[Any, Any] = {}
    if target.granularity == "group":
        blocks = {-1: target.group}
    elif target.granularity == "block":
        blocks = {-1: target.group, -2: target.group}
    elif target.granularity == "token":
        blocks = {-1: None}
    if blocks:
        return {"num_bits": bits, "block_sizes": {**blocks, "type": "dynamic"} if target.dynamic else blocks}
    return {"num_bits": bits, "axis": axis if target.granularity == "channel" else None}
