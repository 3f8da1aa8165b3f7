"""``bitfront proxies JOB``: the trust report of proxies on a bench made on purpose."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import InvalidInput
from ..proxies import proxies as known_proxies
from ..search import Progress, Silent, run_bench
from ..search.proxy_choice import AUTO
from .job import Job
from .run_job import executor_of, load


def asked(job: Job, given: str | None) -> tuple[list[str], bool]:
    """The proxies that are judged, and whether one that cannot score the model is left out.

    Args:
        job: its own proxies are the default.
        given: names with commas between them, ``all`` or ``auto``.

    Raises:
        InvalidInput: no name is given.
    """
    if given == "all":
        return list(known_proxies()), True
    if given == "auto" or (given is None and job.proxies == "auto"):
        return list(AUTO), True
    names = list(job.proxies) if given is None else separated(given)
    if not names:
        raise InvalidInput("--proxies names no proxy; write --proxies hessian_trace,weight_mse, or all, or auto")
    return names, False


def separated(given: str) -> list[str]:
    """Names with commas between them; a comma in parentheses belongs to a formula."""
    names, depth = [""], 0
    for letter in given:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            names.append("")
        else:
            names[-1] += letter
    return [name.strip() for name in names if name.strip()]


def bench_job(
    job: Job,
    folder: Path,
    *,
    proxies: str | None = None,
    evaluations: int = 64,
    store: str | None = None,
    executor: str = "local",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a bench for a job and judge proxies by it.

    Args:
        job: model, data, space, metric and quantization.
        folder: where the job's relative paths start.
        proxies: names with commas between them, ``all`` or ``auto``; default: those of the job.
        evaluations: configurations of the bench.
        store: URL of the store; what it knows is not measured again.
        executor: ``"local"`` or ``"ray"``.
        progress: who watches.

    Returns:
        Plain data: name, metric, ``trust`` as in ``front.json``, what was left out, what failed, how many were
        measured now.

    Raises:
        BitfrontError: see ``search.run_bench``.
    """
    watch = progress or Silent()
    names, leave_out = asked(job, proxies)
    unknown = [name for name in names if name not in known_proxies() and not name.startswith("formula:")]
    if unknown:  # before the model is loaded
        raise InvalidInput(f"unknown proxy {unknown[0]!r}; known: {', '.join(sorted(known_proxies()))}, all, auto")
    made = load(job, folder, watch)
    found = run_bench(
        made.task,
        made.space,
        names,
        evaluations=evaluations,
        seed=job.search.seed,
        recipe=job.quantization.recipe,
        store=store,
        executor=executor_of(executor, job),
        progress=watch,
        leave_out=leave_out,
    )
    choice = {**asdict(found.choice), "reason": found.choice.reason} if found.choice else None
    return {
        "name": job.title,
        "metric": made.task.metric,
        "measured": len(found.measurements),
        "measured_now": found.fresh,
        "float_quality": found.float_quality,
        "trust": {**found.trust.to_dict(), "choice": choice},
        "left_out": found.left_out,
        "failed": {configuration.digest: reason for configuration, reason in found.failures.items()},
    }
