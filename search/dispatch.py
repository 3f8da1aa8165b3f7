r"""Dispatch: cuts the work of a round into shards for workers that may be slow, get stuck, or die.

Size. A worker that is warm answers a shard with little overhead, but what a dead worker had in hand is lost and a round
waits for its last shard. With p the median of the seconds per sample over the latest shards, R the seconds of the work
that nobody has yet, and W workers, the next shard takes about

.. math:: \min(T, \max(t, R / 2W)) \text{ seconds}, \qquad t = 1, \quad T = 4

(guided self-scheduling: Polychronopoulos and Kuck 1987, IEEE Transactions on Computers 36(12)). The first shards,
before anything was timed, hold one candidate each. Which candidates are measured together changes no measurement.

Death. What was in hand goes to the end of the queue in two halves, so that a candidate that kills its workers is alone
after a few deaths (bisection) while the others are measured. One that has killed two workers alone is quarantined: it
becomes a failure and the round goes on. When worker after worker dies and nothing is finished in between, the fault is
elsewhere: an error.

Time. A shard may take a multiple of what its samples take in the median; the worker ends itself when it takes longer,
which is a death like any other. When nothing is left to hand out, a shard that is long overdue is given to an idle
worker as well, and the first answer counts.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..errors import BitfrontError
from .shards import Limits, Shard, Totals
from .work import Outcome, Work, in_order

_PACES = 9  # latest shards that the median is taken over
_DEATHS_ALONE = 2  # of the workers of one candidate, until it is quarantined
_DEATHS_IN_A_ROW = 12  # without one outcome, until the search gives up
_OVERDUE = 3.0  # times the foreseen seconds, and
_OVERDUE_SECONDS = 5.0  # so many more, until an idle worker repeats a shard


@dataclass
class _InHand:
    shard: Shard
    foreseen: float | None
    since: float | None = None  # when a worker began; a new one has to start first


@dataclass
class Dispatch:
    """The rounds of a search, handed out in shards.

    Args:
        workers: how many ask for shards at a time.
        order: the indices of a round's work, so that neighbours share much.
        amount: how many samples a work runs on.
        commit: called once with the outcome of each work, as it arrives.
        limits: sizes and times.
        clock: seconds.
    """

    workers: int
    order: Callable[[Sequence[Work]], list[int]]
    amount: Callable[[Work], int]
    commit: Callable[[Outcome], None]
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.monotonic
    totals: Totals = field(default_factory=Totals)

    def __post_init__(self) -> None:
        self._batch: list[Work] = []
        self._arrived: dict[int, Outcome] = {}
        self._waiting: deque[list[int]] = deque()
        self._in_hand: dict[int, _InHand] = {}
        self._repeated: set[int] = set()
        self._deaths_alone: Counter[int] = Counter()
        self._deaths_in_a_row = 0
        self._paces: deque[float] = deque(maxlen=_PACES)
        self._keys = 0

    def begin(self, batch: list[Work]) -> None:
        """A new round; answers to shards of an earlier one no longer count."""
        self._batch, self._arrived = batch, {}
        self._waiting = deque([self.order(batch)]) if batch else deque()
        self._in_hand, self._repeated = {}, set()
        self._deaths_alone.clear()

    @property
    def complete(self) -> bool:
        """Whether every work of the round has an outcome."""
        return len(self._arrived) == len(self._batch)

    @property
    def outcomes(self) -> list[Outcome]:
        """Of the round, in the order of its work."""
        return in_order(self._batch, self._arrived)

    @property
    def waiting(self) -> int:
        """Work of the round that nobody has yet."""
        return sum(len(segment) for segment in self._waiting)

    @property
    def pace(self) -> float | None:
        """Median seconds per sample over the latest shards; ``None`` before the first."""
        return statistics.median(self._paces) if self._paces else None

    def take(self) -> Shard | None:
        """A shard for a worker that is free; ``None`` when there is nothing to do for it now."""
        if not self._waiting:
            return self._overdue()
        segment = self._waiting[0]
        count = self._count(segment)
        indices, rest = segment[:count], segment[count:]
        if rest:
            self._waiting[0] = rest
        else:
            self._waiting.popleft()
        return self._hand_out(tuple(indices))

    def started(self, key: int) -> None:
        """A worker that is up begins with a shard: its time runs from now."""
        if key in self._in_hand:
            self._in_hand[key].since = self.clock()

    def works(self, key: int) -> tuple[Work, ...]:
        """The work of a shard that is in hand; empty when its answer no longer counts."""
        return self._in_hand[key].shard.works if key in self._in_hand else ()

    def answer(self, key: int, found: Sequence[Outcome], seconds: float) -> None:
        """The outcomes of a shard, in its order; those that another worker gave first are dropped.

        Args:
            key: of the shard.
            found: one for each of its works.
            seconds: that the worker spent on it.
        """
        held = self._in_hand.pop(key, None)
        if held is None:
            return
        samples = sum(self.amount(work) for work in held.shard.works)
        self._paces.append(seconds / max(1, samples))
        self._deaths_in_a_row = 0
        self.totals.shards += 1
        self.totals.evaluations += len(found)
        self.totals.busy_seconds += seconds
        for index, outcome in zip(held.shard.indices, found, strict=True):
            self._arrive(index, outcome)

    def died(self, key: int, cause: str) -> None:
        """A worker died with a shard in hand.

        Args:
            key: of the shard.
            cause: one line, for the report.

        Raises:
            BitfrontError: too many died in a row.
        """
        held = self._in_hand.pop(key, None)
        if held is None:
            return
        late = held.since is not None and self.clock() - held.since >= held.shard.limit
        reason = f"no answer within {held.shard.limit:.3g} s, its worker was ended" if late else cause
        self.unused(reason)
        elsewhere = {index for other in self._in_hand.values() for index in other.shard.indices}
        left = [index for index in held.shard.indices if index not in self._arrived and index not in elsewhere]
        if len(left) == 1 and len(held.shard.indices) == 1:
            self._died_alone(left[0], reason)
        elif left:
            middle = (len(left) + 1) // 2
            self._waiting.extend(half for half in (left[:middle], left[middle:]) if half)

    def unused(self, cause: str) -> None:
        """A worker died with nothing in hand.

        Raises:
            BitfrontError: too many died in a row.
        """
        self.totals.deaths += 1
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row >= _DEATHS_IN_A_ROW:
            raise BitfrontError(
                f"{self._deaths_in_a_row} workers died one after the other and nothing was finished in between "
                f"({cause}); mend the cause and run again to continue"
            )

    def _died_alone(self, index: int, reason: str) -> None:
        self._deaths_alone[index] += 1
        if self._deaths_alone[index] < _DEATHS_ALONE:
            self._waiting.append([index])
            return
        self.totals.quarantined += 1
        failure = f"given up after the deaths of {_DEATHS_ALONE} workers: {reason}"
        self._arrive(index, Outcome(self._batch[index], None, failure=failure, worker="quarantine", final=False))

    def _arrive(self, index: int, outcome: Outcome) -> None:
        if index not in self._arrived:
            self.commit(outcome)
            self._arrived[index] = outcome

    def _hand_out(self, indices: tuple[int, ...]) -> Shard:
        self._keys += 1
        works = tuple(self._batch[index] for index in indices)
        pace = self.pace
        foreseen = None if pace is None else pace * sum(self.amount(work) for work in works)
        limit = (
            self.limits.unknown * len(works)
            if foreseen is None
            else max(self.limits.least, self.limits.patience * foreseen)
        )
        shard = Shard(self._keys, indices, works, limit)
        self._in_hand[shard.key] = _InHand(shard, foreseen)
        return shard

    def _count(self, segment: Sequence[int]) -> int:
        """How many candidates the next shard takes from a segment; halves left by a death are not joined again."""
        if self.limits.size is not None:
            return self.limits.size
        pace = self.pace
        if pace is None:
            return 1
        left = sum(self.amount(self._batch[index]) for waiting in self._waiting for index in waiting) * pace
        share = left / (2 * self.workers) if self.workers > 1 else left
        seconds, used = min(self.limits.longest, max(self.limits.shortest, share)), 0.0
        for count, index in enumerate(segment):
            used += self.amount(self._batch[index]) * pace
            if used > seconds:
                return max(1, count)
        return len(segment)

    def _overdue(self) -> Shard | None:
        """A shard once more, that its worker should have answered long ago."""
        now = self.clock()
        for key, held in self._in_hand.items():
            if held.foreseen is None or held.since is None or key in self._repeated:
                continue
            if now - held.since > _OVERDUE * held.foreseen + _OVERDUE_SECONDS:
                again = self._hand_out(held.shard.indices)
                self._repeated |= {key, again.key}
                self.totals.repeated += 1
                return again
        return None
