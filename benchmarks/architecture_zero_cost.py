"""Zero-cost proxies on real NAS-Bench-201 networks, against published scores and accuracies.

    python benchmarks/architecture_zero_cost.py --out out/architecture_zero_cost

A random sample of the 725 networks of NAS-Bench-Suite-Zero (Krishnakumar et al. 2022, arXiv:2210.03230) is built in
full size (16 channels, five cells a stage), initialized by PyTorch's defaults, and scored on one batch of 32. CIFAR-10
itself is not needed: ``fashion`` are images of Fashion-MNIST, grey as three equal channels, resized to 32 x 32 and
standardized; ``photographs`` are crops of photographs that scikit-image and scikit-learn carry, with random labels;
``noise`` is standard normal with random labels. Every score is written as it comes, so a run that was stopped goes on;
a smaller sample is a part of a larger one.

Shown: Spearman's rho with the accuracy (CIFAR-10, 200 epochs) of the published column on all 725 networks, of the
published column on the sample, and of our scores on the sample; the trust report of both; params as the baseline.

Needs the reference data (``BITFRONT_REFERENCE_DATA``).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from bitfront.proxies.architecture import (
    ENSEMBLES,
    ArchitectureProxy,
    architecture_proxies,
    get_architecture_proxy,
    rank_sum,
    score_network,
)
from bitfront.proxies.architecture.ntk import NTKCondition
from bitfront.search.architecture_trust import architecture_trust_report
from bitfront.search.families.nasbench201 import DATASETS, NasBench201, cell_choices, stored_scores
from bitfront.search.rank_statistics import Estimate, resamples, spearman
from bitfront.service.palette import DOMINATED, GRID, INK, MEASURED, PREDICTED
from bitfront.task import Batch
from bitfront.zoo import fashion_resnet, photographs
from evolved_report import WIDTH, table, write_figure
from plotly.subplots import make_subplots
from scipy.stats import rankdata

SAMPLES, CLASSES, SIDE = 32, 10, 32
TARGETS = ("nwot", "synflow", "jacov", "snip", "grad_norm")  # to be within 0.05 of the published column
COMPARED = (*TARGETS, "grasp", "fisher")
NTK_SAMPLES = 8  # a backward pass each
PICKS = 10
OTHER_DATA = ("photographs", "noise")


def published(dataset: str = "cifar10") -> pd.DataFrame:
    """The published scores and accuracies."""
    folder = Path(os.environ.get("BITFRONT_REFERENCE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    return stored_scores(folder, dataset)


def batch(data: str, seed: int) -> Batch:
    """One batch of 32 labelled images of 3 x 32 x 32."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    if data == "noise":
        return Batch((torch.randn(SAMPLES, 3, SIDE, SIDE, generator=generator),), labels)
    if data == "photographs":
        to = photographs.Preprocessing(mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7), side=SIDE)  # CIFAR-10's
        return Batch((photographs.crops("calibration", SAMPLES, to, seed),), labels)
    train, _ = fashion_resnet.data()
    chosen = torch.randperm(len(train.inputs), generator=generator)[:SAMPLES]
    images = torch.nn.functional.interpolate(train.inputs[chosen], (SIDE, SIDE), mode="bilinear", align_corners=False)
    images = (images - images.mean()) / images.std()
    return Batch((images.expand(-1, 3, -1, -1).contiguous(),), train.targets[chosen])


def proxy(name: str) -> ArchitectureProxy:
    """The proxy as it is measured here."""
    return NTKCondition(NTK_SAMPLES) if name == "ntk" else get_architecture_proxy(name)


def measure(cells: Sequence[str], data: str, proxies: Sequence[str], seed: int, path: Path) -> pd.DataFrame:
    """Scores and seconds of the networks [cells x proxies]; what the file already holds is not measured again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done: dict[str, dict[str, float]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        row = json.loads(line)
        done.setdefault(row.pop("cell"), {}).update(row)
    family, images = NasBench201(seed=seed), batch(data, seed)
    with path.open("a") as file:
        for cell in cells:
            missing = [name for name in proxies if name not in done.get(cell, {})]
            if missing:
                found = score_network(family.build(cell_choices(cell)), images, list(map(proxy, missing)), seed=seed)
                done.setdefault(cell, {}).update(found)
                file.write(json.dumps({"cell": cell, **found}) + "\n")
                file.flush()
    return pd.DataFrame([done[cell] for cell in cells], index=cells)


def columns(scores: pd.DataFrame, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The columns and the ensembles that they allow."""
    found = {name: scores[name].to_numpy(np.float64) for name in names}
    return found | {name: rank_sum(found, parts) for name, parts in ENSEMBLES.items() if set(parts) <= set(found)}


