"""The page that lies in a bundle: what the files are, what was chosen, what it was found to cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .protocol import ExportRequest

_READING = """## How to read it

```python
import json
from safetensors.numpy import load_file

formats = json.load(open("configuration.json"))          # {site: format}
sites = json.load(open("sites.json"))["sites"]           # layer kind, parameter, shape, the format spelled out
weights = load_file("model.safetensors")                 # the float model
scales = load_file("quantization.safetensors")           # "scale|w4|SITE", "zero|w4z|SITE", "range|a8|MODULE", …
evidence = json.load(open("evidence.json"))["evidence"]
```

A weight with one symmetric integer scale per output channel is `clip(round(weight / scale), -2**(bits-1), \
2**(bits-1) - 1) * scale`, the scale along `channel_axis`; codes that a reconstruction chose lie under
`codes|…` instead. `range|…` holds the two ends that a static input is clipped to, `bias|…` what bias correction adds.
"""


def readme(
    request: ExportRequest, sites: Sequence[Mapping[str, Any]], evidence: Mapping[str, Any] | None, refused: str
) -> str:
    """The text of ``README.md``.

    Args:
        request: what is exported.
        sites: as in sites.json.
        evidence: what was predicted and measured; ``None`` if nothing was handed in.
        refused: why there is no program; empty if there is one.
    """
    counts = Counter(site["format"] for site in sites)
    program = f"missing: {refused}" if refused else "the float model as a program: `torch.export.load`"
    lines = [
        f"# {type(request.model).__name__} in {len(counts)} formats",
        "",
        f"A mixed-precision configuration ({request.configuration.digest}) of {len(sites)} layers, with the float "
        "model that it belongs to. Nothing here is converted: take it to a runtime of your own.",
        "",
        "| file | content |",
        "|---|---|",
        "| `configuration.json` | the format of every layer |",
        "| `sites.json` | every layer: kind, parameter, shape, the format in words |",
        "| `model.safetensors` | parameters and buffers of the float model |",
        "| `quantization.safetensors` | scales, zero-points, input ranges of this configuration |",
        f"| `model.pt2` | {program} |",
        "| `evidence.json` | what was predicted and measured |",
        "| `bitfront.json` | certificate: sha256 of the files, versions, machine |",
        "",
        _READING,
        "## The configuration",
        "",
        "| layers | format | weight | input |",
        "|---|---|---|---|",
        *(_row(name, count, sites) for name, count in sorted(counts.items())),
        "",
        "## What it was found to cost",
        "",
        *_evidence(evidence),
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, count: int, sites: Sequence[Mapping[str, Any]]) -> str:
    site = next(each for each in sites if each["format"] == name)
    return f"| {count} | `{name}` | {_words(site['weight'])} | {_words(site['activation'])} |"


def _words(tensor: Mapping[str, Any] | None) -> str:
    if tensor is None:
        return "as it is"
    kind = {"int": "integers", "float": "floats", "codebook": "codebook"}[tensor["number"]]
    group = f" of {tensor['group']}" if tensor["group"] else ""
    if tensor["number"] == "float" and tensor["bits"] >= 16:
        return f"floats of {tensor['bits']} bits"
    how = "symmetric" if tensor["symmetric"] else "with zero-point"
    dynamic = ", dynamic" if tensor["dynamic"] else ""
    return f"{kind} of {tensor['bits']} bits, one scale per {tensor['granularity']}{group}, {how}{dynamic}"


def _evidence(evidence: Mapping[str, Any] | None) -> list[str]:
    if evidence is None:
        return ["No evidence was handed in when this folder was written."]
    rows = [f"| {name} | {value} |" for name, value in _flat(evidence)]
    return ["| | |", "|---|---|", *rows]


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Leaves of nested mappings as (dotted name, text)."""
    found = []
    for name, value in content.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        elif value is not None:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            found.append((f"{prefix}{name}", text.replace("|", "\\|").replace("\n", " ")))
    return found
