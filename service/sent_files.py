"""The files that a job names, sent to a server: it reads no path of another machine, but ``upload:SHA256``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidInput
from . import safe_yaml
from .locations import is_url

_UPLOAD = "upload:"
#: Where a job names a file, and what kind of file that is for a server.
_PLACES = (
    ("model", "weights", "weights"),
    ("model", "exported", "exported"),
    ("data", "calibration", "data"),
    ("data", "validation", "data"),
    ("data", "holdout", "data"),
)


def job_content(path: str | Path) -> dict[str, Any]:
    """What a job file holds, formulas by what they say; the server judges it.

    Raises:
        InvalidInput: it cannot be read, is not YAML, or holds no keys.
    """
    file = Path(path)
    try:
        content = safe_yaml.load(file.read_text(), origin=str(file))
    except OSError as cause:
        raise InvalidInput(f"cannot read the job file {file}: {cause.strerror or cause}") from None
    except UnicodeDecodeError as cause:
        raise InvalidInput(f"cannot read the job file {file}: {cause}") from None
    if not isinstance(content, dict):
        raise InvalidInput(f"{file} must hold keys such as model, data, space; it holds {type(content).__name__}")
    names = content.get("proxies")
    if isinstance(names, list) and any(isinstance(name, str) and name.startswith("formula:") for name in names):
        from ..proxies.formulas.reference import resolved

        folder = file.resolve().parent
        content["proxies"] = [resolved(name, folder) if isinstance(name, str) else name for name in names]
    return content


def with_sent_files(content: Mapping[str, Any], folder: Path, send: Callable[[Path, str], str]) -> dict[str, Any]:
    """The job with its files sent and named by their content.

    Args:
        content: of the job.
        folder: where its relative paths start.
        send: sends a file of a kind; returns its SHA-256.

    Raises:
        InvalidInput: a file that it names does not exist.
    """
    made = dict(content)
    for part, key, kind in _PLACES:
        section = made.get(part)
        location = section.get(key) if isinstance(section, Mapping) else None
        if not isinstance(location, str) or is_url(location) or location.startswith(_UPLOAD):
            continue
        file = folder / location
        if not file.is_file():
            raise InvalidInput(f"{part}.{key}: no file {file}")
        assert isinstance(section, Mapping)
        made[part] = {**section, key: _UPLOAD + send(file, kind)}
    return made
