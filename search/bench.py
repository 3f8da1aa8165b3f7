r"""A bench on purpose: configurations spread over random choices and sizes, measured to judge proxies by.

What a search measures lies on the fronts of the proxies themselves; a bench does not, so it is fair to all. Half of
its configurations choose a format for every site (for every tie) at random, each with the same chance; they crowd
around one size. The other half is stratified by size: a target between the smallest and the largest size is drawn, and
formats are drawn from

.. math:: p(f \mid l) \propto \exp(-\lambda\, u_{lf}), \qquad u_{lf} \in [0, 1] \text{ the size of format f in tie l}

with :math:`\lambda` such that the total meets the target. The draw is :math:`\arg\max_f (G_{lf} - \lambda u_{lf})`
with Gumbel noise G, whose size falls as :math:`\lambda` rises, so :math:`\lambda` is found by bisection. The targets
are a low-discrepancy sequence, so the first n of a larger bench are the bench of n: raising the number measures only
the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidInput, UnsupportedModel
from ..evaluators import Calibration, Recipe, evaluation_context
from ..hw_models import price
from ..measurement import Measurement
from ..space import Configuration, SearchSpace
from ..store import Store
from ..task import Task
from .executor import EvaluatorRecipe, Executor, LocalExecutor, Outcome, Rounds, Work
from .groups import Groups
from .judged import judged
from .progress import Progress, Silent
from .proxy_choice import ProxyChoice, choose_proxy
from .rank_statistics import FloatArray
from .stages import calibrated, scores_of
from .trust import TrustReport

FLOAT = Configuration(())
_STEPS = 60  # of the bisection
_STEEPEST = 200.0  # |lambda| at which the noise no longer matters
_ATTEMPTS = 20  # draws of a configuration that is not there yet


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


def bench_configurations(space: SearchSpace, count: int, seed: int = 0) -> list[Configuration]:
    """The configurations of a bench, all different.

    Args:
        space: sites, formats, ties.
        count: how many; fewer come back when the space has too few.
        seed: of every draw.

    Returns:
        Random ones (even places) and those at size targets (odd places); a larger bench begins with a smaller one.
    """
    groups = Groups.of(space)
    sizes = _sizes(space, groups)
    found: dict[Configuration, None] = {}
    index = 0
    while len(found) < count and index < count * _ATTEMPTS:
        generator = np.random.default_rng([seed, index])
        noise = generator.gumbel(size=sizes.shape)
        target = _van_der_corput(index // 2 + 1) if index % 2 else None
        found.setdefault(space.configuration(groups.expand(_drawn(sizes, noise, target))))
        index += 1
    return list(found)


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
    known, failures, fresh = _measured(
        task, space, calibration, chosen, [FLOAT, *configurations], knowledge, executor or LocalExecutor(), watch
    )
    measurements = {each: known[each.digest] for each in configurations if each.digest in known}
    if len(measurements) < 3 or FLOAT.digest not in known:
        reason = next(iter(failures.values()), "the space has too few configurations")
        raise InvalidInput(f"only {len(measurements)} configurations could be measured: {reason}")
    values, float_quality = [found.value for found in measurements.values()], known[FLOAT.digest].value
    trust = judged(space, sensitivities, list(measurements), values, float_quality=float_quality, seed=seed)
    additive = {name: scores for name, scores in sensitivities.items() if scores.additive}
    choice = choose_proxy(space, additive, list(measurements), values)[0] if additive else None
    return Bench(measurements, failures, left_out, trust, choice, float_quality, fresh)


def _measured(
    task: Task,
    space: SearchSpace,
    calibration: Calibration,
    recipe: Recipe,
    configurations: Sequence[Configuration],
    store: Store,
    executor: Executor,
    progress: Progress,
) -> tuple[dict[str, Measurement], dict[Configuration, str], int]:
    """Measurements by digest, failures with their reason, and how many were measured now; each is stored at once."""
    context = evaluation_context(task, calibration, "validation", reestimate_batch_norm=recipe.batch_norm)
    known = store.evaluations(context, "validation")
    missing = [Work(each) for each in configurations if each.digest not in known]
    failures: dict[Configuration, str] = {}
    if len(missing) < len(configurations):
        progress.note(f"bench: {len(configurations) - len(missing)} of {len(configurations)} already in the store")
    if not missing:
        return known, failures, 0
    with progress.stage("evaluate the bench", len(missing)) as advance:

        def commit(outcome: Outcome) -> None:
            each = outcome.work.configuration
            if outcome.measurement is None:
                failures[each] = outcome.failure
            else:
                store.save_evaluation(context, each, outcome.measurement, outcome.worker)
                known[each.digest] = outcome.measurement
            advance(1)

        executor.drive(_one_round(missing), EvaluatorRecipe(task, space, calibration, recipe.batch_norm), commit)
    return known, failures, len(missing)


def _one_round(works: list[Work]) -> Rounds:
    yield works


def _sizes(space: SearchSpace, groups: Groups) -> FloatArray:
    """Size of every group in every format: [groups, formats], infinite where not offered."""
    sizes = groups.sums(price(space, metrics=("size_mb",))["size_mb"].values)
    return np.where(groups.allowed, sizes, np.inf)


def _drawn(sizes: FloatArray, noise: FloatArray, target: float | None) -> np.ndarray:
    """Column of every group; ``target`` is a share of the way from the smallest to the largest total."""
    finite = np.where(np.isfinite(sizes), sizes, np.nan)
    low, high = np.nanmin(finite, axis=1), np.nanmax(finite, axis=1)
    extent = np.where(high > low, high - low, 1.0)[:, None]
    relative = np.where(np.isfinite(sizes), (sizes - low[:, None]) / extent, np.inf)
    offered = np.where(np.isfinite(sizes), noise, -np.inf)

    def draw(slope: float) -> np.ndarray:
        columns: np.ndarray = np.argmax(offered - slope * np.where(np.isfinite(relative), relative, 0.0), axis=1)
        return columns

    if target is None:
        return draw(0.0)
    wanted = low.sum() + target * (high.sum() - low.sum())
    flat, steep = -_STEEPEST, _STEEPEST
    for _ in range(_STEPS):
        middle = (flat + steep) / 2
        if sizes[np.arange(len(sizes)), draw(middle)].sum() > wanted:
            flat = middle
        else:
            steep = middle
    return draw(steep)


def _van_der_corput(index: int) -> float:
    """The low-discrepancy sequence in base 2: 1/2, 1/4, 3/4, 1/8, …"""
    share, scale = 0.0, 0.5
    while index:
        share, scale, index = share + scale * (index & 1), scale / 2, index >> 1
    return share
