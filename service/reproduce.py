"""Running a job again from its record, in a store of its own, and comparing what comes out.

What was measured of the hardware (kernels, whole models) is an input of a search, not a result: it is taken over, so
that the second run sees the prices of the first. Everything else is computed anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from ..errors import Conflict, InvalidInput
from ..search import Executor, Progress, Silent
from ..search.knowledge import Knowledge, recall_exactly
from ..store import Artifacts, Job, Queue, Score, Store
from . import record
from .compare_runs import Found, Reproduction, changes, compare, found_of
from .job import parse_job
from .joint_front import found_by, is_joint
from .locations import UPLOAD, is_upload
from .run_job import run_job

__all__ = ["Reproduction", "reproduce"]
_TIMED = "price whole models"  # label under which ``search.whole_model`` keeps what it timed


def reproduce(
    job_id: str,
    store: Store,
    out: Path,
    *,
    executor: str | Executor = "local",
    tolerance: float = 0.0,
    progress: Progress | None = None,
) -> Reproduction:
    """Run a job again and compare.

    Versions and inputs that differ from the record are told first, through ``progress.note``.

    Args:
        job_id: a job of the store that is not running; of one that did not finish, what it measured is compared.
        store: where it is.
        out: folder of the second run, with a store of its own in ``store.db``; there is none in it yet.
        executor: as for ``run_job``; all executors give the same.
        tolerance: relative difference of two measurements that does not count.
        progress: who watches.

    Returns:
        What changed, every measurement of both runs, front and best, and the verdict.

    Raises:
        NotFound: no such job.
        Conflict: it is running, or has measured nothing.
        InvalidInput: there is a store in ``out``, an input is missing, or a search of architectures left no
            ``front.json`` to compare with.
        BitfrontError: the second run failed.
    """
    job = Queue(store).job(job_id)
    then = _found(store, job)
    if (out / "store.db").exists():
        raise InvalidInput(f"{out} holds a store already; give a new folder")
    content = dict(job.specification)
    folder = Path(content.pop("folder", "."))
    asked = parse_job(_with_files(content, store), f"job {job_id}")
    watch = progress or Silent()
    out.mkdir(parents=True, exist_ok=True)
    fresh = Store(f"sqlite:///{(out / 'store.db').resolve()}")
    try:
        with _threads(job.record):
            now = record.of(asked, folder, fresh)
            before = {key: value for key, value in job.record.items() if key not in ("search", "joint")}
            for change in changes(before, _comparable(now, before)):
                watch.note(f"changed since: {change.what}: {change.then} then, {change.now} now")
            _take_over(store, fresh, asked.device.name)
            run_job(asked, folder, out, store=fresh, executor=executor, progress=watch)
        again = fresh.jobs()[0]
        found = _found(fresh, again)
        pairs, verdict = compare(then, found, tolerance)
        told = changes(job.record, _comparable(again.record, job.record))
        return Reproduction(job_id, told, tuple(pairs), then, found, verdict, str(out))
    finally:
        fresh.close()


def _found(store: Store, job: Job) -> Found:
    return found_by(store, job) if is_joint(job) else found_of(store, job.id, _knowledge(store, job))


def _knowledge(store: Store, job: Job) -> Knowledge:
    if job.state == "running":
        raise Conflict(f"job {job.id} is running; wait until it has ended, or pause it")
    key = job.record.get("search", {}).get("knowledge")
    found = None if key is None else recall_exactly(store, key)
    if found is None:
        raise Conflict(f"job {job.id} is {job.state} and has measured nothing that could be compared; run it first")
    return found


def _comparable(now: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """A new record in the terms of an older one: the job as written may name uploads that are files by now."""
    return {**now, "specification": then.get("specification")}


def _take_over(store: Store, fresh: Store, device: str) -> None:
    """Copy what was measured of the hardware."""
    if kernels := store.kernels(device):
        fresh.save_kernels(kernels)
    with store.session() as session:
        keys = list(session.scalars(select(Score.key).where(Score.proxy == _TIMED)))
    for key in keys:
        known = store.score(key)
        if known is not None:
            fresh.save_score(key, _TIMED, *known)


def _with_files(content: Any, store: Store) -> Any:
    """The job with files in place of uploads."""
    if isinstance(content, Mapping):
        return {key: _with_files(value, store) for key, value in content.items()}
    if isinstance(content, list):
        return [_with_files(value, store) for value in content]
    if isinstance(content, str) and is_upload(content):
        return Artifacts(store).upload(content.removeprefix(UPLOAD)).location
    return content


@contextmanager
def _threads(recorded: Mapping[str, Any]) -> Iterator[None]:
    """As many threads of torch as then: sums depend on how they are split."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(recorded.get("threads", {}).get("torch", before))
    try:
        yield
    finally:
        torch.set_num_threads(before)
