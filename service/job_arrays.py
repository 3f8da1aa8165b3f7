"""A job's candidates and what was measured of them as arrays, kept in memory and brought up to date from the store.

What is measured never changes (the first result of a configuration stays), so only what is new is read: two counts over
an index tell whether there is any. 100,000 candidates take some 20 MB.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, func, select

from ..measurement import Measurement
from ..search.knowledge import Knowledge, recall_exactly
from ..store import Candidate, Evaluation, Job, Store
from ..task import Split

if TYPE_CHECKING:
    from ..search.surrogate import Fitted

FloatArray = NDArray[np.float64]
SPLITS: tuple[Split, ...] = ("validation", "holdout")
_KEPT = 8  # jobs of a store
_AT_ONCE = 500  # configurations in one IN
_FEW = 4000  # configurations that are asked for by name; more are read with their whole context
_QUALITY = ("value", "low", "high", "seconds", "samples")


class JobArrays:
    """Candidates of one job in the order of proposal; ``lock`` is held by whoever reads or refreshes.

    Args:
        job_id: whose.
        knowledge: space, prices and contexts of its search.

    Attributes:
        digests: of the candidates that fit the space [candidates].
        origins: who proposed them [candidates].
        choices: int16 array [candidates, sites].
        quality: by split: float64 array [candidates, 5] of value, low, high, seconds, samples; NaN where not measured.
        float_model: by split: what the float model has.
        proposed: rows of candidates in the store, the float model included.
        front: rows of the measured front, as ``job_front`` found it among the rows of ``judged``.
        judged: which candidates that front was sought among.
        shown: by row: configuration and prices as plain data, once they were asked for.
        fitted: the surrogate of the last answer to a budget, and the rows that it was fitted to.
    """

    def __init__(self, job_id: str, knowledge: Knowledge) -> None:
        self.job_id, self.knowledge, self.lock = job_id, knowledge, threading.RLock()
        self._clear()

    def _clear(self) -> None:
        sites = len(self.knowledge.space.sites)
        self.digests: list[str] = []
        self.origins: list[str] = []
        self.choices: NDArray[np.int16] = np.zeros((0, sites), dtype=np.int16)
        self.quality: dict[Split, FloatArray] = {split: np.zeros((0, len(_QUALITY))) for split in SPLITS}
        self.float_model: dict[Split, dict[str, Any]] = {}
        self.proposed = 0
        self.front: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.judged: NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self.shown: dict[int, dict[str, Any]] = {}
        self.fitted: tuple[list[int], Fitted] | None = None
        self._position = -1
        self._rows: dict[str, int] = {}
        self._counted: dict[Split, int] = dict.fromkeys(SPLITS, 0)
        self._totals: dict[str, FloatArray] = {}

    def refresh(self, store: Store) -> None:
        """Read what is new in the store."""
        self._read_candidates(store)
        for split in SPLITS:
            self._read_quality(store, split)

    def totals(self, metric: str) -> FloatArray:
        """A price of every candidate [candidates]."""
        known = self._totals.get(metric, np.zeros(0))
        if len(known) < len(self.digests):
            fresh = self.knowledge.prices[metric].totals(self.choices[len(known) :].astype(np.int64))
            known = self._totals[metric] = np.concatenate([known, fresh])
        return known

    def measured(self, split: Split = "validation") -> NDArray[np.bool_]:
        """Which candidates have a measurement of a whole split [candidates]."""
        found: NDArray[np.bool_] = ~np.isnan(self.quality[split][:, 0])
        return found

    def row(self, digest: str) -> int | None:
        """Where a configuration stands, if it is a candidate."""
        return self._rows.get(digest)

    def _read_candidates(self, store: Store) -> None:
        mine = Candidate.job_id == self.job_id
        with store.session() as session:
            count = session.scalar(select(func.count()).where(mine)) or 0
            if count == self.proposed:
                return
            columns = (Candidate.position, Candidate.configuration, Candidate.formats, Candidate.origin)
            query = select(*columns).order_by(Candidate.position, Candidate.configuration)
            rows = session.execute(query.where(mine, Candidate.position > self._position)).all()
            if self.proposed + len(rows) != count:  # two writers took one position, or some were removed: all anew
                self._clear()
                rows = session.execute(query.where(mine)).all()
        self.proposed += len(rows)
        self._position = max([self._position, *(row[0] for row in rows)])
        self._take([(digest, formats, origin) for _, digest, formats, origin in rows])
        self._counted = dict.fromkeys(SPLITS, 0)  # what was measured of them before is looked up

    def _take(self, rows: list[tuple[str, dict[str, str], str]]) -> None:
        space = self.knowledge.space
        column = {name: index for index, name in enumerate(space.formats)}
        names = set(space.names)
        fits = [row for row in rows if row[1].keys() == names and row[0] not in self._rows]
        pick = itemgetter(*space.names)
        chosen = [pick(formats) if len(names) > 1 else (pick(formats),) for _, formats, _ in fits]
        fresh = np.array([[column.get(name, -1) for name in each] for each in chosen], dtype=np.int16)
        fresh = fresh.reshape(len(fits), len(names))
        offered = np.flatnonzero((fresh >= 0).all(axis=1))
        fits = [fits[index] for index in offered]
        self.choices = np.concatenate([self.choices, fresh[offered]])
        for digest, _, origin in fits:
            self._rows[digest] = len(self.digests)
            self.digests.append(digest)
            self.origins.append(origin)
        empty = np.full((len(fits), len(_QUALITY)), np.nan)
        self.quality = {split: np.concatenate([known, empty]) for split, known in self.quality.items()}

    def _read_quality(self, store: Store, split: Split) -> None:
        """New measurements of a split; those of other jobs in the same context are passed over."""
        whole = (Evaluation.context == self.knowledge.contexts[split]) & (Evaluation.split == split)
        with store.session() as session:
            count = session.scalar(select(func.count()).where(whole)) or 0
            if count == self._counted[split]:
                return
            wanted = [self.digests[row] for row in np.flatnonzero(~self.measured(split))]
            self._counted[split] = count
            for where in _places(wanted):
                columns = (Evaluation.configuration, *(getattr(Evaluation, name) for name in _QUALITY))
                for digest, *values in session.execute(select(*columns).where(whole, where)):
                    row = self._rows.get(digest)
                    if row is not None:
                        self.quality[split][row] = values
            if split not in self.float_model:
                self._read_float(store, split)

    def _read_float(self, store: Store, split: Split) -> None:
        from ..search.problem import FLOAT

        found = measurements_of(store, self.knowledge.contexts[split], split, [FLOAT.digest])
        if FLOAT.digest in found:
            self.float_model[split] = told(found[FLOAT.digest])


def arrays_of(store: Store, job: Job) -> JobArrays | None:
    """The arrays of a job, up to date; ``None`` before its search has priced and scored."""
    knowledge = knowledge_of(store, job)
    if knowledge is None:
        return None
    with _LOCK:
        jobs = _CACHE.setdefault(store, OrderedDict())
        found = jobs.get(job.id)
        if found is None or found.knowledge is not knowledge:
            found = jobs[job.id] = JobArrays(job.id, knowledge)
        jobs.move_to_end(job.id)
        while len(jobs) > _KEPT:
            jobs.popitem(last=False)
    with found.lock:
        found.refresh(store)
    return found


def knowledge_of(store: Store, job: Job) -> Knowledge | None:
    """What the search of a job recorded; kept, since it never changes under its key."""
    key = job.record.get("search", {}).get("knowledge")
    if key is None:
        return None
    with _LOCK:
        known = _KNOWN.setdefault(store, OrderedDict())
        if key in known:
            known.move_to_end(key)
            return known[key]
    found = recall_exactly(store, key)
    if found is not None:
        with _LOCK:
            found = known.setdefault(key, found)
            while len(known) > _KEPT:
                known.popitem(last=False)
    return found


def measurements_of(store: Store, context: str, split: str, digests: Iterable[str]) -> dict[str, Measurement]:
    """Measurements of some configurations with all their samples, by digest."""
    found: dict[str, Measurement] = {}
    with store.session() as session:
        for where in _batches(list(digests)):
            query = select(Evaluation).where(Evaluation.context == context, Evaluation.split == split, where)
            for row in session.scalars(query):
                values = tuple(np.frombuffer(row.values, dtype="<f8").tolist())
                about = (row.metric, row.split, row.value, row.low, row.high, row.seconds, row.samples)
                found[row.configuration] = Measurement(*about, values)
    return found


def told(found: Measurement) -> dict[str, Any]:
    """A measurement as plain data, without its samples."""
    return {name: getattr(found, name) for name in _QUALITY}


def _places(wanted: list[str]) -> list[ColumnElement[bool]]:
    """Conditions that together cover some configurations: by name if they are few, else the whole context."""
    return _batches(wanted) if len(wanted) <= _FEW else [Evaluation.configuration != ""]


def _batches(wanted: list[str]) -> list[ColumnElement[bool]]:
    starts = range(0, len(wanted), _AT_ONCE)
    return [Evaluation.configuration.in_(wanted[start : start + _AT_ONCE]) for start in starts]


_LOCK = threading.Lock()
_CACHE: WeakKeyDictionary[Store, OrderedDict[str, JobArrays]] = WeakKeyDictionary()
_KNOWN: WeakKeyDictionary[Store, OrderedDict[str, Knowledge]] = WeakKeyDictionary()
