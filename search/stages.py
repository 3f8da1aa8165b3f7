"""The stages before a search: trace, calibrate, price, score. Each is kept by content and not run again.

A stage whose inputs did not change is read from the store, whichever job or process computed it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..errors import InvalidInput
from ..evaluators import CALIBRATION_VERSION, Calibration, Recipe, calibrate, calibration_steps, in_eval
from ..fingerprint import fingerprint
from ..hw_models import KernelRow, MeasuredTable, Prices, cost_models, planned, price, site_kernel
from ..hw_models.kernels import unfused
from ..hw_models.latency import latency_inputs
from ..hw_models.network import Network
from ..hw_models.onnx_runner import OnnxRuntimeRunner
from ..proxies import Sensitivity, get_proxy
from ..space import SearchSpace
from ..store import Store
from ..task import Task
from .progress import Progress
from .records import price_arrays, prices_of, score_arrays, score_of, space_arrays, space_of
from .stage import Ledger, Ran, key_of, outcome

_TRACE = "trace-2"
_PRICES = "prices-2"
_SCORES = "scores-2"  # what is stored of a score: values, error, passes, pairs


def traced(
    task: Task,
    formats: Sequence[str],
    exclude: Sequence[str],
    ties: str | Sequence[Sequence[str]],
    store: Store,
    *,
    ledger: Ledger | None = None,
) -> SearchSpace:
    """The space of a task's model, found by one hooked forward pass; from the store if model and data are known.

    Args:
        task: the first two calibration samples are the example inputs.
        formats: as in ``SearchSpace.from_model``, like the next two.
        exclude: globs of sites that stay in float.
        ties: how sites are tied.
        store: where the space is kept.
        ledger: is told what was reused.
    """
    return outcome(
        "trace",
        "",
        key_of(_TRACE, task.digest("calibration"), list(formats), list(exclude), ties),
        store,
        ledger or Ledger(),
        compute=lambda: SearchSpace.from_model(
            task.model, task.calibration[0].piece(0, 2), list(formats), list(exclude), ties
        ),
        encode=space_arrays,
        decode=lambda arrays, seconds: space_of(arrays),
    )


def calibrated(
    task: Task,
    space: SearchSpace,
    recipe: Recipe,
    store: Store,
    progress: Progress,
    *,
    ledger: Ledger | None = None,
) -> Calibration:
    """Scales, codes and ranges, from the store if weights, calibration data, space and recipe are the same."""
    content = ("calibration", CALIBRATION_VERSION, task.digest("calibration"), space.digest, str(recipe))

    def compute() -> Calibration:
        with progress.stage("calibrate", calibration_steps(task, space, recipe)) as advance:
            return calibrate(task, space, recipe, advance)

    return outcome(
        "calibrate",
        "",
        hashlib.sha256(repr(content).encode()).hexdigest()[:32],
        store,
        ledger or Ledger(),
        compute=compute,
        encode=lambda found: found.to_arrays(),
        decode=lambda arrays, seconds: Calibration.from_arrays(arrays),
        reused=lambda: progress.note("calibrate: already in the store"),
    )


def priced(
    space: SearchSpace,
    device: str,
    batch: int,
    metrics: Sequence[str],
    store: Store,
    progress: Progress,
    *,
    ledger: Ledger | None = None,
    runtime: str | None = None,
    network: Network | None = None,
) -> Prices:
    """Prices of a space, from the store if the space, the metrics and the kernels of the device are the same.

    Kernels that the store knows are not timed again, new ones are stored. ``network`` is what was measured of the whole
    model (``whole_model.measured_whole``), for latency on the CPU.
    """
    known = MeasuredTable(tuple(KernelRow(**row) for row in store.kernels(device)))

    def compute() -> Prices:
        steps = planned(space, device, batch, metrics, [known], runtime=runtime)
        with progress.stage(f"measure latency on {device}", steps) as advance:
            prices = price(space, device, batch, metrics, [known], advance, runtime=runtime, network=network)
        if len(prices.measured):
            store.save_kernels([asdict(row) for row in prices.measured])
        return prices

    def key(table: MeasuredTable) -> str:
        hardware = [_hardware(space, device, batch, metrics, table, runtime), network and network.to_dict()]
        return key_of(_PRICES, space.digest, batch, _models(metrics), hardware)

    record = ledger or Ledger()
    # what is timed now is an input of the next run's prices
    if planned(space, device, batch, metrics, [known], runtime=runtime):
        started = time.perf_counter()
        prices = compute()
        after = key(MeasuredTable(tuple(KernelRow(**row) for row in store.kernels(device))))
        seconds = time.perf_counter() - started
        store.save_score(after, "price", price_arrays(prices), seconds)
        record.add(Ran("price", device, after, 1, 0, seconds))
        return prices
    return outcome(
        "price",
        device,
        key(known),
        store,
        record,
        compute=compute,
        encode=price_arrays,
        decode=lambda arrays, seconds: prices_of(arrays, space),
    )


def _models(metrics: Sequence[str]) -> list[list[str]]:
    """The metrics with the code of their cost models, which other packages can add."""
    known = cost_models()
    return [[metric, fingerprint(known[metric]) if metric in known else ""] for metric in dict.fromkeys(metrics)]


def _hardware(
    space: SearchSpace, device: str, batch: int, metrics: Sequence[str], table: MeasuredTable, runtime: str | None
) -> Any:
    """What latency depends on beside the space: the measured kernels that it needs, or tables and the data sheet."""
    if "latency_ms" not in metrics:
        return [device]
    if device != "cpu":
        return latency_inputs(device, runtime)
    runner = OnnxRuntimeRunner(1)
    kernels = {site_kernel(site, name, batch) for site in space.sites for name in site.formats}
    needed = kernels | {other for kernel in kernels if (other := unfused(kernel)) is not None}
    digests = {runner.digest(kernel) for kernel in needed}
    return sorted([row.digest, row.median_ms, row.sigma_ms, row.date] for row in table if row.digest in digests)


def scored(
    task: Task,
    space: SearchSpace,
    calibration: Calibration,
    proxy: str,
    seed: int,
    store: Store,
    progress: Progress,
    *,
    ledger: Ledger | None = None,
) -> Sensitivity:
    """Scores of one proxy, from the store if everything that they depend on is the same."""
    chosen = get_proxy(proxy)

    def compute() -> Sensitivity:
        with progress.stage(f"score {proxy}", chosen.steps(task, space)) as advance, in_eval(task.model):
            found: Sensitivity = chosen.score(task, space, calibration, seed=seed, advance=advance)
        return found

    return outcome(
        "score",
        proxy,
        score_key(task, space, calibration, proxy, seed),
        store,
        ledger or Ledger(),
        compute=compute,
        encode=score_arrays,
        decode=lambda arrays, seconds: score_of(arrays, seconds, proxy, space.names, space.formats, chosen.additive),
        reused=lambda: progress.note(f"score {proxy}: already in the store"),
    )


def score_key(task: Task, space: SearchSpace, calibration: Calibration, proxy: str, seed: int) -> str:
    """Key of the scores of one proxy: its settings, the model, the calibration data, the space and the seed."""
    settings = repr(vars(get_proxy(proxy)))
    content = [_SCORES, proxy, settings, task.digest("calibration"), space.digest, calibration.digest, f"{seed}"]
    return hashlib.sha256("|".join(content).encode()).hexdigest()[:32]


def scores_of(
    task: Task,
    space: SearchSpace,
    calibration: Calibration,
    proxies: Sequence[str],
    seed: int,
    store: Store,
    progress: Progress,
    leave_out: bool,
    *,
    ledger: Ledger | None = None,
) -> tuple[dict[str, Sensitivity], dict[str, str]]:
    """Scores by proxy, and the proxies that cannot score this model, data or space with the reason.

    Raises:
        InvalidInput: a proxy cannot score these and ``leave_out`` is off, or there is no proxy of that name.
    """
    found: dict[str, Sensitivity] = {}
    left_out: dict[str, str] = {}
    for name in dict.fromkeys(proxies):
        get_proxy(name)  # an unknown name is never left out
        try:
            found[name] = scored(task, space, calibration, name, seed, store, progress, ledger=ledger)
        except InvalidInput as cause:
            if not leave_out:
                raise
            left_out[name] = str(cause)
            progress.note(f"proxy {name} is left out: {cause}")
    return found, left_out
