"""What each way of calibrating buys: held-out quality of uniform configurations under every recipe.

    python benchmarks/calibration.py [MODEL ...] [--quick] [--json FILE]

Part 1, weights alone at 4 and 3 bits: rounding to nearest (``minmax``, ``mse``), GPTQ, AdaRound, AdaQuant, and on top
of ``mse`` cross-layer equalization, bias correction and batch-norm re-estimation.
Part 2, inputs too (w8a8, w4a8, w4a4): the five observers, SmoothQuant, bias correction.
Every number is the KL divergence to the float model (nats) on the holdout data, which no calibration reads; in brackets
the 95 % interval of its paired difference to the first column. Seconds are those of the calibration.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import bitfront as bf
import torch
from bitfront import zoo
from bitfront.evaluators import FakeQuantEvaluator, calibrate
from bitfront.measurement import difference

MODELS = ("efficientnet_lite0", "minilm_l6", "char_gpt", "digits_resnet20")
WEIGHTS = {
    "mse": bf.Recipe(),
    "minmax": bf.Recipe(weights="minmax"),
    "gptq": bf.Recipe(weights="gptq"),
    "adaround": bf.Recipe(weights="adaround"),
    "adaquant": bf.Recipe(weights="adaquant"),
    "cross-layer": bf.Recipe(equalization="cross_layer"),
    "bias correction": bf.Recipe(bias_correction=True),
    "batch norm": bf.Recipe(batch_norm=True),
    "gptq + bias": bf.Recipe(weights="gptq", bias_correction=True),
}
INPUTS = {
    "minmax": bf.Recipe(activations="minmax"),
    "moving average": bf.Recipe(activations="moving_average"),
    "percentile": bf.Recipe(activations="percentile"),
    "mse": bf.Recipe(activations="mse"),
    "entropy": bf.Recipe(activations="entropy"),
    "smoothquant": bf.Recipe(activations="mse", equalization="smoothquant"),
    "mse + bias": bf.Recipe(activations="mse", bias_correction=True),
}
PARTS = (
    ("weights", WEIGHTS, ("w4", "w3")),
    ("inputs", INPUTS, ("w8a8", "w4a8", "w4a4")),
)


@dataclass
class Row:
    """One recipe on one model and format."""

    part: str
    model: str
    format: str
    recipe: str
    kl: float
    low: float
    high: float
    seconds: float
    refused: str = ""


def measure(name: str, quick: bool) -> list[Row]:
    sizes = {"calibration": 16, "validation": 16, "holdout": 16} if quick else {}
    entry = zoo.load(name, **sizes)
    rows: list[Row] = []
    for part, recipes, formats in PARTS:
        first: dict[str, bf.Measurement] = {}
        for title, recipe in recipes.items():
            task = bf.Task(
                entry.model,
                calibration=entry.calibration,
                validation=entry.validation,
                holdout=entry.holdout,
                quality="kl",
                name=name,
            )
            offered = [*formats, *(["w4", "w8"] if part == "inputs" else [])]  # embeddings cannot round an input
            space = bf.SearchSpace.from_model(task.model, entry.example_inputs, formats=offered)
            if recipe.batch_norm and not any(
                isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in entry.model.modules()
            ):
                continue  # nothing to estimate again
            started = time.perf_counter()
            try:
                ready = bf.prepared(task, space, recipe)
                calibration = calibrate(ready, space, recipe)
            except bf.BitfrontError as cause:
                rows += [Row(part, name, each, title, *[float("nan")] * 4, refused=str(cause)) for each in formats]
                print(f"{name:20} {part:8} {title:16} refused: {cause}", flush=True)
                continue
            seconds = time.perf_counter() - started
            evaluator = FakeQuantEvaluator(ready, space, calibration, reestimate_batch_norm=recipe.batch_norm)
            for each in formats:
                found = evaluator.evaluate(space.uniform(each), "holdout")
                base = first.setdefault(each, found)
                gap = difference(found, base)
                rows.append(Row(part, name, each, title, found.value, gap.low, gap.high, seconds))
                print(
                    f"{name:20} {part:8} {each:5} {title:16} {found.value:10.5f}  "
                    f"[{gap.low:+.5f}, {gap.high:+.5f}]  {seconds:6.1f} s",
                    flush=True,
                )
    return rows


def table(rows: list[Row], part: str) -> str:
    """Markdown: a row per model and format, a column per recipe; bold where it is better than the first."""
    chosen = [row for row in rows if row.part == part]
    recipes = list(dict.fromkeys(row.recipe for row in chosen))
    lines = [f"| model | format | {' | '.join(recipes)} |", "|---" * (2 + len(recipes)) + "|"]
    for model, each in dict.fromkeys((row.model, row.format) for row in chosen):
        cells = []
        for recipe in recipes:
            row = next((r for r in chosen if (r.model, r.format, r.recipe) == (model, each, recipe)), None)
            text = "—" if row is None or row.refused else f"{row.kl:.3g}"
            cells.append(f"**{text}**" if row is not None and row.high < 0 else text)
        lines.append(f"| {model} | {each} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--quick", action="store_true", help="16 samples per split")
    parser.add_argument("--json", type=Path, default=Path("out/benchmarks/calibration.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for name in options.models for row in measure(name, options.quick)]
    for part, *_ in PARTS:
        print(f"\n{table(rows, part)}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "quick": options.quick,
        "rows": [asdict(row) for row in rows],
    }
    options.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
