"""A Ray cluster for the length of a ``with`` block."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_OBJECTS = 512 * 1024 * 1024  # bytes of the object store of a local cluster; what is larger goes to the disk


@contextmanager
def ray_cluster(cpus: float, address: str | None = None) -> Iterator[bool]:
    """Use a Ray that this process is connected to, the one at an address, or a local one on the loopback interface.

    Hold it around several searches, and they share one cluster: starting one takes seconds.

    Args:
        cpus: of the local cluster; the others have what they have.
        address: of a running cluster, such as ``auto`` or ``ray://host:10001``.

    Yields:
        Whether a local cluster was started for this block; it ends with it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None and "ray" not in sys.modules:  # Ray reads these once, when it is imported
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))
    import ray

    if ray.is_initialized():
        yield False
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if address is None:
        options |= {"_node_ip_address": "127.0.0.1", "num_cpus": max(cpus, 1), "object_store_memory": _OBJECTS}
    ray.init(address=address, **options)
    try:
        with _silent():
            yield address is None
    finally:
        ray.shutdown()


@contextmanager
def _silent() -> Iterator[None]:
    """Ray tells of every dead worker on standard output, where a command writes its JSON, and in its log.

    The search deals with dead workers itself, and reports what it cannot deal with. Standard output stays closed to
    Ray, because it holds repeated lines back until the process ends.
    """
    from ray._private import worker

    log = logging.getLogger("ray.tune")
    level = log.level
    worker._worker_logs_enabled = False
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
