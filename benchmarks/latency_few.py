"""A new device from 20, 50, 100 and 300 measurements: every device in turn is left out of the sources.

    python benchmarks/latency_few.py --json out/latency_few.json --figure out

Tables: aiconfigurator-core (A100, H100, H200, L40S, B200, B300, GB200, GB300, RTX PRO 6000) and, for the L40S, the int
formats of the reference data. A fifth of the weight shapes (n, k) is never sampled and gives the test rows (600 a
format). The count is of the whole device, over all its formats. Methods, in the same run:

- ``active``: ``next_shapes`` in rounds (20, 50, 100, 200, 300), then ``adapt``;
- ``random``: ``adapt`` on random rows, several seeds;
- ``boosting``: the usual transfer on the same random rows: gradient boosting on the log-residual over the roofline of
  all sources (data sheet and shape as inputs), then a boosted correction of it on the samples.

``--unseen`` hides the test shapes from the sources too, so that these must be interpolated there.

Every finished cell is written at once; run again to go on.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from bitfront.files import replacing
from bitfront.hw_models import device
from bitfront.hw_models.gemm import Gemms, MeasuredGemms
from bitfront.hw_models.law import work
from bitfront.hw_models.tables import aiconfigurator
from bitfront.hw_models.transfer import Sources, adapt, next_shapes
from evolved_report import WIDTH, write_figure
from scipy.stats import spearmanr
from sklearn.ensemble import HistGradientBoostingRegressor

DEVICES = (
    "nvidia-a100-sxm-80gb",
    "nvidia-h100-sxm",
    "nvidia-h200-sxm",
    "nvidia-l40s",
    "nvidia-b200",
    "nvidia-b300",
    "nvidia-gb200",
    "nvidia-gb300",
    "nvidia-rtx-pro-6000",
)
COUNTS = (20, 50, 100, 300)
#: Rounds of the active choice: from 100 to 300 in two.
ROUNDS = (20, 50, 100, 200, 300)
TARGETS = {20: 0.20, 50: 0.15, 100: 0.12, 300: 0.08}
REFERENCE = Path(os.environ.get("BITFRONT_REFERENCE_DATA", Path(__file__).parents[2] / "shared" / "data"))
TEST_ROWS = 600


def tables(devices: Sequence[str] = DEVICES) -> dict[str, MeasuredGemms]:
    """The measured products by device."""
    found = {name: aiconfigurator.gemms(name) for name in devices}
    if "nvidia-l40s" in found:
        found["nvidia-l40s"] = MeasuredGemms.joined([found["nvidia-l40s"], l40s_int()])
    return found


def l40s_int() -> MeasuredGemms:
    """int8 and int4 weight-only and W8A8 on the L40S, from the reference data."""
    frame = pd.read_csv(REFERENCE / "gemm_l40s_6_formats.csv.gz")
    frame["format"] = frame["gemm_dtype"].map({"int8_wo": "int8_wo", "int4_wo": "int4_wo", "sq": "w8a8"})
    frame = frame.dropna(subset=["format"])
    sizes = (frame[name].to_numpy(np.int64) for name in ("m", "n", "k"))
    names = (np.full(len(frame), "nvidia-l40s"), frame["format"].to_numpy(str))
    return MeasuredGemms(*names, *sizes, frame["latency"].to_numpy(np.float64))


def held_out(table: Gemms, share: float = 0.2, seed: int = 0) -> np.ndarray:
    """Mask of the rows whose shape (n, k) is kept for the test; the same shapes on every device."""
    codes = (table.n * 1_000_003 + table.k * 7 + seed) * 2_654_435_761 % 2**32
    return codes / 2**32 < share


def asked_rows(table: MeasuredGemms, mask: np.ndarray) -> MeasuredGemms:
    """Up to ``TEST_ROWS`` held-out rows of each format."""
    generator = np.random.default_rng(0)
    rows = [np.flatnonzero(mask & (table.format == form)) for form in np.unique(table.format)]
    return table.take(np.concatenate([generator.permutation(some)[:TEST_ROWS] for some in rows]))


class Boosting:
    """The usual transfer: boosting on the sources, corrected by boosting on the samples."""

    def __init__(self, tables: dict[str, MeasuredGemms], rows: int = 60_000) -> None:
        self.formats = sorted({form for table in tables.values() for form in np.unique(table.format).tolist()})
        generator = np.random.default_rng(0)
        share = rows // len(tables)
        parts = [table.take(generator.permutation(len(table))[:share]) for table in tables.values()]
        inputs, residual = zip(*(self._columns(part) for part in parts), strict=True)
        self.model = HistGradientBoostingRegressor(max_iter=300, learning_rate=0.1, random_state=0)
        self.model.fit(np.concatenate(inputs), np.concatenate(residual))

    def _columns(self, gemms: Gemms) -> tuple[np.ndarray, np.ndarray]:
        sheet = device(str(gemms.device[0]))
        demand = work(gemms, sheet)
        roofline = np.log(np.maximum(demand.compute_ms, demand.memory_ms))
        known = {form: number for number, form in enumerate(self.formats)}
        columns = [
            *(np.log2(getattr(gemms, name)) for name in ("m", "n", "k")),
            roofline,
            np.log(demand.compute_ms / demand.memory_ms),
            np.full(len(gemms), np.log(sheet.bandwidth_gb_s)),
            np.full(len(gemms), np.log(sheet.peak_tera["bf16"])),
            np.array([known.get(form, -1) for form in gemms.format.tolist()], dtype=float),
        ]
        residual = np.log(gemms.ms) - roofline if isinstance(gemms, MeasuredGemms) else roofline
        return np.stack(columns, axis=1), residual

    def predict(self, samples: MeasuredGemms, asked: MeasuredGemms) -> np.ndarray:
        """Milliseconds after the correction."""
        inputs, residual = self._columns(samples)
        wanted, truth = self._columns(asked)
        base_seen, base = self.model.predict(inputs), self.model.predict(wanted)
        ratio = residual - base_seen
        offsets = {form: np.median(ratio[samples.format == form]) for form in np.unique(samples.format).tolist()}
        lift = np.array([offsets.get(form, np.median(ratio)) for form in samples.format.tolist()])
        lifted = np.array([offsets.get(form, np.median(ratio)) for form in asked.format.tolist()])
        small = HistGradientBoostingRegressor(max_iter=60, learning_rate=0.1, min_samples_leaf=8, random_state=0)
        small.fit(inputs, ratio - lift)
        roofline = np.log(asked.ms) - truth
        return np.exp(roofline + base + lifted + small.predict(wanted))


def scored(ms: np.ndarray, truth: MeasuredGemms, low: np.ndarray | None = None, high: np.ndarray | None = None) -> dict:
    """Mean absolute percentage error and its like, by rows of all formats alike."""
    error = np.abs(ms / truth.ms - 1)
    record = {
        "mape": float(error.mean()),
        "within_10": float((error < 0.1).mean()),
        "spearman": float(spearmanr(ms, truth.ms).statistic),
        "by_format": {form: float(error[truth.format == form].mean()) for form in np.unique(truth.format).tolist()},
    }
    if low is not None and high is not None:
        record["coverage_90"] = float(((truth.ms >= low) & (truth.ms <= high)).mean())
        record["half_width"] = float(np.median(high / ms - 1))
    return record


def few(arguments: argparse.Namespace) -> None:
    """The part of ``latency.py``: ``arguments.devices`` (``None``: all) into ``arguments.out / "latency_few.json"``."""
    path: Path = arguments.out / "latency_few.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    print(report(cells(path, arguments.devices or DEVICES, seconds=arguments.seconds)))


def cells(
    path: Path,
    devices: Sequence[str] = DEVICES,
    counts: Sequence[int] = COUNTS,
    seeds: int = 3,
    unseen: bool = False,
    methods: Sequence[str] = ("active", "random", "boosting"),
    seconds: float = np.inf,
) -> pd.DataFrame:
    """Fill the JSON at ``path`` with every missing cell and return all of them, one a row.

    No device is begun after ``seconds``.
    """
    begun = time.perf_counter()
    kept: dict[str, dict] = json.loads(path.read_text()) if path.exists() else {}

    def missing(*key: object) -> str | None:
        name = "|".join(map(str, (*key, "unseen"))) if unseen else "|".join(map(str, key))
        return None if name in kept else name

    def keep(name: str, record: dict) -> None:
        method, left_out, count, seed = name.split("|")[:4]
        kept[name] = {"method": method, "device": left_out, "count": int(count), "seed": int(seed), **record}
        kept[name]["unseen"] = unseen
        with replacing(path) as side:
            side.write_text(json.dumps(kept, indent=1))
        print(f"{name:50} MAPE {100 * record['mape']:5.1f} %", flush=True)

    everything = tables()
    shown = {name: table.take(~held_out(table)) if unseen else table for name, table in everything.items()}
    fitted = Sources.of(shown)
    for left_out in devices:
        if time.perf_counter() - begun > seconds:
            break
        others = {name: table for name, table in shown.items() if name != left_out}
        sources = fitted.only(tuple(others))
        table, sheet = everything[left_out], device(left_out)
        pool = table.take(~held_out(table))
        asked = asked_rows(table, held_out(table))

        def ours(name: str, samples: MeasuredGemms, chosen: float = 0.0) -> None:
            start = time.perf_counter()
            found = adapt(sources, sheet, samples, width=np.inf)  # noqa: B023
            adapted = time.perf_counter()
            prediction = found.predict(asked)  # noqa: B023
            seconds = {"choice": chosen, "adapt": adapted - start, "predict": time.perf_counter() - adapted}
            record = scored(prediction.ms, asked, prediction.low, prediction.high)  # noqa: B023
            keep(name, {**record, "seconds": seconds, "rows": len(asked)})  # noqa: B023

        if "active" in methods and any(missing("active", left_out, count, 0) for count in counts):
            samples: MeasuredGemms | None = None
            for count in ROUNDS:
                start = time.perf_counter()
                have = 0 if samples is None else len(samples)
                new = pool.take(next_shapes(sources, sheet, pool, samples, count - have))
                samples = new if samples is None else MeasuredGemms.joined([samples, new])
                if count in counts and (name := missing("active", left_out, count, 0)):
                    ours(name, samples, time.perf_counter() - start)
        baseline: Boosting | None = None
        for seed in range(seeds):
            order = np.random.default_rng(seed + 1).permutation(len(pool))
            for count in counts:
                samples = pool.take(order[:count])
                if "random" in methods and (name := missing("random", left_out, count, seed)):
                    ours(name, samples)
                if "boosting" in methods and (name := missing("boosting", left_out, count, seed)):
                    baseline = baseline or Boosting(others)
                    keep(name, scored(baseline.predict(samples, asked), asked))
    return pd.DataFrame(list(kept.values()))


def report(frame: pd.DataFrame) -> str:
    """Tables of the mean error: by method and count, and by device."""
    lines = []
    for unseen, part in frame.groupby("unseen"):
        lines.append("test shapes hidden from the sources too" if unseen else "test shapes known in the sources")
        metrics = ["mape", "within_10", "spearman", "coverage_90", "half_width"]
        by_device = part.groupby(["method", "count", "device"])[metrics].mean().reset_index()
        mean = by_device.groupby(["method", "count"])[metrics].mean()
        mean["worst_mape"] = by_device.groupby(["method", "count"])["mape"].max()
        lines.append(mean.round(3).to_string())
        lines.append(
            (100 * by_device.pivot(index="device", columns=["method", "count"], values="mape")).round(1).to_string()
        )
    return "\n\n".join(lines)


def draw(frame: pd.DataFrame, folder: Path) -> None:
    """``latency_few.png`` (and ``.html``): error against measurements, mean over the devices and each of ``active``."""
    part = frame[~frame["unseen"]]
    picture = go.Figure()
    for name, some in part[part["method"] == "active"].groupby("device"):
        mean = some.groupby("count")["mape"].mean() * 100
        picture.add_scatter(x=mean.index, y=mean, mode="lines", line={"width": 1, "color": "#b8c4d6"}, showlegend=False)
        if mean.iloc[-1] > 5:  # the others lie on each other
            label = {"text": name.removeprefix("nvidia-"), "font": {"size": 10, "color": "#7a889c"}}
            picture.add_annotation(
                x=np.log10(mean.index[-1]), y=float(mean.iloc[-1]), xanchor="left", showarrow=False, **label
            )
    styles = {
        "boosting": ("transfer + random", "#c0504d"),
        "random": ("law + process, random", "#e0a030"),
        "active": ("law + process, chosen", "#1f5fa8"),
    }
    for method, (label, colour) in styles.items():
        some = part[part["method"] == method]
        mean = some.groupby(["count", "device"])["mape"].mean().groupby("count").mean() * 100
        picture.add_scatter(x=mean.index, y=mean, mode="lines+markers", name=label, line={"width": 3, "color": colour})
    picture.add_scatter(
        x=list(TARGETS),
        y=[100 * value for value in TARGETS.values()],
        mode="markers",
        name="target",
        marker={"symbol": "line-ew-open", "size": 18, "color": "black"},
    )
    picture.update_layout(
        template="plotly_white",
        width=WIDTH,
        height=460,
        margin={"l": 60, "r": 110, "t": 20, "b": 50},
        xaxis={"type": "log", "tickvals": list(COUNTS), "title": "measurements of the new device"},
        yaxis={"title": "MAPE on unseen shapes, %", "rangemode": "tozero"},
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_figure(picture, folder / "latency_few")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("out/latency_few.json"))
    parser.add_argument("--figure", type=Path, help="folder of latency_few.png and .html")
    parser.add_argument("--devices", nargs="*", default=list(DEVICES))
    parser.add_argument("--counts", nargs="*", type=int, default=list(COUNTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="*", default=["active", "random", "boosting"])
    parser.add_argument("--unseen", action="store_true")
    given = parser.parse_args()
    given.json.parent.mkdir(parents=True, exist_ok=True)
    frame = cells(given.json, given.devices, given.counts, given.seeds, given.unseen, given.methods)
    print(report(frame))
    if given.figure:
        draw(frame, given.figure)


if __name__ == "__main__":
    main()
