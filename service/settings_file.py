"""Settings of the service from a YAML file, so that another database, cluster or bucket is configuration alone."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ..errors import InvalidInput
from ..store import Limits
from .settings import Settings

CONFIG_VARIABLE = "BITFRONT_CONFIG"


def read_settings(path: str | Path | None) -> Settings:
    """The settings in a file; whatever it does not name is as by default.

    Args:
        path: a YAML file with names of ``Settings`` as keys, ``limits`` with those of ``Limits``; ``None``: no file.

    Raises:
        InvalidInput: it cannot be read, holds an unknown key, or a value of another type.
    """
    if path is None:
        return Settings()
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as cause:
        raise InvalidInput(f"cannot read the settings file {path}: {cause.strerror or cause}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as cause:
        raise InvalidInput(f"the settings file {path} is not YAML: {' '.join(str(cause).split())}") from None
    if not isinstance(content, dict):
        raise InvalidInput(f"the settings file {path} must hold keys such as store, outputs; see docs/service.md")
    _check_keys(content, Settings, path)
    if isinstance(content.get("limits"), dict):
        _check_keys(content["limits"], Limits, path, "limits.")
    try:
        return TypeAdapter(Settings).validate_python(content)
    except ValidationError as cause:
        first = cause.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{path}: {where}: {first['msg']}, got {first['input']!r}") from None


def with_options(settings: Settings, **options: Any) -> Settings:
    """The settings with what the command line names; ``None``: it does not."""
    return replace(settings, **{name: value for name, value in options.items() if value is not None})


def to_json(settings: Settings) -> str:
    """In one line, for another process."""
    return json.dumps(asdict(settings))


def from_json(line: str) -> Settings:
    """What ``to_json`` wrote."""
    return TypeAdapter(Settings).validate_json(line)


def _check_keys(content: Mapping[Any, Any], kind: type, path: str | Path, prefix: str = "") -> None:
    names = [each.name for each in fields(kind)]
    for key in content:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.0)[0]
            raise InvalidInput(
                f"{path}: unknown key '{prefix}{key}'; did you mean {near!r}? (valid here: {', '.join(names)})"
            )