def rho(scores: np.ndarray, accuracy: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Spearman's rho of every resample; minus infinity is the worst rank."""
    return spearman(rankdata(scores), accuracy, np.ones((1, len(accuracy))) if counts is None else counts)


def agreement(ours: dict[str, np.ndarray], whole: pd.DataFrame, cells: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Our column against the published one, on the same networks."""
    sample = whole.loc[list(cells)]
    accuracy = sample["accuracy"].to_numpy()
    counts = resamples(len(sample), 1000, 0)
    theirs, everything = columns(sample, COMPARED), columns(whole, COMPARED)
    found: dict[str, dict[str, Any]] = {}
    for name, values in theirs.items():
        mine, stored = rho(ours[name], accuracy, counts), rho(values, accuracy, counts)
        found[name] = {
            "published_all": float(rho(everything[name], whole["accuracy"].to_numpy())[0]),
            "published_sample": float(stored[0]),
            "ours": vars(Estimate.of(mine) or Estimate(np.nan, np.nan, np.nan)),
            "difference": vars(Estimate.of(mine - stored) or Estimate(np.nan, np.nan, np.nan)),
            "same_order": float(rho(ours[name], rankdata(values))[0]),
        }
    return found


def trusted(scores: dict[str, np.ndarray], frame: pd.DataFrame, seconds: dict[str, float]) -> list[dict[str, Any]]:
    """The trust report as rows."""
    accuracy, params, flops = (frame[name].to_numpy(np.float64) for name in ("accuracy", "params", "flops"))
    report = architecture_trust_report(scores, accuracy, params, flops, picks=PICKS, seconds=seconds, draws=500)
    return report.table.reset_index().replace({np.nan: None}).to_dict("records")


def benchmark(networks: int, few: int, seed: int, out: Path) -> dict[str, Any]:
    """All parts as one document."""
    whole = published()
    order = np.random.default_rng(seed).permutation(len(whole))
    cells = [str(whole.index[index]) for index in order[:networks]]
    names = [name for name in architecture_proxies() if name != "ntk"]
    scores = measure(cells, "fashion", names, seed, out / f"fashion_seed{seed}.jsonl")
    ours = columns(scores, names)
    document: dict[str, Any] = {"networks": networks, "few": few, "seed": seed, "ntk_samples": NTK_SAMPLES}
    document["agreement"] = agreement(ours, whole, cells)
    seconds = {name: float(scores[f"{name}_seconds"].median()) for name in names}
    document["ours"] = trusted(ours, whole.loc[cells], seconds)
    document["ensemble"] = {"ours": ours["ensemble"].tolist(), "accuracy": whole.loc[cells, "accuracy"].tolist()}

    halves = measure(cells[:few], "fashion", ENSEMBLES["te_nas"], seed, out / f"fashion_seed{seed}.jsonl")
    seconds = {name: float(halves[f"{name}_seconds"].median()) for name in ENSEMBLES["te_nas"]}
    document["te_nas"] = trusted(columns(halves, ENSEMBLES["te_nas"]), whole.loc[cells[:few]], seconds)

    document["published"] = {}
    for dataset in DATASETS:
        stored = published(dataset)
        judged = [name for name in stored if name not in ("accuracy", "params", "flops")]
        document["published"][dataset] = trusted(columns(stored, judged), stored, {})

    document["data"] = {"fashion": agreement(columns(scores.iloc[:few], names), whole, cells[:few])}
    for data in OTHER_DATA:
        other = measure(cells[:few], data, COMPARED, seed, out / f"{data}_seed{seed}.jsonl")
        document["data"][data] = agreement(columns(other, COMPARED), whole, cells[:few])
    return document


def span(row: dict[str, Any], name: str = "", digits: int = 2, sign: str = "") -> str:
    """A value with its interval."""
    value, low, high = (row[part] for part in ((name, f"{name}_low", f"{name}_high") if name else row))
    if value is None:
        return ""
    return f"{value:{sign}.{digits}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def trust_table(rows: list[dict[str, Any]], timed: bool) -> list[str]:
    """Best correlation first, the baselines last."""
    heads = ["proxy", "Spearman", "Kendall", "at fixed params", "in the best 10 %", f"regret of {PICKS}"]
    ordered = sorted(rows, key=lambda row: (row["baseline"], -row["spearman"]))
    lines = []
    for row in ordered:
        line = [row["proxy"], *(span(row, name) for name in ("spearman", "kendall", "spearman_fixed", "spearman_best"))]
        lines.append([*line, span(row, "regret"), *([f"{row['seconds']:.2f}"] if timed else [])])
    return table([*heads, *(["s a network"] if timed else [])], lines)


def told(document: dict[str, Any]) -> str:
    """The tables, as Markdown."""
    count, few = document["networks"], document["few"]
    rows = [
        [
            name,
            f"{row['published_all']:.3f}",
            f"{row['published_sample']:.3f}",
            span(row["ours"], digits=3),
            span(row["difference"], digits=3, sign="+"),
            f"{row['same_order']:.3f}",
        ]
        for name, row in document["agreement"].items()
    ]
    heads = ["proxy", "published, 725", f"published, {count}", f"ours, {count}", "difference", "ours with published"]
    parts = [f"Spearman with the accuracy, {count} networks", table(heads, rows)]
    parts += [f"Trust, our scores, {count} networks", trust_table(document["ours"], timed=True)]
    parts += [f"Trust, TE-NAS, {few} networks", trust_table(document["te_nas"], timed=True)]
    for dataset, stored in document["published"].items():
        parts += [f"Trust, published scores, {dataset}", trust_table(stored, timed=False)]
    rows = [
        [
            name,
            f"{row['published_sample']:.3f}",
            *(f"{document['data'][data][name]['ours']['value']:.3f}" for data in ("fashion", *OTHER_DATA)),
        ]
        for name, row in document["data"]["fashion"].items()
    ]
    parts += [
        f"Which images: Spearman, {few} networks",
        table(["proxy", "published (CIFAR-10)", "Fashion-MNIST", "photographs", "noise"], rows),
    ]
    return "\n\n".join(part if isinstance(part, str) else "\n".join(part) for part in parts)


def figure(document: dict[str, Any]) -> go.Figure:
    """Left: rho of each proxy, ours and published; right: the ensemble against the accuracy."""
    drawn = make_subplots(1, 2, column_widths=[0.58, 0.42], horizontal_spacing=0.12)
    ours = sorted((row for row in document["ours"] if row["proxy"] != "random"), key=lambda row: row["spearman"])
    for name, colour, label in (
        ("spearman", MEASURED, "all networks"),
        ("spearman_best", PREDICTED, "within the best 10 %"),
    ):
        drawn.add_scatter(
            x=[row[name] for row in ours], y=[row["proxy"] for row in ours], mode="markers", name=f"ours, {label}",
            marker={"color": colour, "size": 10},
            error_x={"type": "data", "symmetric": False, "thickness": 1,
                     "array": [row[f"{name}_high"] - row[name] for row in ours],
                     "arrayminus": [row[name] - row[f"{name}_low"] for row in ours]},
            row=1, col=1,
        )  # fmt: skip
    stored = {name: row["published_sample"] for name, row in document["agreement"].items()}
    drawn.add_scatter(
        x=list(stored.values()), y=list(stored), mode="markers", name="published, same networks",
        marker={"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": INK}}, row=1, col=1,
    )  # fmt: skip
    points = document["ensemble"]
    drawn.add_scatter(
        x=rankdata(points["ours"]), y=points["accuracy"], mode="markers", showlegend=False,
        marker={"color": MEASURED, "size": 7, "line": {"width": 1, "color": DOMINATED}}, row=1, col=2,
    )  # fmt: skip
    drawn.update_xaxes(title="Spearman's rho with the accuracy", row=1, col=1)
    drawn.update_xaxes(title="rank by nwot + synflow + jacov", row=1, col=2)
    drawn.update_yaxes(title="accuracy after training, %", row=1, col=2)
    drawn.update_xaxes(gridcolor=GRID, zerolinecolor=GRID)
    drawn.update_yaxes(gridcolor=GRID, zerolinecolor=GRID)
    drawn.update_layout(
        width=WIDTH, height=480, template="none", font={"family": "sans-serif", "size": 13},
        margin={"l": 110, "r": 20, "t": 50, "b": 55}, legend={"orientation": "h", "y": 1.12, "x": 0},
    )  # fmt: skip
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=110, help="sampled from the 725")
    parser.add_argument("--few", type=int, default=24, help="of them, for other images and the tangent kernel")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/architecture_zero_cost"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    document = benchmark(arguments.networks, arguments.few, arguments.seed, arguments.out)
    text = told(document)
    print(text)
    (arguments.out / "result.json").write_text(json.dumps(document, indent=1) + "\n")
    (arguments.out / "result.md").write_text(text + "\n")
    write_figure(figure(document), arguments.out / "architecture_proxies")


if __name__ == "__main__":
    main()
