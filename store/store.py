"""The store: what is known, by content digest. Everything here is committed before the call returns."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import numpy as np
from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, sessionmaker

from ..errors import InvalidInput
from ..measurement import Measurement
from ..space import Configuration
from .base import Base
from .database import default_url, open_engine, writing
from .failures import read_failures, write_failure
from .formulas import read_formulas, write_formulas
from .local_runs import local_run, taken_up
from .models import Candidate, Evaluation, Kernel, Score
from .queue_models import Job

_PATIENCE = timedelta(days=1)  # until what is not final is tried again
JOB_STATES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")


class Store:
    """Jobs, candidates, evaluations, failures, scores, formulas and measured kernels in one SQL database.

    Args:
        url: SQLAlchemy URL; ``$BITFRONT_STORE`` or ``sqlite:///.bitfront/store.db`` if not given.

    Raises:
        InvalidInput: the database cannot be opened.
    """

    def __init__(self, url: str | None = None) -> None:
        self.url = url or default_url()
        self._engine = open_engine(self.url)
        self._make_sessions()

    def _share(self, other: Store) -> None:
        """Use the connections of another store."""
        self.url, self._engine = other.url, other._engine
        self._make_sessions()

    def _make_sessions(self) -> None:
        self._sessions = sessionmaker(self._engine, expire_on_commit=False)
        self._writes = sessionmaker(writing(self._engine), expire_on_commit=False)

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def open_job(self, name: str, specification: Mapping[str, Any], out: str) -> str:
        """The id of a running job; an unfinished job with the same specification and output folder is taken up again.

        Args:
            name: shown to people.
            specification: the job as written.
            out: output folder.

        Returns:
            The job's id.
        """
        with self._writes.begin() as session:
            job = taken_up(session, name, specification, out)
            job.state, job.reason = "running", ""
            return job.id

    def running_job(self, name: str, specification: Mapping[str, Any], out: str) -> AbstractContextManager[str]:
        """A job that runs as long as the block and ends as the block does; it gives signs of life meanwhile.

        Args:
            name: shown to people.
            specification: the job as written.
            out: output folder.

        Returns:
            A context manager that yields the job's id.
        """
        return local_run(self, name, specification, out)

    def set_job_state(self, job_id: str, state: str, reason: str = "") -> None:
        """Record how a job stands.

        Raises:
            InvalidInput: no such job or no such state.
        """
        if state not in JOB_STATES:
            raise InvalidInput(f"unknown job state {state!r}; known: {', '.join(JOB_STATES)}")
        with self._writes.begin() as session:
            job = session.get(Job, job_id)
            if job is None:
                raise InvalidInput(f"no job {job_id!r} in {self.url}")
            job.state, job.reason = state, reason

    def add_record(self, job_id: str, record: Mapping[str, Any]) -> None:
        """Keep what it takes to run a job again; keys that are there are replaced.

        Args:
            job_id: whose.
            record: plain data, merged into what is recorded.

        Raises:
            InvalidInput: no such job.
        """
        with self._writes.begin() as session:
            job = session.get(Job, job_id)
            if job is None:
                raise InvalidInput(f"no job {job_id!r} in {self.url}")
            job.record = {**(job.record or {}), **record}

    def jobs(self) -> list[Job]:
        """All jobs, newest first."""
        with self._sessions() as session:
            return list(session.scalars(select(Job).order_by(Job.created_at.desc(), Job.id)))

    # -- candidates ---------------------------------------------------------------------------------------------------

    def add_candidates(self, job_id: str, candidates: Iterable[tuple[Configuration, str, float | None]]) -> None:
        """Record what a job proposed: configuration, origin, predicted loss. Known ones stay as they are."""
        rows = [
            {
                "job_id": job_id,
                "configuration": configuration.digest,
                "formats": configuration.to_dict(),
                "origin": origin,
                "predicted": predicted,
            }
            for configuration, origin, predicted in candidates
        ]
        if not rows:
            return
        with self._writes.begin() as session:
            newest = session.scalar(select(func.max(Candidate.position)).where(Candidate.job_id == job_id)) or 0
            numbered = [{**row, "position": newest + number} for number, row in enumerate(rows, start=1)]
            session.execute(self._insert(Candidate).on_conflict_do_nothing(), numbered)

    def candidates(self, job_id: str) -> list[Candidate]:
        """What a job proposed, in order."""
        with self._sessions() as session:
            query = select(Candidate).where(Candidate.job_id == job_id)
            return list(session.scalars(query.order_by(Candidate.position, Candidate.configuration)))

    # -- evaluations --------------------------------------------------------------------------------------------------

    def save_evaluation(
        self, context: str, configuration: Configuration, measurement: Measurement, worker: str = ""
    ) -> None:
        """Commit one measured quality. The first result of a (context, configuration, split) stays."""
        row = {
            "context": context,
            "configuration": configuration.digest,
            "split": measurement.split,
            "metric": measurement.metric,
            "value": measurement.value,
            "low": measurement.low,
            "high": measurement.high,
            "seconds": measurement.seconds,
            "samples": measurement.samples,
            "values": np.asarray(measurement.values, dtype="<f8").tobytes(),
            "formats": configuration.to_dict(),
            "worker": worker,
        }
        self._insert_missing(Evaluation, [row])

    def evaluations(self, context: str, split: str) -> dict[str, Measurement]:
        """All measurements of a context and split by configuration digest."""
        with self._sessions() as session:
            query = select(Evaluation).where(Evaluation.context == context, Evaluation.split == split)
            return {
                row.configuration: Measurement(
                    row.metric, row.split, row.value, row.low, row.high, row.seconds, row.samples,
                    tuple(np.frombuffer(row.values, dtype="<f8").tolist()),
                )
                for row in session.scalars(query)
            }  # fmt: skip

    def save_failure(
        self, context: str, configuration: Configuration, split: str, reason: str, *, final: bool, worker: str = ""
    ) -> None:
        """Commit that a configuration could not be measured; a later failure of the same replaces it.

        Args:
            context: as for ``save_evaluation``.
            configuration: which.
            split: on which whole split it was to be measured, or on a part of it.
            reason: one line.
            final: whether it fails whenever it is tried (an output that is not finite), or was given up (its workers
                died, which may have had another cause).
            worker: who found out.
        """
        with self._writes.begin() as session:
            write_failure(session, context, configuration, split, reason, final=final, worker=worker)

    def failures(self, context: str, split: str, patience: timedelta = _PATIENCE) -> dict[Configuration, str]:
        """The configurations that are not to be tried now, with the reason, by digest.

        Args:
            context: as for ``evaluations``.
            split: of which whole split.
            patience: how long what is not final counts after it was tried last.
        """
        with self._sessions() as session:
            return read_failures(session, context, split, patience)

    # -- scores -------------------------------------------------------------------------------------------------------

    def save_score(self, key: str, proxy: str, arrays: Mapping[str, np.ndarray], seconds: float) -> None:
        """Commit the arrays of a proxy under the digest of everything that they depend on."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        row = {"key": key, "proxy": proxy, "payload": buffer.getvalue(), "seconds": seconds}
        self._insert_missing(Score, [row])

    def score(self, key: str) -> tuple[dict[str, np.ndarray], float] | None:
        """Arrays and seconds stored under a key, or ``None``."""
        with self._sessions() as session:
            row = session.get(Score, key)
        if row is None:
            return None
        with np.load(io.BytesIO(row.payload), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}, row.seconds

    # -- formulas -----------------------------------------------------------------------------------------------------

    def save_formulas(self, context: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Commit scored formulas; one that was only screened so far is completed, a complete one stays.

        Args:
            context: digest of everything that the fitness depends on.
            rows: digest, expression, size, signature, fitness (or ``None``), details, reason, seconds.
        """
        with self._writes.begin() as session:
            write_formulas(session, context, rows)

    def formulas(self, context: str) -> list[dict[str, Any]]:
        """All formulas of a context, by digest, with the columns of ``save_formulas``."""
        with self._sessions() as session:
            return read_formulas(session, context)

    # -- kernels ------------------------------------------------------------------------------------------------------

    def save_kernels(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Commit measured kernels, each a JSON object with at least ``digest`` and ``device``; newer replace older."""
        with self._writes.begin() as session:
            digests = [row["digest"] for row in rows]
            session.execute(delete(Kernel).where(Kernel.digest.in_(digests)))
            session.add_all(Kernel(digest=row["digest"], device=row["device"], row=dict(row)) for row in rows)

    def kernels(self, device: str) -> list[dict[str, Any]]:
        """All measured kernels of a device."""
        with self._sessions() as session:
            return list(session.scalars(select(Kernel.row).where(Kernel.device == device)))

    def _insert_missing(self, model: type[Base], rows: list[dict[str, Any]]) -> None:
        """Insert rows whose primary key is new."""
        if not rows:
            return
        with self._writes.begin() as session:
            session.execute(self._insert(model).on_conflict_do_nothing(), rows)

    def _insert(self, model: type[Base]) -> Any:
        """An INSERT of the database's dialect, which can be told what to do with a key that is there."""
        dialect: Any = sqlite if self._engine.dialect.name == "sqlite" else postgresql
        return dialect.insert(model)

    def session(self) -> Session:
        """A read session, for pages that query more than the methods here give."""
        return self._sessions()

    def writing(self) -> AbstractContextManager[Session]:
        """A session in one transaction that is committed at the end of the block, or not at all."""
        return self._writes.begin()
