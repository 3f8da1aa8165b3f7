"""Files that users send: received, checked and kept under the hash of their content; jobs name them ``upload:SHA256``.

Nothing that is sent is loaded here. Weights are safetensors, data are arrays without objects, programs are archives
that ``exported_archive`` allows; pickles are refused. A file lies at ``FOLDER/AB/ABCD….suffix`` or not at all.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from ..errors import InvalidInput
from ..store import Artifacts, Queue, Store, StoredFile, Upload
from .job import Job
from .locations import UPLOAD, is_upload, is_url, opened
from .settings import Settings
from .upload_checks import check_data, check_exported, check_table, check_weights

Kind = Literal["weights", "exported", "data", "table"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "weights": (".safetensors",),
    "exported": (".pt2",),
    "data": (".npz",),
    "table": (".csv", ".parquet"),
}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. +-]{0,199}")
_SHA = re.compile(r"[0-9a-f]{64}")
_PIECE = 1 << 20
_LARGEST_TABLE = 200_000_000


class Stream(Protocol):
    """What is received."""

    def read(self, size: int = ..., /) -> bytes:
        """Up to ``size`` bytes; nothing at the end."""
        ...


@dataclass(frozen=True)
class Received:
    """A file that was checked and kept.

    Attributes:
        file: where it lies.
        details: what was found in it: numbers of tensors, shapes of arrays, devices of a table.
    """

    file: StoredFile
    details: dict[str, Any]


def receive(stream: Stream, kind: str, name: str, limit: int, settings: Settings) -> Received:
    """Receive, check and keep a file.

    It is hashed while it is written to the side, synced, checked, and only then takes its place.

    Args:
        stream: the bytes.
        kind: one of ``KINDS``.
        name: shown to people; its ending must fit the kind.
        limit: most bytes.
        settings: where uploads lie.

    Raises:
        InvalidInput: no such kind, a name that is none, too long, or not what the kind says.
    """
    suffix = _suffix(kind, name)
    most = min(limit, _LARGEST_TABLE) if kind == "table" else limit
    with _aside(settings) as folder:
        path = folder / f"received{suffix}"
        digest, length = _write(stream, path, name, most)
        details = _CHECKS[kind](path, name, limit)
        place = f"{digest[:2]}/{digest}{suffix}"
        return Received(StoredFile(name, _keep(path, place, settings), length, digest), details)


def accept(stream: Stream, kind: str, name: str, owner: str, settings: Settings, store: Store) -> Upload:
    """Receive a file, record it, and let the jobs go on that waited for it.

    Args:
        stream: the bytes.
        kind: one of ``KINDS``.
        name: shown to people.
        owner: who sends it.
        settings: where uploads lie, and how long they may be.
        store: where it is recorded.

    Raises:
        InvalidInput: as ``receive``; or the content is known as something else.
    """
    found = receive(stream, kind, name, settings.most_upload_bytes, settings)
    artifacts = Artifacts(store)
    artifacts.add_upload(kind, found.file, owner, found.details)
    known = artifacts.upload(found.file.sha256)
    if known.kind != kind:
        raise InvalidInput(f"{name}: this content was sent before as {known.kind}; name it {UPLOAD}{known.sha256}")
    if kind == "table":
        Queue(store).measured(measured_devices(store))
    return known


def find(location: str, kind: str, what: str, store: Store) -> Upload:
    """The upload that a job names.

    Args:
        location: ``upload:SHA256``.
        kind: that it must be of.
        what: names it in errors.
        store: where it was recorded.

    Raises:
        NotFound: there is none.
        InvalidInput: it is of another kind, or the name is none.
    """
    sha = location.removeprefix(UPLOAD)
    if not _SHA.fullmatch(sha):
        raise InvalidInput(f"{what}: {location[:80]!r} must read {UPLOAD} and 64 hexadecimal digits")
    found = Artifacts(store).upload(sha)
    if found.kind != kind:
        raise InvalidInput(f"{what}: upload {sha[:12]}… is of kind {found.kind}; {kind} is needed here")
    return found


def with_uploads(job: Job, store: Store) -> Job:
    """The job with the places of the uploads that it names, each read once to see that it is what was sent.

    Raises:
        NotFound: one is not known.
        InvalidInput: one is of the wrong kind, gone, or changed.
    """
    model: dict[str, str] = {}
    for key, kind in (("weights", "weights"), ("exported", "exported")):
        if is_upload(given := getattr(job.model, key)):
            model[key] = _intact(find(given, kind, f"model.{key}", store), f"model.{key}")
    data: dict[str, str] = {}
    for split in ("calibration", "validation", "holdout"):
        if is_upload(given := getattr(job.data, split)):
            data[split] = _intact(find(given, "data", f"data.{split}", store), f"data.{split}")
    if not model and not data:
        return job
    return job.model_copy(
        update={"model": job.model.model_copy(update=model), "data": job.data.model_copy(update=data)}
    )


def fetch_tables(store: Store, device: str) -> int:
    """Take the tables that users sent for a device among those of this machine; how many there are."""
    from ..hw_models.tables import add

    found = [each for each in Artifacts(store).uploads("table") if device in each.details.get("devices", ())]
    for each in found:
        with tempfile.TemporaryDirectory(prefix="bitfront-table-") as folder:
            # the registry names its copy after the file and the rows, so a second time changes nothing
            path = Path(folder) / f"upload-{each.sha256[:12]}{Path(each.location).suffix}"
            with opened(each.location, f"table {each.name}") as stream, path.open("wb") as copy:
                shutil.copyfileobj(stream, copy)
            add(path)
    return len(found)


def measured_devices(store: Store) -> list[str]:
    """The devices that some table has measurements of: this machine's tables and those that users sent."""
    from ..hw_models.tables import tables

    sent = [device for each in Artifacts(store).uploads("table") for device in each.details.get("devices", ())]
    return sorted({*sent, *(info.device for info in tables() if info.rows)})


