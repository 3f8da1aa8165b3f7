"""Shards: pieces of a round for one worker, how long they take and may take, and what became of them in all."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidInput
from .work import Work


@dataclass(frozen=True)
class Limits:
    """How long a shard takes and may take.

    Attributes:
        size: candidates of a shard; ``None``: as many as take between ``shortest`` and ``longest`` seconds.
        shortest: seconds.
        longest: seconds.
        patience: a worker is stuck when it takes so many times the seconds foreseen,
        least: and at least so many seconds.
        unknown: seconds a candidate may take before any was timed.

    Raises:
        InvalidInput: a number that is not positive, or ``shortest`` above ``longest``.
    """

    size: int | None = None
    shortest: float = 1.0
    longest: float = 4.0
    patience: float = 20.0
    least: float = 60.0
    unknown: float = 3600.0

    def __post_init__(self) -> None:
        if (self.size is not None and self.size < 1) or not 0 < self.shortest <= self.longest:
            raise InvalidInput(
                f"shards of size={self.size}, {self.shortest:g} to {self.longest:g} seconds; give at least one "
                "candidate, and seconds with 0 < shortest <= longest"
            )
        if min(self.patience, self.least, self.unknown) <= 0:
            raise InvalidInput(
                f"patience={self.patience:g}, least={self.least:g}, unknown={self.unknown:g}; all must be positive"
            )


@dataclass(frozen=True)
class Shard:
    """Work for one worker.

    Attributes:
        key: of the shard; never used again.
        indices: of the work of the round.
        works: the work itself.
        limit: seconds after which the worker is stuck.
    """

    key: int
    indices: tuple[int, ...]
    works: tuple[Work, ...]
    limit: float


@dataclass
class Totals:
    """What the workers did, for reports and benchmarks.

    Attributes:
        shards: answered.
        evaluations: of those shards.
        busy_seconds: that workers spent on them.
        deaths: of workers with a shard in hand.
        quarantined: candidates that were given up.
        repeated: shards that were overdue and given to another worker as well.
    """

    shards: int = 0
    evaluations: int = 0
    busy_seconds: float = 0.0
    deaths: int = 0
    quarantined: int = 0
    repeated: int = 0
