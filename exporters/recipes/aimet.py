"""AIMET: encodings of weights, version 1.0.0, with the scales that were measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from ...evaluators.quantizers import Layout
from ...formats import Format
from ...space import Site
from ..protocol import ExportRequest
from .recipe import Recipe

_TYPES = {"tensor": "PER_TENSOR", "channel": "PER_CHANNEL", "group": "PER_BLOCK"}


class AimetRecipe(Recipe):
    r"""``{"version": "1.0.0", "param_encodings": [{name, bw, is_sym, scale, offset, …}], "activation_encodings": []}``.

    Names are those of parameters, which an ONNX export keeps. AIMET writes a value as :math:`s (q + o)` with codes
    q from 0 and the offset o: :math:`-2^{b-1}` for symmetric integers, minus the zero-point otherwise. Formats that
    round inputs are refused: inputs have the names of a graph that is not there yet, and AIMET calibrates them itself.
    """

    name = "aimet"
    kinds = frozenset({"linear", "conv1d", "conv2d", "conv3d"})
    usage = (
        "load_encodings_to_sim(sim, FILE, strict=False) of AIMET takes the file; export the float model to ONNX first"
    )

    def refusal(self, format: Format) -> str:
        """What is no integer weight, and formats that round inputs."""
        if format.is_wide:
            return ""
        if format.quantizes_activations:
            return "AIMET names inputs by the tensors of an ONNX graph and calibrates them itself"
        if format.weight.number != "int":
            return "encodings of AIMET are integers"
        return "AIMET has no squares of weights" if format.weight.granularity == "block" else ""

    def settings(self, request: ExportRequest) -> dict[str, Any]:
        """Parameter -> encoding."""
        return {
            site.parameter: _encoding(request, site, request.format_of(site))
            for site in request.space.sites
            if site.kind in self.kinds and not request.format_of(site).is_wide
        }

    def text(self, request: ExportRequest, settings: Mapping[str, Any]) -> str:
        """JSON."""
        encodings = [{"name": name, **settings[name]} for name in sorted(settings)]
        content = {"version": "1.0.0", "activation_encodings": [], "param_encodings": encodings}
        return json.dumps(content, indent=1) + "\n"

    def parsed(self, text: str) -> dict[str, Any]:
        """Parameter -> encoding."""
        content = json.loads(text)
        return {
            each["name"]: {key: value for key, value in each.items() if key != "name"}
            for each in content["param_encodings"]
        }


def _encoding(request: ExportRequest, site: Site, format: Format) -> dict[str, Any]:
    weight = format.weight
    found = request.quantized.calibration.scales(site, weight)
    layout = Layout(site.weight_shape, site.channel_axis, weight)
    scales = found.factor.double().reshape(layout.scale_shape).reshape(-1)
    low = weight.levels[0]
    if found.zero_point is None:
        offsets = torch.full_like(scales, float(low))
    else:
        offsets = -found.zero_point.double().reshape(-1)
    encoding: dict[str, Any] = {
        "enc_type": _TYPES[weight.granularity],
        "dtype": "INT",
        "bw": weight.bits,
        "is_sym": weight.symmetric,
        "scale": [float(each) for each in scales],
        "offset": [int(each) for each in offsets],
    }
    if weight.granularity == "group":
        encoding["block_size"] = weight.group
    return encoding
