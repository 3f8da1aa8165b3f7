"""Which runs there are: folders with a ``front.json`` or a ``run.log`` below the given ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidInput
from ..service.front_document import Front
from . import PATHS_VARIABLE
from .joint_front import read_any_front

FRONT, LOG = "front.json", "run.log"
Reader = Callable[[str, int, int], Front]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A folder of a run.

    Attributes:
        key: how it is called in the app and in links, such as ``out/demo``.
        path: where it lies.
    """

    key: str
    path: Path

    @property
    def front_path(self) -> Path:
        """Where the front is, or will be."""
        return self.path / FRONT


@dataclass(frozen=True, slots=True)
class RunState:
    """What could be read of a run.

    Attributes:
        run: the folder.
        state: ``finished``, ``no front yet`` or ``broken``.
        reason: why it is not finished.
        front: the front of a finished run.
    """

    run: RunFolder
    state: str
    reason: str = ""
    front: Front | None = None


def roots(default: Sequence[str] = ("out",)) -> list[Path]:
    """The folders that may be read, from the environment."""
    given = os.environ.get(PATHS_VARIABLE)
    return [Path(part) for part in (default if given is None else given.split(os.pathsep)) if part]


def find_runs(folders: Sequence[Path], depth: int = 2, limit: int = 2000) -> list[RunFolder]:
    """The runs in and below some folders, by key.

    Args:
        folders: where to look; one that does not exist holds no runs.
        depth: how many levels below each folder are searched.
        limit: at most so many runs are returned.

    Returns:
        The runs; links that lead out of the folders are not followed, nor hidden folders.
    """
    found: dict[Path, RunFolder] = {}
    for folder in folders:
        root = folder.resolve()
        for path in _walk(root, root, depth):
            if len(found) >= limit:
                break
            key = Path(root.name) / path.relative_to(root)
            found.setdefault(path, RunFolder(key.as_posix(), path))
    return _distinct_keys(sorted(found.values(), key=lambda run: run.key))


def read_run(run: RunFolder, read: Reader | None = None) -> RunState:
    """Read the front of a run; what cannot be read becomes a state with its reason, never an error.

    Args:
        run: the folder.
        read: reads a path, given its modification time and size too, so that it can cache by them.

    Returns:
        The state.
    """
    path = run.front_path
    try:
        status = path.stat()
    except FileNotFoundError:
        return RunState(run, "no front yet", "running, or stopped before the first front was written")
    except OSError as cause:
        return RunState(run, "broken", f"{FRONT} cannot be read: {cause.strerror}")
    try:
        front = (read or _read)(str(path), status.st_mtime_ns, status.st_size)
    except InvalidInput as cause:
        return RunState(run, "broken", str(cause))
    return RunState(run, "finished", "", front)


def _read(path: str, modified_ns: int, size: int) -> Front:
    del modified_ns, size
    return read_any_front(path)


def _walk(root: Path, folder: Path, depth: int) -> Iterator[Path]:
    try:
        children = sorted(folder.iterdir())
    except OSError:
        return
    marks = [child for child in children if child.name in (FRONT, LOG)]
    if any(mark.resolve().is_relative_to(root) for mark in marks):
        yield folder
    if depth == 0:
        return
    for child in children:
        if not child.name.startswith(".") and not child.is_symlink() and child.is_dir():
            yield from _walk(root, child, depth - 1)


def _distinct_keys(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """Two roots of the same name would give equal keys; the later ones get a number."""
    seen: dict[str, int] = {}
    distinct = []
    for run in runs:
        seen[run.key] = seen.get(run.key, 0) + 1
        suffix = f" ({seen[run.key]})" if seen[run.key] > 1 else ""
        distinct.append(RunFolder(run.key + suffix, run.path))
    return distinct
