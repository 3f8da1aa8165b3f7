"""The accuracy predictor of pairs (architecture, formats): how many quantized measurements does it need?

    nice python benchmarks/architecture_predictor.py --plot out/architecture_predictor.html [--preset fashion]

Sub-networks of an elastic supernet on real labels; quality is the cross-entropy on the test images of the digits, or
the share of 2,000 test images of Fashion-MNIST that are wrong. Float labels are of 200 random architectures, quantized
ones of others, with random formats (w2a8, w4a4, w4a8, w8a8; the share of every format is drawn first, so that mild and
coarse pairs both occur): 306 pairs, those of a third of the architectures held out. From the others, n pairs are drawn,
and compared are

- ``pretrained``: the predictor that learned the float labels, adapted to the n pairs: what formats lose on top;
- ``one network``: a network that learned the float labels with the columns of formats closed (0), and goes on from
  there on float labels and the n pairs (APQ, arXiv:2006.08509);
- ``scratch``: a network of the same size and number of steps, on the n pairs alone;
- ``ridge``: ridge regression on the same columns, on the n pairs alone, its penalty by leave-one-out;
- ``floats only``: the float quality that the pretrained predictor foretells, whatever the formats.

Shown are Spearman's and Kendall's correlation and the mean absolute error of the logarithm on the held-out pairs, means
over seeds with Student's interval at 95 %. Labels are kept as JSON in ``--out``; a run that is killed goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bitfront import Task
from bitfront.architecture import ArchitectureSpace, Choices, Family, Genome
from bitfront.files import write_text
from bitfront.search.families.elastic import elastic_family
from bitfront.search.joint import JointSpace, Subnets
from bitfront.search.joint.accuracy_encoding import GenomeEncoding
from bitfront.search.joint.accuracy_network import Ensemble
from bitfront.search.joint.accuracy_predictor import AccuracyPredictor
from bitfront.search.joint.evaluation import JointEvaluator
from bitfront.space import SearchSpace
from bitfront.store import Store
from bitfront.zoo import digits_resnet20, fashion_resnet
from bitfront.zoo.labelled import Images
from numpy.typing import NDArray
from scipy import stats

FORMATS = ("w2a8", "w4a4", "w4a8", "w8a8")
FLOATS, PAIRS, HELD_OUT = 200, 306, 102
COUNTS = (20, 50, 100, 200)
HIDDEN, MEMBERS, STEPS = 48, 5, 300  # of the predictor

METHODS = ("pretrained", "one network", "scratch", "ridge", "floats only")
METRICS = {
    "spearman": "Spearman's correlation",
    "kendall": "Kendall's tau",
    "error": "mean absolute error of the logarithm",
}

Labels = list[tuple[Genome, float]]
Lines = list[dict[str, Any]]
FloatArray = NDArray[np.float64]


def random_formats(space: SearchSpace, draw: np.random.Generator) -> Any:
    """A configuration: the share of every format from a flat Dirichlet distribution, then each site by these."""
    share = draw.dirichlet(np.ones(len(space.formats)))
    choice = np.array([draw.choice(len(space.formats), p=share) for _ in space.sites], dtype=np.int64)
    return space.configuration(choice)


@dataclass(frozen=True)
class Preset:
    """What is measured: test images, how many at most, metric, pairs of one architecture."""

    data: Callable[[], tuple[Images, Images]]
    images: int
    quality: str
    each: int


PRESETS = {
    "digits": Preset(digits_resnet20.data, 500, "loss", 3),
    "fashion": Preset(fashion_resnet.data, 2000, "accuracy", 2),
}


def task_of(family: Family, preset: Preset) -> Task:
    """The task whose quality is foretold."""
    train, test = preset.data()
    count = min(preset.images, len(test))
    return Task(
        family.build(family.architecture.largest()),
        calibration=[(train.inputs[:64], train.targets[:64])],
        validation=[(test.inputs[at : at + 250], test.targets[at : at + 250]) for at in range(0, count, 250)],
        quality=preset.quality,
    )


def measured(family: Family, preset: Preset, out: Path) -> tuple[Labels, Labels]:
    """Float labels and pairs, in a fixed order; what the file knows is not measured again."""
    path = out / "labels.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    subnets = Subnets(JointSpace(family, FORMATS), task_of(family, preset), store=Store(f"sqlite:///{out}/store.db"))
    evaluator, draw = JointEvaluator(subnets), np.random.default_rng(0)
    chosen: dict[Choices, None] = {}
    while len(chosen) < FLOATS + PAIRS // preset.each:
        chosen[family.architecture.sample(draw)] = None
    floats: Labels = []
    for choices in list(chosen)[:FLOATS]:
        genome = Genome(choices)
        if genome.digest not in known:
            known[genome.digest] = _float_quality(subnets.judge.task(family.build(choices), family.resolution(choices)))
        floats.append((genome, known[genome.digest]))
    write_text(path, json.dumps(known))
    print(f"{len(floats)} float labels", flush=True)
    pairs: Labels = []
    for number, choices in enumerate(list(chosen)[FLOATS:]):
        own = np.random.default_rng([1, number])
        names = f"{choices.digest} pairs"
        if names not in known:
            space = subnets.at(choices).space
            found = [random_formats(space, own) for _ in range(preset.each)]
            values = evaluator.evaluate_many([each.to_dict() for each in found], architecture=choices)
            known[names] = [[each.to_dict(), one.value] for each, one in zip(found, values, strict=True)]
            write_text(path, json.dumps(known))
        parts = {"architecture": choices.to_dict()}
        pairs += [(Genome.from_dict({**parts, "formats": formats}), value) for formats, value in known[names]]
    return floats, pairs


def _float_quality(task: Task) -> float:
    with torch.no_grad():
        outputs = torch.cat([task.model(*each.inputs) for each in task.validation])
    targets = torch.cat([each.targets for each in task.validation])
    if task.quality == "loss":
        return float(torch.nn.functional.cross_entropy(outputs.double(), targets))
    return float((outputs.argmax(1) != targets).double().mean())


def ridge(train: Labels, encoding: GenomeEncoding, wanted: Sequence[Genome]) -> FloatArray:
    """Ridge regression of the logarithm, the penalty by leave-one-out."""
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=np.logspace(-2, 3, 16))
    model.fit(encoding.rows([genome for genome, _ in train]), np.log([value for _, value in train]))
    return np.exp(np.asarray(model.predict(encoding.rows(wanted))))


def _adapted(before: AccuracyPredictor, train: dict[Genome, float], wanted: Sequence[Genome]) -> FloatArray:
    return before.adapted(train).predict(wanted)


def _one_network(
    encoding: GenomeEncoding,
    floats: dict[Choices, float],
    train: dict[Genome, float],
    seed: int,
    wanted: Sequence[Genome],
) -> FloatArray:
    """Float labels first; then both, each group with the same weight, as rows that are repeated."""
    nets = encoding.rows([Genome(each) for each in floats])
    logs, pairs = np.log(list(floats.values())), np.log(list(train.values()))
    drawn = Ensemble.drawn(encoding.size, HIDDEN, MEMBERS, seed)
    first = drawn.parameters[0]
    first[:, encoding.of_architecture :] = 0.0
    scale = float(np.mean([logs.mean(), pairs.mean()])), float(np.std(np.concatenate([logs, pairs])))
    before = drawn.rescaled(float(logs.mean()), float(logs.std())).trained(nets, logs, STEPS)
    times = max(1, round(len(floats) / len(train)))
    rows = np.concatenate([nets, *[encoding.rows(list(train))] * times])
    found = before.rescaled(*scale).trained(rows, np.concatenate([logs, *[pairs] * times]), STEPS)
    return np.exp(found.outputs(encoding.rows(wanted)).mean(axis=0))


def _scratch(encoding: GenomeEncoding, train: dict[Genome, float], seed: int, wanted: Sequence[Genome]) -> FloatArray:
    return AccuracyPredictor.scratch(encoding, train, seed=seed).predict(wanted)


def compared(architecture: ArchitectureSpace, floats: Labels, pairs: Labels, seeds: int, path: Path) -> Lines:
    """One line for every seed, number of pairs and method; kept in a file."""
    done: Lines = json.loads(path.read_text()) if path.is_file() else []
    known = {(line["seed"], line["pairs"]) for line in done}
    held, pool = pairs[-HELD_OUT:], pairs[:-HELD_OUT]  # whole architectures
    wanted, truth = [genome for genome, _ in held], np.array([value for _, value in held])
    encoding = GenomeEncoding.of(architecture, [genome for genome, _ in pairs])
    qualities = {genome.choices: value for genome, value in floats}
    for seed in range(seeds):
        missing = [count for count in COUNTS if (seed, count) not in known]
        if not missing:
            continue
        order = np.random.default_rng(seed).permutation(len(pool))
        before = AccuracyPredictor.pretrained(encoding, qualities, seed=seed)
        for count in missing:
            train = [pool[int(index)] for index in order[:count]]
            methods: dict[str, Callable[[], FloatArray]] = {
                "pretrained": partial(_adapted, before, dict(train), wanted),
                "one network": partial(_one_network, encoding, qualities, dict(train), seed, wanted),
                "scratch": partial(_scratch, encoding, dict(train), seed, wanted),
                "ridge": partial(ridge, train, encoding, wanted),
                "floats only": partial(before.predict, [Genome(each.choices) for each in wanted]),
            }
            for name, method in methods.items():
                started = time.process_time()
                found = method()
                done.append(
                    {
                        "seed": seed,
                        "pairs": count,
                        "method": name,
                        "spearman": float(stats.spearmanr(found, truth).statistic),
                        "kendall": float(stats.kendalltau(found, truth).statistic),
                        "error": float(np.abs(np.log(found / truth)).mean()),
                        "seconds": time.process_time() - started,
                    }
                )
        write_text(path, json.dumps(done))
        print(f"seed {seed} done", flush=True)
    return done


def cells(done: Lines, metric: str, method: str) -> list[tuple[int, float, float]]:
    """Number of pairs, mean over seeds, half the 95 % interval."""
    found = []
    for count in COUNTS:
        values = [line[metric] for line in done if line["pairs"] == count and line["method"] == method]
        half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
        found.append((count, float(np.mean(values)), float(half)))
    return found


def show(done: Lines) -> None:
    """Markdown: a table for each metric, and what pretraining gains, paired by seed."""
    for metric, title in METRICS.items():
        print(f"\n| {title} | {' | '.join(f'{count} pairs' for count in COUNTS)} |\n|---|{'---:|' * len(COUNTS)}")
        for method in METHODS:
            row = [f"{mean:.3f} ± {half:.3f}" for _, mean, half in cells(done, metric, method)]
            print(f"| {method} | {' | '.join(row)} |")
    by = {(line["seed"], line["pairs"], line["method"]): line for line in done}
    ahead = [
        sum(
            value["spearman"] > by[seed, pairs, "scratch"]["spearman"]
            for (seed, pairs, name), value in by.items()
            if name == "pretrained" and pairs == count
        )
        for count in COUNTS
    ]
    print(f"\npretrained ranks better than scratch in {ahead} of {len({line['seed'] for line in done})} seeds")


def plot(done: Lines, path: Path) -> None:
    """Rank correlation and error against the number of pairs, of the methods that learn pairs."""
    from plotly.colors import qualitative
    from plotly.subplots import make_subplots

    shown = ("spearman", "error")
    figure = make_subplots(1, 2, subplot_titles=[METRICS[each] for each in shown])
    for column, metric in enumerate(shown, 1):
        for color, method in zip(qualitative.D3, METHODS[:-1], strict=False):
            counts, means, halves = zip(*cells(done, metric, method), strict=True)
            bars = {"type": "data", "array": halves}
            line, legend = {"color": color}, {"legendgroup": method, "showlegend": column == 1}
            figure.add_scatter(x=counts, y=means, error_y=bars, name=method, line=line, row=1, col=column, **legend)
    figure.update_xaxes(type="log", title="quantized pairs", tickvals=COUNTS)
    figure.update_layout(template="plotly_white", width=900, height=400, margin={"l": 50, "r": 10, "t": 30, "b": 50})
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(path, include_plotlyjs=True, config={"displayModeBar": False})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="digits")
    parser.add_argument("--out", type=Path, default=Path("out/architecture_predictor"))
    parser.add_argument("--weights", type=Path, help="of the supernet; default: trained, or from the cache")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out = arguments.out / arguments.preset
    out.mkdir(parents=True, exist_ok=True)
    family = elastic_family(arguments.preset, weights=arguments.weights, fold=True)
    floats, pairs = measured(family, PRESETS[arguments.preset], out)
    done = compared(family.architecture, floats, pairs, arguments.seeds, out / "runs.json")
    show(done)
    if arguments.plot:
        plot(done, arguments.plot)


if __name__ == "__main__":
    main()
