"""The process of one job: ``python -m bitfront.service.worker.child``, started by a worker.

It reads on standard input what to run and under which lease, so that neither its arguments nor its environment hold the
URL of the store. It writes only while the lease holds, tells its worker how it goes over a pipe, and dies with it.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import traceback
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import BitfrontError, InvalidInput, LeaseLost
from ...store import Events, Lease, LeasedStore, Queue
from .event_progress import EventProgress
from .pipe import Outcome, Teller

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Order:
    """What a worker asks of the process.

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


def main() -> int:
    """Run the job that standard input names; the exit code is 0 unless the process could not even start."""
    order = Order.from_json(sys.stdin.readline())
    _die_with(order.parent)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    teller = Teller(int(sys.argv[1]))
    try:
        outcome = Outcome("succeeded", run(order, teller))
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        outcome = Outcome("stopped", "stopped; what was measured is kept")
    except LeaseLost as cause:
        outcome = Outcome("stopped", str(cause))
    except InvalidInput as cause:
        outcome = Outcome("bad_input", " ".join(str(cause).split()))
    except BitfrontError as cause:
        outcome = Outcome("failed", " ".join(str(cause).split()))
    except Exception as cause:  # noqa: BLE001  (the last resort of a process: told, printed, counted as a failure)
        traceback.print_exc()
        where = traceback.extract_tb(cause.__traceback__)[-1]
        line = f"unexpected {type(cause).__name__} in {Path(where.filename).name}:{where.lineno}"
        outcome = Outcome("failed", f"{line}: {' '.join(str(cause).split())}")
    teller.outcome(outcome)
    return 0


def run(order: Order, teller: Teller) -> str:
    """Run the leased job and record its files.

    Returns:
        What it found, in one line.
    """
    import torch

    from ..job import parse_job
    from ..locations import writable_folder
    from ..run_job import run_job
    from .outputs import record_outputs

    torch.set_num_threads(1)
    store = LeasedStore(order.store, order.lease)
    asked = Queue(store).job(order.lease.job_id)
    content = {key: value for key, value in asked.specification.items() if key != "folder"}
    job = parse_job(content, asked.name)
    if order.ray_address is not None and job.workers.address is None:
        job = job.model_copy(update={"workers": job.workers.model_copy(update={"address": order.ray_address})})
    out = asked.out or f"{order.outputs.rstrip('/')}/{asked.id}"
    with writable_folder(out) as place:
        place.mkdir(parents=True, exist_ok=True)
        progress = EventProgress(Events(store), asked.id, teller, place / "run.log")
        _, document = run_job(
            job,
            Path(asked.specification.get("folder", ".")),
            place,
            store=store,
            executor=order.executor,
            progress=progress,
            shown_as=out,
        )
        record_outputs(store, asked.id, place, out)
    return f"best {document['best']}: {document['best_reason']}"


def _die_with(parent: int) -> None:
    """Be killed by the kernel when the worker dies, and at once if it already has."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
