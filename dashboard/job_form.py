"""A job as a form asks for it: fields in, the YAML that is submitted out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

STARTING_FORMATS = ("w2", "w3", "w4", "w5", "w6", "w8")
QUALITIES = ("kl", "accuracy", "loss", "perplexity", "relative_error")


@dataclass(frozen=True)
class Form:
    """What was filled in.

    Attributes:
        name: of the job; empty: the model's.
        model: name of a zoo entry, or the SHA-256 of an uploaded ``.pt2``.
        exported: whether it is an upload.
        data: split -> SHA-256 of an uploaded ``.npz``; empty: the zoo entry's own.
        formats: offered.
        quality: metric.
        device: priced for.
        batch: samples a forward pass.
        objectives: prices beside the quality.
        budgets: price -> largest value.
        evaluations: of the search.
        seed: of the search.
        target: of the export, ``None``: none.
    """

    name: str
    model: str
    exported: bool = False
    data: Mapping[str, str] = field(default_factory=dict)
    formats: Sequence[str] = STARTING_FORMATS
    quality: str = "kl"
    device: str = "cpu"
    batch: int = 1
    objectives: Sequence[str] = ("latency_ms", "size_mb")
    budgets: Mapping[str, float] = field(default_factory=dict)
    evaluations: int = 48
    seed: int = 0
    target: str | None = "onnx"


def job_of(form: Form) -> dict[str, Any]:
    """The job as plain data, keys in the order of docs/job.md."""
    model = {"exported": f"upload:{form.model}"} if form.exported else {"zoo": form.model}
    data = {split: f"upload:{digest}" for split, digest in form.data.items()} or {"zoo": form.model}
    return {
        **({"name": form.name} if form.name else {}),
        "model": model,
        "data": data,
        "space": {"formats": list(form.formats)},
        "quality": form.quality,
        "device": {"name": form.device, "batch": form.batch},
        "objectives": ["quality", *form.objectives],
        **({"constraints": dict(form.budgets)} if form.budgets else {}),
        "search": {"evaluations": form.evaluations, "seed": form.seed},
        "export": {"target": form.target} if form.target else None,
    }


def yaml_of(job: Mapping[str, Any]) -> str:
    """YAML with short lists on one line."""
    return yaml.safe_dump(dict(job), sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)


def marked_lines(text: str, problems: Sequence[Mapping[str, Any]]) -> str:
    """The job with line numbers, lines with a problem marked by an arrow and followed by what it is."""
    by_line: dict[int, list[str]] = {}
    for problem in problems:
        by_line.setdefault(int(problem.get("line") or 0), []).append(str(problem["message"]))
    shown = [f"! {message}" for message in by_line.get(0, [])]
    for number, line in enumerate(text.splitlines(), 1):
        mark = "→" if number in by_line else " "
        shown.append(f"{mark} {number:3d}  {line}")
        shown += [f"       ^ {message}" for message in by_line.get(number, [])]
    return "\n".join(shown)