_CHECKS = {"weights": check_weights, "exported": check_exported, "data": check_data, "table": check_table}


def _suffix(kind: str, name: str) -> str:
    if kind not in _SUFFIXES:
        raise InvalidInput(f"unknown kind {kind!r}; choose {', '.join(KINDS)}")
    if not _NAME.fullmatch(name) or ".." in name:
        raise InvalidInput(
            f"file name {name[:80]!r}: give a plain name of letters, digits, '_', '-', '.' without folders"
        )
    suffix = Path(name).suffix.lower()
    if suffix not in _SUFFIXES[kind]:
        pickled = suffix in (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
        why = "pickles can run code and are refused; " if pickled else ""
        raise InvalidInput(f"{name}: {why}{kind} must be a {' or '.join(_SUFFIXES[kind])} file")
    return suffix


@contextmanager
def _aside(settings: Settings) -> Iterator[Path]:
    """A folder beside the uploads, so that a file can be renamed into its place; gone afterwards."""
    if is_url(settings.uploads):
        with tempfile.TemporaryDirectory(prefix="bitfront-upload-") as folder:
            yield Path(folder)
        return
    Path(settings.uploads).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=settings.uploads) as folder:
        yield Path(folder)


def _write(stream: Stream, path: Path, name: str, limit: int) -> tuple[str, int]:
    """Hash and length of what was received."""
    content, length = hashlib.sha256(), 0
    with path.open("wb") as file:
        while piece := stream.read(_PIECE):
            length += len(piece)
            if length > limit:
                raise InvalidInput(f"{name}: longer than {limit} bytes, the most that is taken")
            content.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    if not length:
        raise InvalidInput(f"{name}: empty")
    return content.hexdigest(), length


def _keep(path: Path, place: str, settings: Settings) -> str:
    """Bring a file to its place; where it is."""
    if is_url(settings.uploads):
        from fsspec.core import url_to_fs

        location = f"{settings.uploads.rstrip('/')}/{place}"
        system, target = url_to_fs(location)
        system.makedirs(target.rpartition("/")[0], exist_ok=True)
        system.put_file(str(path), target)
        return location
    target_path = Path(settings.uploads).resolve() / place
    target_path.parent.mkdir(exist_ok=True)
    path.replace(target_path)
    folder = os.open(target_path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return str(target_path)


def _intact(upload: Upload, what: str) -> str:
    content = hashlib.sha256()
    with opened(upload.location, what) as stream:
        while piece := stream.read(1 << 22):
            content.update(piece)
    if content.hexdigest() != upload.sha256:
        raise InvalidInput(
            f"{what}: the file of upload {upload.sha256[:12]}… is not the one that was sent; send it again"
        )
    return upload.location
