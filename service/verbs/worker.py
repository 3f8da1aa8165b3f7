"""The verb ``worker``: runs jobs of a shared store, on this machine or another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..options import Json, StoreUrl
from .service_options import Config, Executor, Gpus, JobsAtATime, Outputs, RayAddress, settings_of

if TYPE_CHECKING:
    from ..worker import JobWorker


def worker_command(
    store: StoreUrl = None,
    outputs: Outputs = None,
    jobs: JobsAtATime = None,
    gpus: Gpus = None,
    executor: Executor = None,
    ray_address: RayAddress = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Run jobs from the queue of a store, until Ctrl-C or SIGTERM.

    The signal drains: no new jobs, those that run are given back with all that was measured. A second Ctrl-C ends at
    once; the queue then notices when the lease has run out. On several machines the store is a PostgreSQL and the
    outputs are a folder that all see, or a URL.

        bitfront worker

        bitfront worker --store postgresql+psycopg://bitfront@db/bitfront --outputs s3://bucket/jobs --gpus 1
    """
    import sys

    from ..worker.redaction import redacted
    from .printing import print_json
    from .worker_process import run_worker

    settings = settings_of(
        config,
        store=store,
        outputs=outputs,
        jobs_at_a_time=jobs,
        gpus=gpus,
        executor=executor,
        ray_address=ray_address,
    )

    def ready(worker: JobWorker) -> None:
        if as_json:
            print_json({"id": worker.id, **worker.capabilities()})
        else:
            sys.stderr.write(f"bitfront worker: {worker.id} waits for jobs in {redacted(settings.store)}\n")

    run_worker(settings, ready)
    sys.stderr.write("bitfront worker: drained\n")
