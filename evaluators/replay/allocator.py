"""Large tensors from memory that the process already holds, instead of fresh pages for each.

glibc takes blocks above a threshold (at most 32 MB by itself) from the kernel and gives them back when they are freed;
activations of vision models are larger, so that every layer of every forward pass pays for page faults (a third of the
time of EfficientNet-Lite0 at batch 16). While candidates are evaluated, freed memory is kept and used again.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3)
_USUAL = 32 << 20  # where glibc's moving threshold ends in a process that frees large blocks
_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


_inside: list[None] = []  # one entry for each block that is open


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory for the length of a ``with`` block; at the end of the outermost one what is free goes back to
    the kernel.

    Does nothing where the C library is not glibc, or where the environment sets its thresholds. It holds for the whole
    process; results are the same. Setting a threshold turns off for good that glibc moves it, and there is no call that
    turns this on again: after the first block the thresholds stay where the moving ones end at most, 32 MB for blocks
    from the kernel and 64 MB for trimming. A process that would not have got there keeps more freed memory.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    glibc = library is not None and hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt")
    if library is None or not glibc or any(name in os.environ for name in _VARIABLES):
        yield
        return
    _inside.append(None)
    _set(library, 1 << 30, (1 << 31) - 1)
    try:
        yield
    finally:
        _inside.pop()
        if not _inside:
            _set(library, _USUAL, 2 * _USUAL)
            library.malloc_trim(0)


def _set(library: ctypes.CDLL, mmap_threshold: int, trim_threshold: int) -> None:
    if not library.mallopt(_MMAP_THRESHOLD, mmap_threshold):  # old versions refuse more than this
        library.mallopt(_MMAP_THRESHOLD, _USUAL)
    library.mallopt(_TRIM_THRESHOLD, trim_threshold)
