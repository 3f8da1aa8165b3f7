"""The store of a leased job, which tells of every evaluation that it commits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...measurement import Measurement
from ...space import Configuration
from ...store import Lease, LeasedStore


@dataclass(frozen=True)
class Evaluated:
    """One committed evaluation.

    Attributes:
        configuration: which.
        measurement: what was measured.
        worker: by whom.
    """

    configuration: Configuration
    measurement: Measurement
    worker: str


class JobStore(LeasedStore):
    """Writes only while the lease holds.

    Args:
        url: as for ``Store``.
        lease: of the job.
    """

    def __init__(self, url: str, lease: Lease) -> None:
        super().__init__(url, lease)
        self.watch: Callable[[Evaluated], None] | None = None

    def save_evaluation(
        self, context: str, configuration: Configuration, measurement: Measurement, worker: str = ""
    ) -> None:
        """Commit one measured quality, and tell of it."""
        super().save_evaluation(context, configuration, measurement, worker)
        if self.watch is not None:
            self.watch(Evaluated(configuration, measurement, worker))
