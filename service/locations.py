"""Where files lie: paths, and URLs of any file system that fsspec knows (s3://, gs://, memory://, file://, …)."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import InvalidInput

if TYPE_CHECKING:
    from ..store import Store

UPLOAD = "upload:"  # of a file that was sent to the service, named by its SHA-256
_CACHED_FROM = 16_000_000  # bytes; the digest of a smaller file takes less time than asking the store for it


def is_url(location: str | Path) -> bool:
    """Whether a location is a URL; everything else is a path."""
    return isinstance(location, str) and "://" in location


def is_upload(location: object) -> bool:
    """Whether a location names a file that was sent to the service, ``upload:SHA256``."""
    return isinstance(location, str) and location.startswith(UPLOAD)


def inside(folder: Path, location: str) -> str:
    """A location of a job: a URL or an upload as it is, a path from the job's folder."""
    return location if is_url(location) or is_upload(location) else str(folder / location)


@contextmanager
def opened(location: str | Path, what: str) -> Iterator[IO[bytes]]:
    """A file for reading.

    Args:
        location: path or URL.
        what: names it in errors, such as ``data.calibration``.

    Raises:
        InvalidInput: there is no such file, or its file system cannot be used.
    """
    if is_upload(location):
        raise InvalidInput(f"{what}: {location} is known to the service alone that it was sent to")
    if not is_url(location) and not Path(location).is_file():
        raise InvalidInput(f"{what}: no file {location}")
    system, path = file_system(str(location), what)
    try:
        stream = system.open(path, "rb")
    except FileNotFoundError:
        raise InvalidInput(f"{what}: no file {location}") from None
    with stream:
        yield stream


def digest(location: str | Path, what: str, store: Store | None = None) -> str:
    """Hash of a file's content (32 hex digits).

    Args:
        location: path or URL.
        what: names it in errors.
        store: where the digest of a large local file is kept under its path, size and time of change.

    Raises:
        InvalidInput: as ``opened``.
    """
    from ..search.stage import as_array, from_array, key_of

    if is_upload(location):
        return str(location).removeprefix(UPLOAD)[:32]
    key = None
    if store is not None and not is_url(location) and Path(location).is_file():
        about = Path(location).stat()
        if about.st_size >= _CACHED_FROM:
            key = key_of("file-1", str(Path(location).resolve()), about.st_size, about.st_mtime_ns, about.st_ino)
            known = store.score(key)
            if known is not None:
                return str(from_array(known[0]["digest"]))
    with opened(location, what) as stream:
        content = hashlib.sha256()
        while piece := stream.read(1 << 22):
            content.update(piece)
    found = content.hexdigest()[:32]
    if key is not None and store is not None:
        store.save_score(key, "file", {"digest": as_array(found)}, 0.0)
    return found


@contextmanager
def writable_folder(out: str | Path) -> Iterator[Path]:
    """A local folder to write to: ``out`` itself, or for a URL one whose files are uploaded on leaving.

    ``front.json`` goes last, as the sign that all others are there. If the body raises, only ``run.log`` goes.

    Raises:
        InvalidInput: the file system of the URL cannot be used.
    """
    if not is_url(out):
        yield Path(out)
        return
    system, path = file_system(str(out), "--out")
    with tempfile.TemporaryDirectory(prefix="bitfront-out-") as scratch:
        folder = Path(scratch) / "run"
        folder.mkdir()
        try:
            yield folder
        except BaseException:
            _upload(system, path, folder, [folder / "run.log"])
            raise
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        _upload(system, path, folder, sorted(files, key=lambda file: file.name == "front.json"))


def _upload(system: Any, path: str, folder: Path, files: list[Path]) -> None:
    for file in files:
        if file.is_file():
            target = f"{path.rstrip('/')}/{file.relative_to(folder).as_posix()}"
            system.makedirs(target.rpartition("/")[0], exist_ok=True)
            system.put_file(str(file), target)


def file_system(location: str, what: str) -> tuple[Any, str]:
    """The fsspec file system of a location, and the path in it.

    Raises:
        InvalidInput: the protocol is unknown, or its package is not installed.
    """
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(location)
    except (ImportError, ValueError) as cause:
        raise InvalidInput(f"{what}: {location}: {' '.join(str(cause).split())}") from None
    return system, path
