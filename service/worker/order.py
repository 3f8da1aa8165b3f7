"""What a worker asks of the process of a job, on its standard input."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from ...store import Lease


@dataclass(frozen=True)
class Order:
    """One job.

    Attributes:
        store: URL.
        lease: under which it writes.
        outputs: folder or URL below which the job's files lie.
        executor: ``ray`` or ``local``.
        ray_address: of a cluster, for jobs that name none.
        parent: process id of the worker.
    """

    store: str
    lease: Lease
    outputs: str
    executor: str
    ray_address: str | None
    parent: int

    def to_json(self) -> str:
        """For standard input."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(content: str) -> Order:
        """What ``to_json`` wrote."""
        found: dict[str, Any] = json.loads(content)
        return Order(**{**found, "lease": Lease(**found["lease"])})
