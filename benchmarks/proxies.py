"""The trust report of every proxy on zoo models, against 440 really evaluated configurations each.

``python benchmarks/proxies.py`` measures a bench for each model (random configurations, and others stratified by size),
scores the space with every proxy, and prints a table for each model. Everything is kept in a store, so a stopped run
goes on where it was, and more evaluations or another proxy cost only what is new. ``--seconds`` bounds the time for
each model: half of it for the bench, then proxies are scored, those without gradients first, as long as there is time;
what was not reached is named. JSON goes to ``out/proxies.json``, Markdown for the docs to ``out/proxies.md``.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bitfront as bf
import torch
from bitfront import zoo
from bitfront.errors import BitfrontError
from bitfront.evaluators import prepared
from bitfront.proxies import proxies as known_proxies
from bitfront.search import Silent, calibrated, run_bench
from bitfront.search.stages import scored
from bitfront.service.front_document import Trust
from bitfront.service.terminal import show
from bitfront.service.trust_table import cells, heads, terminal_table, told
from bitfront.store import Store

MODELS = ("digits_resnet20", "char_gpt", "minilm_l6", "efficientnet_lite0")
FORMATS = ("w2", "w3", "w4", "w8", "w2a8", "w3a8", "w4a8", "w8a8")
SAMPLES = {"digits_resnet20": 256, "char_gpt": 128}  # of each split; others 64
RECIPE = bf.Recipe(bias_correction=True)  # without it every EfficientNet with 2-bit layers is equally useless
CHUNK = 20  # configurations measured between looks at the clock


def main() -> None:
    """Measure, score, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--proxies", nargs="+", default=None, help="default: all")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("--evaluations", type=int, default=440, help="configurations of each bench")
    parser.add_argument("--samples", type=int, default=None, help="of each split; default: 64 to 256 by model")
    parser.add_argument("--seconds", type=float, default=3600.0, help="for each model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", default="sqlite:///out/proxies.db")
    parser.add_argument("--out", type=Path, default=Path("out/proxies.json"))
    parser.add_argument("--summarize", nargs="+", type=Path, help="measure nothing; one table of these JSON files")
    arguments = parser.parse_args()
    if arguments.summarize:
        print(summary(arguments.summarize))
        return
    torch.set_num_threads(1)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": 1,
        "date": datetime.now(UTC).date().isoformat(),
        "formats": arguments.formats,
        "recipe": str(RECIPE),
        "models": {},
    }
    pages = []
    for name in arguments.models:
        result = judge(name, arguments)
        found["models"][name] = result
        pages.append(markdown(name, result))
        arguments.out.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
        arguments.out.with_suffix(".md").write_text("\n".join(pages))


