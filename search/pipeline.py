"""``run``: the whole chain from a task to a measured front."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInput
from ..evaluators import CALIBRATION_VERSION, Calibration, calibrate, evaluation_context
from ..formats import Format
from ..hw_models import KernelRow, MeasuredTable, Prices, cost_models, planned, price
from ..measurement import Measurement
from ..proxies import Sensitivity, get_proxy
from ..space import SearchSpace
from ..store import Store
from ..task import SPLITS, Split, Task
from .executor import EvaluatorRecipe, Executor, LocalExecutor, Outcome
from .loop import FLOAT, Loop, numbered
from .problem import Problem, check_names
from .progress import Progress, Silent
from .result import Point, Result
from .surrogate import PowerLaw

if TYPE_CHECKING:
    from .executor import Rounds

ALWAYS_PRICED = ("size_mb", "avg_bits")


def run(
    task: Task,
    space: SearchSpace,
    *,
    device: str = "cpu",
    batch: int = 1,
    objectives: Sequence[str] = ("quality", "latency_ms"),
    constraints: Mapping[str, float] | None = None,
    evaluations: int = 32,
    seconds: float | None = None,
    seed: int = 0,
    executor: str | Executor = "ray",
    workers: int | None = None,
    proxies: Sequence[str] = ("hessian_trace", "weight_mse"),
    store: Store | str | None = None,
    progress: Progress | None = None,
    job: Mapping[str, Any] | None = None,
    out: str = "",
) -> Result:
    """Search: score, price, allocate exactly, really evaluate, validate on held-out data.

    Args:
        task: model, data, metric.
        space: sites, formats, ties.
        device: ``"cpu"`` (measured here) or a named device.
        batch: samples per forward pass that latency is priced for.
        objectives: ``"quality"`` and at least one price.
        constraints: price -> largest value allowed.
        evaluations: configurations to measure on the validation data, uniform ones included.
        seconds: stop measuring further candidates after this wall time.
        seed: of every random choice.
        executor: ``"ray"``, ``"local"``, or an executor of your own; all give the same front for the same seed.
        workers: for Ray; default one per CPU.
        proxies: which predict the loss. The first evaluations are shared between their fronts, later ones go to the
            proxy that has ranked what was measured best; the first is the one that reports show.
        store: a ``Store`` or its URL; default ``$BITFRONT_STORE`` or ``.bitfront/store.db``. What it knows is not
            measured again, so a killed search goes on where it was.
        progress: who watches.
        job: the job as written, for the record.
        out: output folder, for the record.

    Returns:
        The result: ``.front``, ``.best()``, ``.report``.

    Raises:
        InvalidInput: a name, number or input that cannot be used.
        InfeasibleBudget: constraints that no configuration meets; the message names the smallest that can be.
        NonFiniteOutput: the float model gives NaN or infinity.
    """
    limits = dict(constraints or {})
    check_names(objectives, limits, list(cost_models()))
    if evaluations < 1:
        raise InvalidInput(f"evaluations={evaluations}; it must be at least 1")
    chosen = _executor(executor, workers)
    knowledge = store if isinstance(store, Store) else Store(store)
    started = time.perf_counter()
    watch = _Watch(progress or Silent())
    job_id = knowledge.open_job(task.name, dict(job or {}), out)
    try:
        result = _search(
            task, space, device, batch, tuple(dict.fromkeys(objectives)), limits, evaluations, seed, chosen, proxies,
            knowledge, watch, dict(job or {}), job_id, None if seconds is None else started + seconds,
        )  # fmt: skip
    except KeyboardInterrupt:
        knowledge.set_job_state(job_id, "interrupted", "stopped from the keyboard; run it again to go on")
        raise
    except Exception as cause:
        knowledge.set_job_state(job_id, "failed", str(cause))
        raise
    knowledge.set_job_state(job_id, "succeeded")
    result.seconds["total"] = time.perf_counter() - started
    return result


@dataclass
class _Watch:
    """Progress with a clock for every stage."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def _search(
    task: Task,
    space: SearchSpace,
    device: str,
    batch: int,
    objectives: tuple[str, ...],
    constraints: dict[str, float],
    evaluations: int,
    seed: int,
    executor: Executor,
    proxies: Sequence[str],
    store: Store,
    watch: _Watch,
    job: dict[str, Any],
    job_id: str,
    deadline: float | None,
) -> Result:
    with watch.timed("calibrate"):
        calibration = calibrated(task, space, store, watch.progress)
    metrics = [name for name in dict.fromkeys([*objectives, *constraints, *ALWAYS_PRICED]) if name != "quality"]
    with watch.timed("price"):
        prices = priced(space, device, batch, metrics, store, watch.progress)
    sensitivities = {}
    for name in proxies:
        with watch.timed(f"score {name}"):
            sensitivities[name] = scored(task, space, calibration, name, seed, store, watch.progress)
    problem = Problem(space, sensitivities, prices, objectives, constraints)
    with watch.timed("allocate"):
        if constraints:
            problem.solve(next(iter(sensitivities)), constraints)  # refuse an impossible budget before any evaluation
    contexts: dict[Split, str] = {split: evaluation_context(task, calibration, split) for split in SPLITS[1:]}
    known = {
        (digest, split): found
        for split, context in contexts.items()
        for digest, found in store.evaluations(context, split).items()
    }
    loop = Loop(problem, evaluations, deadline, getattr(executor, "workers", 1), known, watch.progress)

    def commit(outcome: Outcome) -> None:
        if outcome.measurement is not None:
            work = outcome.work
            store.save_evaluation(contexts[work.split], work.configuration, outcome.measurement, outcome.worker)
        loop.advance(1)

    with watch.timed("evaluate"):
        executor.drive(_recorded(loop, store, job_id), EvaluatorRecipe(task, space, calibration), commit)
    return _result(task, loop, watch.seconds, job)


