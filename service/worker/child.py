"""The process of one job: ``python -m bitfront.service.worker.child``, started by a worker.

It reads on standard input what to run and under which lease, so that neither its arguments nor its environment hold the
URL of the store. It writes only while the lease holds, tells its worker how it goes over a pipe, and dies with it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from ...errors import BitfrontError, InvalidInput, LeaseLost
from ...store import Artifacts, Events, Job, Queue
from ..errors_of_database import told, unreachable
from .event_progress import EventProgress
from .job_store import JobStore
from .order import Order
from .pipe import Ending, Outcome, Teller
from .redaction import redacted
from .stop_signal import StopSignal

_PR_SET_PDEATHSIG = 1
EXIT_CODES: dict[Ending, int] = {"succeeded": 0, "failed": 1, "unavailable": 1, "bad_input": 2, "stopped": 130}


def main() -> int:
    """Run the job that standard input names; the exit codes are those of the command line, 130 for stopped."""
    stop = StopSignal()
    stop.install()
    order = Order.from_json(sys.stdin.readline())
    die_with(order.parent)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    teller = Teller(int(sys.argv[1]))
    outcome = _outcome(order, teller, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    teller.outcome(Outcome(outcome.ending, redacted(" ".join(outcome.message.split()))))
    return EXIT_CODES[outcome.ending]


def _outcome(order: Order, teller: Teller, stop: StopSignal) -> Outcome:
    try:
        return Outcome("succeeded", run(order, teller, stop))
    except KeyboardInterrupt:
        return Outcome("stopped", "stopped; what was measured is kept")
    except LeaseLost as cause:
        return Outcome("stopped", str(cause))
    except InvalidInput as cause:
        return Outcome("bad_input", str(cause))
    except BitfrontError as cause:
        return Outcome("failed", str(cause))
    except Exception as cause:  # noqa: BLE001  (the last resort of a process: told, printed, counted as a failure)
        if unreachable(cause):
            return Outcome("unavailable", f"the database does not answer: {_line(cause)}")
        traceback.print_exc()
        where = traceback.extract_tb(cause.__traceback__)[-1]
        return Outcome(
            "failed", f"unexpected {type(cause).__name__} in {Path(where.filename).name}:{where.lineno}: {_line(cause)}"
        )


def run(order: Order, teller: Teller, stop: StopSignal) -> str:
    """Run the leased job and record its files.

    Returns:
        What it found, in one line.
    """
    from ..locations import is_url, writable_folder
    from .outputs import files_of

    store = _opened(order)
    asked = Queue(store).job(order.lease.job_id)
    out = asked.out or f"{order.outputs.rstrip('/')}/{asked.id}"
    out = out if is_url(out) else str(Path(out).resolve())
    files = []
    try:
        with writable_folder(out) as place:
            place.mkdir(parents=True, exist_ok=True)
            try:
                found = _run_in(order, asked, store, place, out, teller, stop)
                files = files_of(place, out)
            except BaseException:
                files = [file for file in files_of(place, out) if file.name == "run.log"]
                raise
    except BaseException:
        with suppress(LeaseLost, SQLAlchemyError):  # what went wrong before says more
            Artifacts(store).put(asked.id, files)
        raise
    Artifacts(store).put(asked.id, files)  # after an upload, so that all that is recorded is there
    return found


def _run_in(order: Order, asked: Job, store: JobStore, place: Path, out: str, teller: Teller, stop: StopSignal) -> str:
    """The job itself: a search, or the export of a point of one."""
    from .. import export_order
    from ..job import parse_job

    if export_order.KEY in asked.specification:
        import torch

        torch.set_num_threads(1)
        with EventProgress(Events(store), asked.id, teller, place / "run.log", 0) as progress:
            return export_order.carry_out(asked.specification, asked.name, store, place, progress)
    content = {key: value for key, value in asked.specification.items() if key != "folder"}
    job = parse_job(content, asked.name)  # before anything that takes long

    import torch

    from ...search import Executor
    from .. import record
    from ..run_job import run_job
    from .quarantine import had_deaths
    from .watched_executor import WatchedExecutor

    torch.set_num_threads(1)
    if order.ray_address is not None and job.workers.address is None:
        job = job.model_copy(update={"workers": job.workers.model_copy(update={"address": order.ray_address})})
    executor: str | Executor = order.executor
    if executor == "local":
        executor = WatchedExecutor(teller, stop, alone=had_deaths(store, asked.id))
    folder = Path(asked.specification.get("folder", "."))
    store.add_record(asked.id, record.of(job, folder, store))  # also of a job that never gets to measure
    with EventProgress(Events(store), asked.id, teller, place / "run.log", job.search.evaluations) as progress:
        store.watch = progress.evaluated
        _, document = run_job(job, folder, place, store=store, executor=executor, progress=progress, shown_as=out)
    return f"best {document['best']}: {document['best_reason']}"


def _opened(order: Order) -> JobStore:
    """The store; that it cannot be reached is no fault of the job's.

    Raises:
        SQLAlchemyError: the database does not answer.
    """
    try:
        return JobStore(order.store, order.lease)
    except InvalidInput as cause:
        if isinstance(cause.__cause__, SQLAlchemyError):
            raise cause.__cause__ from None
        raise


def _line(cause: BaseException) -> str:
    return told(cause) if isinstance(cause, SQLAlchemyError) else " ".join(str(cause).split())


def die_with(parent: int) -> None:
    """Be killed by the kernel when the worker dies, and at once if it already has."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
