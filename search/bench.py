"""A bench on purpose: configurations spread over random choices and sizes, measured to judge proxies by.

What a search measures lies on the fronts of the proxies themselves; a bench does not (``bench_draws``), so it is fair
to all. ``run_bench`` judges the proxies by it at once; ``bench_build`` keeps it, for the search for formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InvalidInput, UnsupportedModel
from ..evaluators import Calibration, Recipe, evaluation_context
from ..measurement import Measurement
from ..space import Configuration, SearchSpace
from ..store import Store
from ..task import Task
from .bench_draws import bench_configurations
from .executor import EvaluatorRecipe, Executor, LocalExecutor, Outcome, Rounds, Work
from .judged import judged
from .problem import FLOAT
from .progress import Progress, Silent
from .proxy_choice import ProxyChoice, choose_proxy
from .stages import calibrated, scores_of
from .stored_outcomes import keep
from .trust import TrustReport


@dataclass(frozen=True)
class Bench:
    """What was measured, and what it says of the proxies.

    Attributes:
        measurements: by configuration.
        failures: configurations that gave no finite output, with the reason.
        left_out: proxies that cannot score this model, with the reason.
        trust: the report.
        choice: what ``proxies: auto`` would decide from it; ``None`` without an additive proxy.
        float_quality: quality of the float model.
        fresh: how many were measured now; the store knew the others.
    """

    measurements: dict[Configuration, Measurement]
    failures: dict[Configuration, str]
    left_out: dict[str, str]
    trust: TrustReport
    choice: ProxyChoice | None
    float_quality: float
    fresh: int


def run_bench(
    task: Task,
    space: SearchSpace,
    proxies: Sequence[str],
    *,
    evaluations: int = 64,
    seed: int = 0,
    recipe: Recipe | None = None,
    store: Store | str | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    leave_out: bool = False,
) -> Bench:
    """Measure a bench and judge proxies by it.

    Args:
        task: model, data, metric; configurations are measured on its validation data.
        space: sites, formats, ties.
        proxies: names.
        evaluations: configurations of the bench.
        seed: of the bench, the proxies and the resamples.
        recipe: how weights are rounded and ranges chosen.
        store: a ``Store`` or its URL; what it knows is neither measured nor scored again.
        executor: who measures; default: this process.
        progress: who watches.
        leave_out: whether a proxy that cannot score this model is left out and named, instead of being an error.

    Returns:
        The bench.

    Raises:
        InvalidInput: too few evaluations, an unknown proxy, or nothing could be measured or scored.
        UnsupportedModel: a proxy cannot score this model.
    """
    if evaluations < 3:
        raise InvalidInput(f"evaluations={evaluations}; a rank correlation needs at least 3")
    watch, knowledge = progress or Silent(), store if isinstance(store, Store) else Store(store)
    chosen = recipe or Recipe()
    calibration = calibrated(task, space, chosen, knowledge, watch)
    sensitivities, left_out = scores_of(task, space, calibration, proxies, seed, knowledge, watch, leave_out)
    if not sensitivities:
        raise UnsupportedModel(f"no proxy can score this model: {next(iter(left_out.values()), 'none was asked for')}")
    configurations = bench_configurations(space, evaluations, seed)
    found = measured(task, space, calibration, chosen, configurations, knowledge, executor or LocalExecutor(), watch)
    values = [each.value for each in found.measurements.values()]
    known = list(found.measurements)
    trust = judged(space, sensitivities, known, values, float_quality=found.float_quality, seed=seed)
    additive = {name: scores for name, scores in sensitivities.items() if scores.additive}
    choice = choose_proxy(space, additive, known, values)[0] if additive else None
    return Bench(found.measurements, found.failures, left_out, trust, choice, found.float_quality, found.fresh)


@dataclass(frozen=True)
class Measured:
    """The measurements of a bench.

    Attributes:
        measurements: by configuration, in the order in which they were asked for.
        failures: configurations that gave no finite output, with the reason.
        float_quality: quality of the float model.
        fresh: how many were measured now; the store knew the others.
    """

    measurements: dict[Configuration, Measurement]
    failures: dict[Configuration, str]
    float_quality: float
    fresh: int


def measured(
    task: Task,
    space: SearchSpace,
    calibration: Calibration,
    recipe: Recipe,
    configurations: Sequence[Configuration],
    store: Store,
    executor: Executor,
    progress: Progress,
) -> Measured:
    """Measure configurations and the float model on validation data; each result is stored at once.

    Args:
        task: model, data, metric.
        space: sites and formats.
        calibration: scales and ranges.
        recipe: says whether batch-norm statistics are estimated again.
        configurations: what to measure; what the store knows is not measured again.
        store: where results are kept.
        executor: who measures.
        progress: who watches.

    Raises:
        InvalidInput: fewer than three could be measured, or the float model could not.
    """
    context = evaluation_context(task, calibration, "validation", reestimate_batch_norm=recipe.batch_norm)
    known = store.evaluations(context, "validation")
    asked = [FLOAT, *configurations]
    doomed = store.failures(context, "validation")
    failures = {each: doomed[each] for each in asked if each in doomed and each.digest not in known}
    missing = [Work(each) for each in asked if each.digest not in known and each not in failures]
    if len(missing) < len(asked):
        progress.note(f"bench: {len(asked) - len(missing)} of {len(asked)} already in the store")

    def commit(outcome: Outcome) -> None:
        each = outcome.work.configuration
        keep(store, context, outcome)
        if outcome.measurement is None:
            failures[each] = outcome.failure
        else:
            known[each.digest] = outcome.measurement
        advance(1)

    if missing:
        with progress.stage("evaluate the bench", len(missing)) as advance:
            executor.drive(_one_round(missing), EvaluatorRecipe(task, space, calibration, recipe.batch_norm), commit)
    found = {each: known[each.digest] for each in configurations if each.digest in known}
    if len(found) < 3 or FLOAT.digest not in known:
        reason = next(iter(failures.values()), "the space has too few configurations")
        raise InvalidInput(f"only {len(found)} configurations could be measured: {reason}")
    return Measured(found, failures, known[FLOAT.digest].value, len(missing))


def _one_round(works: list[Work]) -> Rounds:
    yield works
