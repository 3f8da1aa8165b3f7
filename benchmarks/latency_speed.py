"""Part ``speed`` of ``benchmarks/latency.py``: how long 10,000 (site, format) prices take, and what comes before."""

from __future__ import annotations

import argparse
import tempfile
import time

import numpy as np
from bitfront.hw_models.gemm import Gemms
from bitfront.hw_models.predictor import fitted
from bitfront.hw_models.tables import aiconfigurator
from search_tasks import Notebook

PRICES, REPEATS = 10_000, 15


def speed(arguments: argparse.Namespace) -> None:
    """Fit, load and predict for one device, all its formats mixed."""
    book = Notebook(arguments.out / "latency_speed.json", arguments.seconds)
    device = (arguments.devices or ["nvidia-h200-sxm"])[0]
    rows = aiconfigurator.gemms(device, arguments.runtime)
    with tempfile.TemporaryDirectory() as folder:
        started, began = time.perf_counter(), time.process_time()
        fitted(rows, folder=folder)
        fit_seconds, fit_cpu_seconds = time.perf_counter() - started, time.process_time() - began
        started = time.perf_counter()
        predictor = fitted(rows, folder=folder)
        load_seconds = time.perf_counter() - started
    rng = np.random.default_rng(0)
    formats = np.unique(rows.format)
    m = np.exp(rng.uniform(0, np.log(32_768), PRICES)).astype(np.int64)
    n, k = (64 * rng.integers(2, 256, PRICES) for _ in range(2))
    asked = Gemms(np.full(PRICES, device), rng.choice(formats, PRICES), m, n, k)
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        predictor.predict(asked)
        seconds.append(time.perf_counter() - started)
    found = {
        "prices": PRICES,
        "formats": formats.tolist(),
        "predict_seconds": float(np.median(seconds)),
        "predict_slowest": max(seconds),
        "load_seconds": load_seconds,
        "fit_seconds": fit_seconds,
        "fit_cpu_seconds": fit_cpu_seconds,
    }
    book.write(device, found)
    print(device, found)
