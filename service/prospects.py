"""Whether a job can ever run: names that are known, kernels that exist, GPUs that some worker has, budgets in reach."""

from __future__ import annotations

import difflib
import math

from ..errors import InfeasibleBudget, InvalidInput, NotMeasured
from ..formats import Format
from ..store import Artifacts, Store, Workers
from .job import Job
from .settings import Settings

_SEEN_WITHIN = 30 * 86_400.0  # seconds; a worker that was not seen for longer does not count
_BITS = ("avg_bits", "effective_bits")


def check_prospects(job: Job, settings: Settings, store: Store) -> None:
    """Refuse a job that could never run, with the reason.

    Raises:
        InvalidInput: a name is not known, or no worker has what it asks for.
        NotMeasured: a format has no kernel on the device whose latency is asked for.
        InfeasibleBudget: no configuration can meet a constraint.
    """
    from ..exporters.registry import get as get_exporter
    from ..hw_models import cost_models
    from ..search.problem import check_names

    known = list(cost_models())
    check_names(job.objectives, job.constraints, known)
    for name in job.search.stop.target:
        if name not in ("quality", *known):
            raise InvalidInput(f"search.stop.target: unknown {name!r}; known: quality, {', '.join(known)}")
    _check_proxies(job)
    if job.export is not None:
        get_exporter(job.export.target)
    _check_device(job, store)
    _check_machines(job, settings, store)
    _check_constraints(job)


def gpus_of(job: Job) -> int:
    """GPUs that the worker of a job must have."""
    return math.ceil((job.workers.gpus or 0) * (job.workers.count or 1))


def missing_tables(job: Job, store: Store) -> list[str]:
    """The devices that the job requires measured tables of which there are none yet."""
    name = job.device.name
    if job.device.tables != "required" or name == "cpu" or _sent(name, store):
        return []
    from ..hw_models.tables import answering

    try:
        answering(name, job.device.runtime)
    except NotMeasured:
        return [name]
    return []


def _sent(device: str, store: Store) -> bool:
    return any(device in each.details.get("devices", ()) for each in Artifacts(store).uploads("table"))


def _check_proxies(job: Job) -> None:
    from ..proxies import proxies

    known = proxies()
    for name in () if job.proxies == "auto" else job.proxies:
        if name not in known and not name.startswith("formula:"):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise InvalidInput(f"proxies: unknown {name!r}; did you mean {near!r}? (`bitfront proxies` lists all)")


def _check_device(job: Job, store: Store) -> None:
    """The device is known, and has kernels for every format if its latency is asked for."""
    from ..hw_models.devices import device
    from ..hw_models.gpu import has_tables
    from ..hw_models.latency import ROOFLINE
    from ..hw_models.roofline import compute_type
    from ..hw_models.tables import answering, required_kernel

    name, runtime = job.device.name, job.device.runtime
    if name == "cpu":
        if runtime is not None or job.device.tables == "required":
            raise InvalidInput("device: the cpu is measured where the job runs; leave out runtime and tables")
        return
    known = device(name)
    if "latency_ms" not in (*job.objectives, *job.constraints, *job.search.stop.target):
        return
    if runtime == ROOFLINE and job.device.tables == "required":
        raise InvalidInput("device: runtime roofline is the data sheet; leave it out where tables are required")
    if missing_tables(job, store) or _sent(name, store):
        return  # what the tables will hold, or those of users on the worker, is known when it runs
    if runtime == ROOFLINE or (runtime is None and not has_tables(name)):
        for each in job.space.formats:
            compute_type(Format.parse(each), known)
        return
    measured = answering(name, runtime)
    for each in job.space.formats:
        required_kernel(each, name, measured)


def _check_machines(job: Job, settings: Settings, store: Store) -> None:
    """Some worker has the GPUs and, where jobs run on one machine, the CPUs that are asked for."""
    seen = [each.capabilities for each in Workers(store).alive(_SEEN_WITHIN)]
    wanted = gpus_of(job)
    most = max([settings.gpus, *(int(each.get("gpus") or 0) for each in seen)])
    if wanted > most:
        raise InvalidInput(
            f"workers.gpus: the job needs {wanted} GPUs, and no worker of this service has more than {most}; ask for "
            "fewer"
        )
    cpus = [int(each["cpus"]) for each in seen if each.get("cpus")]
    if cpus and settings.ray_address is None and job.workers.cpus > max(cpus):
        raise InvalidInput(
            f"workers.cpus: {job.workers.cpus:g} for each, and no worker of this service has more than {max(cpus)}"
        )


def _check_constraints(job: Job) -> None:
    """Constraints that the fewest bits on offer already exceed."""
    from .. import zoo

    fewest = min(Format.parse(each).weight_bits for each in job.space.formats)
    for name in _BITS:
        limit = job.constraints.get(name)
        if limit is not None and limit < fewest:
            raise InfeasibleBudget(
                f"constraint {name}: {limit:g} cannot be met, the fewest bits on offer are {fewest:g}; raise it or "
                "offer narrower formats"
            )
    limit = job.constraints.get("size_mb")
    if limit is not None and job.model.zoo is not None and not job.space.exclude and job.space.architecture is None:
        least = zoo.describe(job.model.zoo).parameters * min(fewest, 32) / 8e6
        if limit < least:
            raise InfeasibleBudget(
                f"constraint size_mb: {limit:g} cannot be met; {job.model.zoo} with all its weights in {fewest:g} bits "
                f"has {least:.3g} MB; raise it or offer narrower formats"
            )
