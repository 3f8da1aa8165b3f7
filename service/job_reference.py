"""``docs/job.md``, written from the schema: ``python -m bitfront.service.job_reference > docs/job.md``."""

from __future__ import annotations

import json
import sys
import types
import typing
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from .job import Job, Location

_HEAD = """# How do I describe a search?

In a YAML file. Every key is checked: an unknown one is an error that names the nearest valid key. Paths are relative to
the file. This page is written from the schema (`python -m bitfront.service.job_reference > docs/job.md`).

```yaml
name: my-model
model: {factory: "my_package.nets:build", weights: model.safetensors}
data: {calibration: calib.npz, validation: val.npz}    # arrays: inputs[, targets], or one array per named input
space: {formats: [w2, w4, w8, bf16]}
objectives: [quality, size_mb, latency_ms]
constraints: {size_mb: 3.0}
search: {evaluations: 32}
```

`bitfront run my-model.yaml --out out/my-model`

| key | type | default | what |
|---|---|---|---|
"""


def reference() -> str:
    """The page as Markdown."""
    return _HEAD + "\n".join(_rows(Job, "")) + "\n"


def _rows(kind: type[BaseModel], prefix: str) -> list[str]:
    rows = []
    for name, field in kind.model_fields.items():
        inner = _model(field.annotation)
        path = f"{prefix}{name}"
        if inner is not None:
            rows.append(f"| `{path}` | | | {(inner.__doc__ or '').splitlines()[0]} |")
            rows += _rows(inner, f"{path}.")
            continue
        default = field.get_default(call_default_factory=True)
        shown = "required" if default is PydanticUndefined else f"`{_yaml(default)}`"
        rows.append(f"| `{path}` | {_type(field.annotation)} | {shown} | {field.description or ''} |")
    return rows


def _model(annotation: Any) -> type[BaseModel] | None:
    """The nested part of the job that an annotation names, if it does."""
    for each in (annotation, *typing.get_args(annotation)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def _type(annotation: Any) -> str:
    """An annotation in words."""
    if annotation == Location:
        return "path or URL"
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(each) for each in inner)
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin is typing.Literal:
        return ", ".join(f"`{each}`" for each in inner)
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"{_type(inner[0])}: {_type(inner[1])}"
    names = {str: "text", int: "whole number", float: "number", bool: "yes/no", type(None): "null", Any: "anything"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())


def _yaml(value: Any) -> str:
    """A default as YAML writes it."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return json.dumps(value) if not isinstance(value, str) or not value else value


if __name__ == "__main__":
    sys.stdout.write(reference())
