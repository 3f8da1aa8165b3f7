"""Building a bench that is kept: configurations drawn and measured, and the statistics that formulas are built from."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from ..errors import InvalidInput
from ..evaluators import Calibration, Recipe, evaluation_context
from ..hw_models import price
from ..proxies.formulas import SiteStatistics
from ..proxies.formulas.collect import INPUTS, Collected, collect_steps, collected
from ..space import SearchSpace
from ..store import Store
from ..task import Task
from .bench import measured
from .bench_draws import Vary, bench_draws
from .bench_files import StoredBench
from .executor import Executor, LocalExecutor
from .progress import Progress, Silent
from .stages import calibrated

LEAST = 3  # configurations
ELEMENTS, SAMPLES = 1024, 32  # of the statistics: drawn from a weight, and calibration samples
_STATISTICS = "statistics-1"
_COPIED = ("split", "value", "low", "high", "seconds", "samples")  # of a measurement
_KINDS = ("tensors", "format_tensors", "scalars", "format_scalars")


def build_bench(
    task: Task,
    space: SearchSpace,
    *,
    evaluations: int = 440,
    vary: Vary = "both",
    seed: int = 0,
    recipe: Recipe | None = None,
    store: Store | str | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> StoredBench:
    """Measure a bench and record the statistics of its sites.

    Args:
        task: model, data, metric; configurations are measured on its validation data, statistics come from its
            calibration data.
        space: sites, formats, ties.
        evaluations: configurations.
        vary: what differs between them: ``both``, ``weights`` or ``activations`` (``bench_draws``).
        seed: of the draws and the statistics.
        recipe: how weights are rounded and ranges chosen.
        store: a ``Store`` or its URL; every result is committed at once, and what it knows is not measured again.
        executor: who measures; default: this process.
        progress: who watches.

    Returns:
        The bench; ``save`` writes it.

    Raises:
        InvalidInput: too few evaluations, nothing to vary, or fewer than three configurations could be measured.
    """
    if evaluations < LEAST:
        raise InvalidInput(f"evaluations={evaluations}; a rank correlation needs at least {LEAST}")
    draws = bench_draws(space, evaluations, seed, vary)
    watch, knowledge = progress or Silent(), store if isinstance(store, Store) else Store(store)
    chosen = recipe or Recipe()
    if len(draws) < evaluations:
        watch.note(f"bench: only {len(draws)} of {evaluations} different configurations were found to vary {vary}")
    calibration = calibrated(task, space, chosen, knowledge, watch)
    configurations = [each.configuration for each in draws]
    found = measured(task, space, calibration, chosen, configurations, knowledge, executor or LocalExecutor(), watch)
    statistics = bench_statistics(task, space, calibration, seed, knowledge, watch)
    exact = price(space, metrics=("size_mb", "bops", "avg_bits"))
    rows = [
        {
            "digest": each.configuration.digest,
            "origin": each.origin,
            **{name: getattr(found.measurements[each.configuration], name) for name in _COPIED},
            **{name: cost.value for name, cost in exact.of(each.configuration).items()},
        }
        for each in draws
        if each.configuration in found.measurements
    ]
    details = {
        "vary": vary,
        "seed": seed,
        "evaluations": evaluations,
        "recipe": asdict(chosen),
        "formats": list(space.formats),
        "ties": [list(tie.sites) for tie in space.ties],
        "samples": {split: task.samples(split) for split in ("calibration", "validation")},
        "digests": {
            "task": task.digest("calibration", "validation"),
            "space": space.digest,
            "calibration": calibration.digest,
            "context": evaluation_context(task, calibration, "validation", reestimate_batch_norm=chosen.batch_norm),
            "statistics": statistics.statistics.digest,
        },
        "statistics": {
            "elements": ELEMENTS,
            "samples": min(SAMPLES, task.samples("calibration")),
            "left_out": statistics.left_out,
            "forward_passes": statistics.forward_passes,
            "backward_passes": statistics.backward_passes,
            "seconds": statistics.seconds,
        },
        "failed": {each.digest: reason for each, reason in found.failures.items()},
        "versions": {name: version(name) for name in ("bitfront", "torch", "numpy")}
        | {"python": platform.python_version()},
        "date": datetime.now(UTC).date().isoformat(),
    }
    choices = np.stack([space.choice(each) for each in found.measurements])
    return StoredBench(
        task.name, task.metric, choices, pd.DataFrame(rows), statistics.statistics, found.float_quality, details
    )


def bench_statistics(
    task: Task, space: SearchSpace, calibration: Calibration, seed: int, store: Store, progress: Progress
) -> Collected:
    """All statistics that formulas may use, from the store if everything that they depend on is the same."""
    content = (
        _STATISTICS, tuple(INPUTS), task.digest("calibration"), space.digest, calibration.digest, seed, ELEMENTS,
        SAMPLES,
    )  # fmt: skip
    key = hashlib.sha256(repr(content).encode()).hexdigest()[:32]
    stored = store.score(key)
    if stored is not None:
        progress.note("statistics of the sites: already in the store")
        return _unpacked(space, *stored)
    steps = collect_steps(task, space, samples=SAMPLES)
    with progress.stage("collect statistics of the sites", steps) as advance:
        found = collected(task, space, calibration, seed=seed, elements=ELEMENTS, samples=SAMPLES, advance=advance)
    for name, reason in found.left_out.items():
        progress.note(f"statistics: {name} is left out: {reason}")
    store.save_score(key, "statistics", _packed(found), found.seconds)
    return found


def _packed(found: Collected) -> dict[str, np.ndarray]:
    statistics = found.statistics
    arrays = {f"{kind}/{name}": values for kind in _KINDS for name, values in getattr(statistics, kind).items()}
    return arrays | {
        "shapes": statistics.shapes,
        "elements": statistics.elements,
        "left_out": np.array(list(found.left_out.items()), dtype=np.str_).reshape(-1, 2),
        "passes": np.array([found.forward_passes, found.backward_passes]),
    }


def _unpacked(space: SearchSpace, arrays: dict[str, Any], seconds: float) -> Collected:
    kinds: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in _KINDS}
    for name, values in arrays.items():
        kind, _, own = name.partition("/")
        if own:
            kinds[kind][own] = values
    statistics = SiteStatistics(
        tuple(space.names), space.formats, space.allowed, arrays["shapes"], arrays["elements"], **kinds
    )
    forward, backward = (int(count) for count in arrays["passes"])
    left_out = {str(name): str(reason) for name, reason in arrays["left_out"]}
    return Collected(statistics, left_out, forward, backward, seconds)
