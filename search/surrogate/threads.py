"""Linear algebra on one thread: matrices of a few hundred rows lose more by waking threads than they gain.

On a machine that is busy evaluating, two threads of OpenBLAS take ten times the CPU time of one (they spin).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it, or in a function decorated with it, BLAS uses one thread."""
    with _controller().limit(limits=1, user_api="blas"):
        yield