def _recorded(loop: Loop, store: Store, job_id: str) -> Rounds:
    """The rounds of a loop, each recorded as the candidates of a job before it is evaluated."""
    rounds = loop.rounds()
    first = next(iter(loop.problem.sensitivities.values()))
    try:
        work = next(rounds)
        while True:
            store.add_candidates(
                job_id,
                [
                    (found, origin, first.of(found) if found != FLOAT else None)
                    for found, origin in loop.proposals.items()
                ],
            )
            work = rounds.send((yield work))
    except StopIteration:
        return


def calibrated(task: Task, space: SearchSpace, store: Store, progress: Progress) -> Calibration:
    """Weight scales and activation ranges, from the store if weights, calibration data and space are the same."""
    content = ("calibration", CALIBRATION_VERSION, task.digest("calibration"), space.digest)
    key = hashlib.sha256(repr(content).encode()).hexdigest()[:32]
    stored = store.score(key)
    if stored is not None:
        progress.note("calibrate: already in the store")
        return Calibration.from_arrays(stored[0])
    started = time.perf_counter()
    with progress.stage("calibrate", _calibration_steps(task, space)) as advance:
        found = calibrate(task, space, advance)
    store.save_score(key, "calibration", found.to_arrays(), time.perf_counter() - started)
    return found


def priced(
    space: SearchSpace, device: str, batch: int, metrics: Sequence[str], store: Store, progress: Progress
) -> Prices:
    """Prices of a space; kernels that the store knows are not timed again, new ones are stored."""
    tables = [MeasuredTable(tuple(KernelRow(**row) for row in store.kernels(device)))]
    steps = planned(space, device, batch, metrics, tables)
    with progress.stage(f"measure latency on {device}", steps) as advance:
        prices = price(space, device, batch, metrics, tables, advance)
    if len(prices.measured):
        store.save_kernels([asdict(row) for row in prices.measured])
    return prices


def scored(
    task: Task, space: SearchSpace, calibration: Calibration, proxy: str, seed: int, store: Store, progress: Progress
) -> Sensitivity:
    """Scores of one proxy, from the store if everything that they depend on is the same."""
    chosen = get_proxy(proxy)
    content = "|".join(
        [proxy, repr(vars(chosen)), task.digest("calibration"), space.digest, calibration.digest, f"{seed}"]
    )
    key = hashlib.sha256(content.encode()).hexdigest()[:32]
    stored = store.score(key)
    if stored is not None:
        arrays, seconds = stored
        progress.note(f"score {proxy}: already in the store")
        error = arrays["error"] if arrays["error"].size else None
        forward, backward = (int(count) for count in arrays["passes"])
        return Sensitivity(
            proxy, arrays["values"], error, tuple(space.names), space.formats, seconds, forward, backward
        )
    with progress.stage(f"score {proxy}", chosen.steps(task, space)) as advance:
        found = chosen.score(task, space, calibration, seed=seed, advance=advance)
    arrays = {
        "values": found.values,
        "error": found.error if found.error is not None else np.zeros(0),
        "passes": np.array([found.forward_passes, found.backward_passes]),
    }
    store.save_score(key, proxy, arrays, found.seconds)
    return found


def _executor(asked: str | Executor, workers: int | None) -> Executor:
    if not isinstance(asked, str):
        return asked
    if asked == "local":
        return LocalExecutor()
    if asked == "ray":
        from .ray_executor import RayExecutor

        return RayExecutor(workers)
    raise InvalidInput(f"executor={asked!r}; choose 'ray' or 'local'")


def _calibration_steps(task: Task, space: SearchSpace) -> int:
    gathers = any(Format.parse(name).quantizes_activations for name in space.formats)
    return len(space.sites) + (len(task.calibration) if gathers else 0)


def _result(task: Task, loop: Loop, seconds: dict[str, float], job: dict[str, Any]) -> Result:
    """Put together what the loop measured."""
    problem, space = loop.problem, loop.problem.space
    measured = loop.measured()
    if not measured:
        reason = next(iter(loop.failures.values()), "nothing was measured")
        raise InvalidInput(f"no configuration could be evaluated: {reason}")
    price_name = problem.price_objectives[0]
    totals = {found: problem.prices.of(found) for found in measured}
    measured.sort(key=lambda found: (totals[found][price_name].value, found.digest))
    pareto = loop.pareto(measured)
    first = next(iter(problem.sensitivities.values()))
    scores = np.array([first.of(found) for found in measured])
    validation = {found: loop.known[found.digest, "validation"] for found in measured}
    float_model: dict[str, Measurement] = {split: loop.known[FLOAT.digest, split] for split in SPLITS[1:]}
    law = PowerLaw.fit(
        scores, np.array([validation[found].value for found in measured]), offset=float_model["validation"].value
    )
    uniforms = space.uniforms()
    baseline = {configuration: name for name, configuration in reversed(uniforms.items())}
    points = [
        Point(
            id=name,
            configuration=found,
            origin=loop.proposals[found],
            baseline=baseline.get(found),
            score=float(score),
            predicted=law.predict(float(score)) if law else None,
            validation=validation[found],
            holdout=loop.measurement(found, "holdout"),
            prices=totals[found],
            pareto=bool(on_front),
            feasible=loop.meets(found),
        )
        for name, found, score, on_front in zip(numbered(measured, uniforms), measured, scores, pareto, strict=True)
    ]
    return Result(problem, points, float_model, law, seconds, loop.failures, job, task.name, task.metric)
