"""Stages whose outcome is stored by content: a stage whose inputs did not change is not run again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from ..errors import UnsupportedModel
from ..evaluators import CALIBRATION_VERSION, Calibration, Recipe, calibrate, calibration_steps, in_eval
from ..hw_models import KernelRow, MeasuredTable, Prices, planned, price
from ..proxies import Sensitivity, get_proxy
from ..space import SearchSpace
from ..store import Store
from ..task import Task
from .progress import Progress

_SCORES = "scores-2"  # what is stored of a score: values, error, passes, pairs


def calibrated(task: Task, space: SearchSpace, recipe: Recipe, store: Store, progress: Progress) -> Calibration:
    """Scales, codes and ranges, from the store if weights, calibration data, space and recipe are the same."""
    content = ("calibration", CALIBRATION_VERSION, task.digest("calibration"), space.digest, str(recipe))
    key = hashlib.sha256(repr(content).encode()).hexdigest()[:32]
    stored = store.score(key)
    if stored is not None:
        progress.note("calibrate: already in the store")
        return Calibration.from_arrays(stored[0])
    started = time.perf_counter()
    with progress.stage("calibrate", calibration_steps(task, space, recipe)) as advance:
        found = calibrate(task, space, recipe, advance)
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
        [
            _SCORES,
            proxy,
            repr(vars(chosen)),
            task.digest("calibration"),
            space.digest,
            calibration.digest,
            f"{seed}",
        ]
    )
    key = hashlib.sha256(content.encode()).hexdigest()[:32]
    stored = store.score(key)
    if stored is not None:
        arrays, seconds = stored
        progress.note(f"score {proxy}: already in the store")
        error = arrays["error"] if arrays["error"].size else None
        forward, backward = (int(count) for count in arrays["passes"])
        names = tuple(space.names)
        sites = [(int(one), int(other)) for one, other in arrays["pair_sites"]]
        pairs = dict(zip(sites, arrays["pair_losses"], strict=True)) or None
        return Sensitivity(
            proxy, arrays["values"], error, names, space.formats, seconds, forward, backward, chosen.additive, pairs
        )
    with progress.stage(f"score {proxy}", chosen.steps(task, space)) as advance, in_eval(task.model):
        found = chosen.score(task, space, calibration, seed=seed, advance=advance)
    paired = dict(found.pairs or {})
    arrays = {
        "pair_sites": np.array(list(paired), dtype=np.int64).reshape(len(paired), 2),
        "pair_losses": np.array(list(paired.values())),
        "values": found.values,
        "error": found.error if found.error is not None else np.zeros(0),
        "passes": np.array([found.forward_passes, found.backward_passes]),
    }
    store.save_score(key, proxy, arrays, found.seconds)
    return found


def scores_of(
    task: Task,
    space: SearchSpace,
    calibration: Calibration,
    proxies: Sequence[str],
    seed: int,
    store: Store,
    progress: Progress,
    leave_out: bool,
) -> tuple[dict[str, Sensitivity], dict[str, str]]:
    """Scores by proxy, and the proxies that cannot score this model with the reason.

    Raises:
        UnsupportedModel: a proxy cannot score this model and ``leave_out`` is off.
    """
    found: dict[str, Sensitivity] = {}
    left_out: dict[str, str] = {}
    for name in dict.fromkeys(proxies):
        try:
            found[name] = scored(task, space, calibration, name, seed, store, progress)
        except UnsupportedModel as cause:
            if not leave_out:
                raise
            left_out[name] = str(cause)
            progress.note(f"proxy {name} is left out: {cause}")
    return found, left_out
