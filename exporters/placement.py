"""Where an artifact lies: written aside, synced, and moved to its place when everything has been checked."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InvalidInput
from .protocol import Layout

#: The certificate of an artifact that is a folder lies in it under this name.
CERTIFICATE = "bitfront.json"


def certificate_path(path: Path, layout: Layout) -> Path:
    """Where the certificate of an artifact lies: ``m.onnx.bitfront.json`` beside ``m.onnx``, or in the folder."""
    return path / CERTIFICATE if layout == "folder" else path.with_name(f"{path.name}.{CERTIFICATE}")


def check_destination(path: Path, layout: Layout, target: str) -> None:
    """Refuse a destination whose replacement would destroy something else.

    Raises:
        InvalidInput: a folder where a file is to lie, or the reverse, or a folder that no export has made.
    """
    if layout == "file" and path.is_dir():
        raise InvalidInput(f"{path} is a folder; give the path of a file, such as {path / f'model.{target}'}")
    if layout == "folder" and path.exists() and not path.is_dir():
        raise InvalidInput(f"{path} is a file; {target} writes a folder: give another path")
    if layout == "folder" and path.is_dir() and any(path.iterdir()) and not (path / CERTIFICATE).is_file():
        raise InvalidInput(f"{path} holds files that no export wrote; give a new or empty folder")


@contextmanager
def placing(path: Path, layout: Layout) -> Iterator[Path]:
    """An empty folder beside the destination; on leaving, what it holds is synced and takes its place.

    For a file, everything in the folder moves beside it, the file itself last, so that it never lies there without
    the files that it needs. A folder takes the place of the old one by two renames. If the body raises, the folder is
    removed and the destination stays as it was.

    Args:
        path: destination of the main file, or of the folder.
        layout: which of the two.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    aside.mkdir()
    try:
        yield aside
        for file in sorted(aside.rglob("*")):
            if file.is_file():
                file.chmod(0o644)  # some libraries write files that only their owner can read
            _sync(file)
        if layout == "folder":
            _exchange(aside, path)
        else:
            for file in sorted(aside.iterdir(), key=lambda each: each.name == path.name):
                file.replace(path.parent / file.name)
        _sync(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(aside: Path, path: Path) -> None:
    """Put a folder in the place of another, which comes back if that fails."""
    old = aside.with_suffix(".old")
    if path.exists():
        path.rename(old)
    try:
        aside.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """Make sure that a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
