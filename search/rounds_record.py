"""What the rounds of a search did: candidates recorded before they are evaluated, seconds and counts by stage."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from itertools import islice
from typing import TYPE_CHECKING

from ..measurement import Measurement
from ..store import Store
from ..task import SPLITS, Split
from .problem import FLOAT
from .stage import Ledger, Ran

if TYPE_CHECKING:
    from .executor import Outcome, Rounds, Work
    from .loop import Loop


class RoundsRecord:
    """Watches the rounds of one search.

    What is proposed before anything is learnt from measurements is the stage *measure*, what is proposed after that
    the stage *refine*, and what is evaluated on held-out data the stage *validate*.

    Args:
        loop: the search.
        store: where its candidates are recorded.
        job_id: whose they are.
    """

    def __init__(self, loop: Loop, store: Store, job_id: str) -> None:
        self._loop, self._store, self._job_id = loop, store, job_id
        self._stored: dict[tuple[str, Split], Measurement] = dict(loop.measurements.known)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._fresh: Counter[str] = Counter()
        self._recorded = 0  # of the proposals, which only grow at their end

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
        opening = 1 + sum(  # the float model, too
            line["proposed"] for line in self._loop.log.lines if not line["round"].startswith("round ")
        )
        for position, found in enumerate(self._loop.measurements.proposals):
            for split in SPLITS[1:]:
                known = self._stored.get((found.digest, split))
                if known is not None:
                    stage = "measure" if position < opening else "refine"
                    reused["validate" if split == "holdout" else stage].append(known)
        ledger.add(
            Ran("propose", "candidates", "", len(self._loop.measurements.proposals), 0, self._seconds["propose"])
        )
        for stage in ("measure", "refine", "validate"):
            saved = sum(each.seconds for each in reused[stage])
            ledger.add(Ran(stage, "", "", self._fresh[stage], len(reused[stage]), self._seconds[stage], saved))

    def _record(self) -> None:
        """What was proposed since the last time, into the store; what is there already stays."""
        first = next(iter(self._loop.problem.sensitivities.values()))
        proposals = self._loop.measurements.proposals
        self._store.add_candidates(
            self._job_id,
            [
                (found, origin, first.joint(found) if found != FLOAT else None)
                for found, origin in islice(proposals.items(), self._recorded, None)
            ],
        )
        self._recorded = len(proposals)

    def _stage(self, work: Work) -> str:
        if work.split == "holdout":
            return "validate"
        return "measure" if self._loop.mixture is None else "refine"


class _Timed:
    """Adds the wall time of a ``with`` block to an entry."""

    def __init__(self, seconds: defaultdict[str, float], name: str) -> None:
        self._seconds, self._name = seconds, name

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._seconds[self._name] += time.perf_counter() - self._started
