"""Files written so that a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside the target to write to; on leaving it is synced and renamed over the target.

    If the body raises, the side file is removed and the target stays as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    side = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield side
        with side.open("rb") as stream:
            os.fsync(stream.fileno())
        side.replace(target)
    finally:
        side.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8: to the side, sync, rename."""
    with replacing(path) as side:
        side.write_text(text, encoding="utf-8")
