"""What the rounds of a search did: candidates recorded before they are evaluated, seconds and counts by stage."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from ..measurement import Measurement
from ..space import Configuration
from ..store import Store
from ..task import Split
from .stage import Ledger, Ran
from .summary import FLOAT

if TYPE_CHECKING:
    from .executor import Outcome, Rounds, Work
    from .loop import Loop

#: Who proposes before anything was learnt from measurements; what others propose is the stage *refine*.
_BEFORE_LEARNING = ("float", "uniform", "exact_front", "budget", "diverse")


class RoundsRecord:
    """Watches the rounds of one search.

    Args:
        loop: the search.
        store: where its candidates are recorded.
        job_id: whose they are.
    """

    def __init__(self, loop: Loop, store: Store, job_id: str) -> None:
        self._loop, self._store, self._job_id = loop, store, job_id
        self._stored: dict[tuple[str, Split], Measurement] = dict(loop.known)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._fresh: Counter[str] = Counter()

    def rounds(self) -> Rounds:
        """The rounds of the loop; each is recorded as the candidates of the job before it is evaluated."""
        rounds = self._loop.rounds()
        try:
            with _Timed(self._seconds, "propose"):
                work = next(rounds)
            while True:
                self._record()
                with _Timed(self._seconds, self._stage(work[0])):
                    outcomes = yield work
                with _Timed(self._seconds, "propose"):
                    work = rounds.send(outcomes)
        except StopIteration:
            self._record()

    def count(self, outcome: Outcome) -> None:
        """Take in one outcome."""
        self._fresh[self._stage(outcome.work)] += 1

    def enter(self, ledger: Ledger) -> None:
        """Put down the stages *propose*, *measure*, *refine* and *validate*."""
        reused: defaultdict[str, list[Measurement]] = defaultdict(list)
        for found in [FLOAT, *(each for each in self._loop.proposals if each != FLOAT)]:
            for split in ("validation", "holdout"):
                known = self._stored.get((found.digest, split))
                if known is not None:
                    reused[self._stage_of(found, split)].append(known)
        ledger.add(Ran("propose", "candidates", "", len(self._loop.proposals), 0, self._seconds["propose"]))
        for stage in ("measure", "refine", "validate"):
            saved = sum(each.seconds for each in reused[stage])
            ledger.add(Ran(stage, "", "", self._fresh[stage], len(reused[stage]), self._seconds[stage], saved))

    def _record(self) -> None:
        """What was proposed so far, into the store; what is there already stays."""
        first = next(iter(self._loop.problem.sensitivities.values()))
        self._store.add_candidates(
            self._job_id,
            [
                (found, origin, first.of(found) if found != FLOAT else None)
                for found, origin in self._loop.proposals.items()
            ],
        )

    def _stage(self, work: Work) -> str:
        return self._stage_of(work.configuration, work.split)

    def _stage_of(self, configuration: Configuration, split: Split) -> str:
        if split == "holdout":
            return "validate"
        origin = self._loop.proposals.get(configuration, "float")
        return "measure" if origin.startswith(_BEFORE_LEARNING) else "refine"


class _Timed:
    """Adds the wall time of a ``with`` block to an entry."""

    def __init__(self, seconds: defaultdict[str, float], name: str) -> None:
        self._seconds, self._name = seconds, name

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._seconds[self._name] += time.perf_counter() - self._started