def judge(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The report of one model, as far as the time allows."""
    started = time.perf_counter()
    samples = arguments.samples or SAMPLES.get(name, 64)
    task, space = bench_task(name, samples, arguments.formats)
    store = Store(arguments.store)
    calibration = calibrated(task, space, RECIPE, store, Silent())

    measured = 0
    while measured < arguments.evaluations:
        measured = min(measured + CHUNK, arguments.evaluations)
        run_bench(task, space, ["weight_mse"], evaluations=measured, seed=arguments.seed, recipe=RECIPE, store=store)
        if time.perf_counter() - started > arguments.seconds / 2:
            break
    told_bench = f"{name}: {measured} of {arguments.evaluations} configurations"
    print(f"{told_bench} after {time.perf_counter() - started:.0f} s", flush=True)

    usable, unusable, unreached = [], {}, []
    for proxy in in_order(arguments.proxies):
        if time.perf_counter() - started > arguments.seconds:
            unreached.append(proxy)
            continue
        try:
            scores = scored(task, space, calibration, proxy, arguments.seed, store, Silent())
        except BitfrontError as cause:
            unusable[proxy] = str(cause)
            print(f"  {proxy:24} cannot score this model: {cause}", flush=True)
        else:
            usable.append(proxy)
            print(f"  {proxy:24} {scores.seconds:8.2f} s", flush=True)
    bench = run_bench(task, space, usable, evaluations=measured, seed=arguments.seed, recipe=RECIPE, store=store)
    choice = {"proxy": bench.choice.proxy, "reason": bench.choice.reason} if bench.choice else None
    report = {**bench.trust.to_dict(), "choice": choice}
    trust = Trust.model_validate(report)
    show(
        terminal_table(trust, f"{name} ({task.metric})"),
        told(trust),
        f"choice    {bench.choice.reason}" if bench.choice else "",
        "",
    )
    return {
        "metric": task.metric,
        "samples": samples,
        "sites": len(space.sites),
        "measured": len(bench.measurements),
        "trust": report,
        "unusable": unusable,
        "unreached": unreached,
        "failed": len(bench.failures),
        "seconds": time.perf_counter() - started,
    }


def bench_task(name: str, samples: int, formats: Sequence[str]) -> tuple[bf.Task, bf.SearchSpace]:
    """A zoo model with so many samples of each split, ready for ``RECIPE``, and its space."""
    entry = zoo.load(name, calibration=samples, validation=samples, holdout=samples)
    task = bf.Task(
        entry.model,
        calibration=entry.calibration,
        validation=entry.validation,
        holdout=entry.holdout,
        loss=entry.loss,
        quality=entry.quality,
        name=name,
    )
    space = bf.SearchSpace.from_model(entry.model, entry.example_inputs, formats=formats)
    return prepared(task, space, RECIPE), space  # biases to correct where layers have none


def in_order(names: Sequence[str] | None) -> list[str]:
    """The proxies with fewest derivatives first."""
    known = known_proxies()
    return sorted(names or known, key=lambda name: known[name].gradients if name in known else 0)


def markdown(name: str, result: dict[str, Any]) -> str:
    """The table of one model for the docs, the best at fixed size first, baselines last."""
    trust = Trust.model_validate(result["trust"])

    def rank(item: Any) -> tuple[bool, float]:
        row = item[1]
        return row.baseline, -(row.kendall_fixed.value if row.kendall_fixed else -1.0)

    lines = [f"### {name}, {result['metric']}, {result['measured']} configurations", ""]
    lines += ["| " + " | ".join(heads(trust)) + " |", "|" + "---|" * len(heads(trust))]
    for proxy, row in sorted(trust.rows.items(), key=rank):
        lines.append("| " + " | ".join(" ".join(part for part in pair if part) for pair in cells(proxy, row)) + " |")
    lines += ["", *(f"`{proxy}` cannot score this model: {reason}." for proxy, reason in result["unusable"].items())]
    if result["unreached"]:
        lines.append(f"Not reached in the time given: {', '.join(result['unreached'])}.")
    return "\n".join([*lines, ""])


def summary(files: Sequence[Path]) -> str:
    """One table over all models: rho at fixed size with its interval, regret at fixed size, seconds."""
    models: dict[str, Any] = {}
    for file in files:
        models |= json.loads(file.read_text())["models"]
    rows = {name: result["trust"]["rows"] for name, result in models.items()}
    proxies = sorted({each for found in rows.values() for each in found}, key=lambda each: -mean_rho(each, rows))
    heading = [f"{name}, {models[name]['metric']}" for name in models]
    lines = ["| proxy | " + " | ".join(heading) + " |", "|---|" + "---|" * len(models)]
    lines += [
        f"| {each} | " + " | ".join(summary_cell(found.get(each)) for found in rows.values()) + " |" for each in proxies
    ]
    measured = ", ".join(f"{name} {result['measured']} x {result['samples']}" for name, result in models.items())
    return "\n".join([*lines, "", f"Configurations x samples: {measured}.", ""])


def mean_rho(proxy: str, rows: dict[str, Any]) -> float:
    """Mean rho at fixed size, a model without one counting 0; baselines last."""
    found = [row[proxy] for row in rows.values() if proxy in row]
    values = [row["spearman_fixed"]["value"] for row in found if row["spearman_fixed"]]
    return sum(values) / len(rows) - 10 * found[0]["baseline"] if values else -20.0


def summary_cell(row: dict[str, Any] | None) -> str:
    """One proxy on one model."""
    if row is None:
        return "not scored"
    rho, regret = row["spearman_fixed"], row["regret_fixed"]
    told = f"{rho['value']:.2f} [{rho['low']:.2f}, {rho['high']:.2f}]" if rho else "undefined"
    return f"{told}; {regret:.2f}" + (f"; {row['seconds']:.3g} s" if row["seconds"] is not None else "")


if __name__ == "__main__":
    main()
