"""Recording what a job wrote: every file below its output folder, with size and hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...store import StoredFile


def files_of(folder: Path, shown_as: str) -> list[StoredFile]:
    """The files of a job; links are left out.

    Args:
        folder: where the files lie now.
        shown_as: folder or URL that they will be read from.
    """
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            name = path.relative_to(folder).as_posix()
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            location = f"{shown_as.rstrip('/')}/{name}"
            files.append(StoredFile(name, location, path.stat().st_size, digest))
    return files
