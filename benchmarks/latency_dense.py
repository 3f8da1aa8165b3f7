"""Parts ``dense`` and ``lines`` of ``benchmarks/latency.py``: held-out error per device and format."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from bitfront.hw_models.gemm import MeasuredGemms, Prediction
from bitfront.hw_models.predictor import DensePredictor, roofline_ms
from bitfront.hw_models.predictor.conformal import shape_folds
from bitfront.hw_models.predictor.fitting import Prepared
from bitfront.hw_models.tables import aiconfigurator
from latency_baselines import neighbours, plain_boosting
from scipy.stats import spearmanr
from search_tasks import Notebook

METHODS = ("roofline", "neighbours", "plain boosting", "ours", "ours, strict", "ours, not monotone")
_OURS = {"ours": {}, "ours, strict": {"strict": True}, "ours, not monotone": {"monotone": False}}
FIFTHS = 5
_SHOWN = 400  # rows of a format that the figure draws
_LINES = 5  # of every so many grid lines between the ends one is held out


def dense(arguments: argparse.Namespace) -> None:
    """A fifth of the weight shapes held out."""
    book = Notebook(arguments.out / "latency_dense.json", arguments.seconds)
    for key, rows in tables(arguments):
        fold = shape_folds(rows, FIFTHS, seed=1)
        for split in range(arguments.splits):
            _step(book, f"{key}/{split}", rows, fold == split)


def lines(arguments: argparse.Namespace) -> None:
    """Whole lines of m, n and k held out."""
    book = Notebook(arguments.out / "latency_lines.json", arguments.seconds)
    for key, rows in tables(arguments):
        test = np.zeros(len(rows), dtype=bool)
        for side in (rows.m, rows.n, rows.k):
            test |= np.isin(side, np.unique(side)[2:-1:_LINES])
        _step(book, f"{key}/0", rows, test)


def tables(arguments: argparse.Namespace) -> Iterator[tuple[str, MeasuredGemms]]:
    """``device/format`` and its measured products."""
    for device in arguments.devices or aiconfigurator.SYSTEMS.values():
        rows = aiconfigurator.gemms(device, arguments.runtime)
        for format_ in arguments.formats or np.unique(rows.format):
            part = rows.take(rows.format == format_)
            if len(part):
                name = f"{device} ({arguments.runtime})" if arguments.runtime else device
                yield f"{name}/{format_}", part


def _step(book: Notebook, key: str, rows: MeasuredGemms, test: np.ndarray) -> None:
    if key in book or book.over:
        return
    found = compared(rows.take(~test), rows.take(test))
    book.write(key, found)
    errors = {name: round(found[name]["mape"], 4) for name in METHODS}
    print(key, errors, f"coverage {found['ours']['coverage']:.3f}", flush=True)


def compared(seen: MeasuredGemms, unseen: MeasuredGemms) -> dict[str, Any]:
    """Error of every method on the unseen rows."""
    found: dict[str, Any] = {"seen": len(seen), "unseen": len(unseen)}
    found["roofline"] = error(roofline_ms(unseen), unseen.ms)
    found["neighbours"] = error(neighbours(seen, unseen), unseen.ms)
    found["plain boosting"] = error(plain_boosting(seen, unseen), unseen.ms)
    started = time.perf_counter()
    prepared = Prepared.of(seen)
    found["falls"] = prepared.falls.astype(int).tolist()
    for name, options in _OURS.items():
        model = prepared.model(**options)
        found.setdefault("fit_seconds", time.perf_counter() - started)
        predictor = DensePredictor({(model.device, model.format): model}, {}, model.coverage)
        answer = predictor.predict(unseen)
        found[name] = error(answer.ms, unseen.ms) | intervals(answer, unseen.ms)
        found[name] |= {"boosting": model.boosting, "inside": model.inside, "outside": model.outside}
        found[name] |= {"moved": moved(predictor.predict(seen), seen.ms)}
        if name == "ours":
            chosen = np.random.default_rng(0).permutation(len(unseen))[:_SHOWN]
            found["points"] = {"ms": unseen.ms[chosen].tolist(), "predicted": answer.ms[chosen].tolist()}
    return found


def error(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """MAPE, share within 10 %, rank correlation."""
    relative = np.abs(predicted / measured - 1)
    return {
        "mape": float(relative.mean()),
        "within": float((relative <= 0.1).mean()),
        "spearman": float(spearmanr(predicted, measured).statistic),
    }


def intervals(answer: Prediction, measured: np.ndarray) -> dict[str, float]:
    """Share of the intervals that hold the measurement, and their median width (high / low)."""
    held = (measured >= answer.low) & (measured <= answer.high)
    return {"coverage": float(held.mean()), "width": float(np.median(answer.high / answer.low))}


def moved(answer: Prediction, measured: np.ndarray) -> float:
    """Mean relative distance of the surface from the measurements that it was fitted on: what being monotone costs."""
    return float(np.abs(answer.ms / measured - 1).mean())
