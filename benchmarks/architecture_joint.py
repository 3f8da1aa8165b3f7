r"""Joint against separate on the elastic supernet: architecture and bits in one search, one after the other, one alone.

    nice python benchmarks/architecture_joint.py --price latency_ms [--weights FILE] \
        --plot out/architecture_joint.html

Fashion-MNIST with its labels; quality is the share of images that are wrong. Every arm spends the same number of
evaluations (a float network that a search measures counts as one, the largest excepted) and offers the same formats
where it offers formats at all:

- ``joint``: ``run_joint`` on all architectures;
- ``joint, REINFORCE``: the same with a controller as the proposer;
- ``joint, model-based``: the same with a Gaussian process as the proposer;
- ``architecture, then bits``: half of the evaluations for architectures in w8a8, then the formats of four of their
  front, evenly spread, with the other half;
- ``bits only``: the formats of the largest architecture;
- ``architecture only``: architectures in w8a8.

Two prices:

- ``latency_ms``: 16 images on one thread of this CPU, the sum of the layers' kernels, each really timed; every layer in
  w8a8 or in float, whichever kernel is faster or better (narrower weights have no faster kernel on a CPU). With
  ``--whole`` the first seed's fronts of ``joint`` and ``architecture only`` are exported and timed whole;
- ``bops``: bit operations (MACs x weight bits x activation bits) with w2a8, w4a4, w4a8 and w8a8, which stand for the
  latency of a bit-serial device: they are counted, not measured.

A seed has its own 1,000 validation images and its own draws; all are judged on the same held-out images, which no
search sees. The hypervolume is that of the held-out error against the logarithm of the price, of the points that are on
the measured validation front, in percent of a box that is the same for all; the accuracy at a budget is that of the
point within it that was best on the validation data. Intervals are Student's at 95 % over the seeds. Arms that are done
lie in the folder ``--out``, and evaluations of joint searches: a run that is killed goes on with the arm it was in.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitfront as bf
import moocore
import numpy as np
import torch
from bitfront.architecture import ArchitectureSpace, Choices, Dimension, Family, Genome
from bitfront.files import write_text
from bitfront.search.families.elastic import elastic_family
from bitfront.search.joint import (
    FrontEvolution,
    JointEvaluator,
    JointSpace,
    ModelBased,
    Reinforce,
    Subnets,
    Told,
    gaps,
    merge,
    proposer_from,
    run_joint,
)
from bitfront.search.joint.timed_whole import timed_whole
from bitfront.search.progress import Silent
from bitfront.search.stages import priced
from bitfront.store import Store
from bitfront.zoo.fashion_resnet import data
from bitfront.zoo.labelled import Images
from scipy import stats

WIDE = "w8a8"
ERRORS = (0.05, 0.25)  # sides of the box
VALIDATION, HOLDOUT = 1000, 2500  # images
PICKED = 4  # architectures whose formats are searched after the architecture
BATCH = 4  # architectures proposed at a time by the search for architectures alone

Point = dict[str, Any]
Run = dict[str, Any]
ARMS = (
    "joint",
    "joint, REINFORCE",
    "joint, model-based",
    "architecture, then bits",
    "bits only",
    "architecture only",
)


@dataclass(frozen=True)
class Price:
    """What networks cost.

    Attributes:
        metric: its name.
        title: of the axis.
        unit: of budgets, as a factor and a name.
        formats: offered.
        batch: images.
        budgets: at which accuracies are compared.
        box: least and most.
    """

    metric: str
    title: str
    unit: tuple[float, str]
    formats: tuple[str, ...]
    batch: int
    budgets: tuple[float, ...]
    box: tuple[float, float]


PRICES = {
    "latency_ms": Price(
        "latency_ms", "milliseconds for 16 images", (1.0, "ms"), (WIDE, "bf16"), 16, (0.25, 0.5, 1.0), (0.1, 4.5)
    ),
    "bops": Price(
        "bops", "bit operations", (1e6, "M"), ("w2a8", "w4a4", "w4a8", WIDE), 1, (25e6, 60e6, 130e6), (4e6, 260e6)
    ),
}


class Fixed:
    """A family of a few architectures of another one, the largest last.

    Args:
        family: the other one.
        kept: its architectures.
    """

    def __init__(self, family: Family, kept: Sequence[Choices]) -> None:
        self.family, self.kept = family, tuple(kept)
        self.name = f"{family.name} fixed"
        self.architecture = ArchitectureSpace((Dimension("network", "operator", tuple(range(len(kept)))),))

    def build(self, choices: Choices) -> torch.nn.Module:
        """See ``Family.build``."""
        return self.family.build(self.of(choices))

    def resolution(self, choices: Choices) -> int | None:
        """See ``Family.resolution``."""
        return self.family.resolution(self.of(choices))

    def of(self, choices: Choices) -> Choices:
        """The architecture that a choice stands for."""
        return self.kept[int(choices["network"])]

    @property
    def digest(self) -> str:
        """See ``Family.digest``."""
        text = " ".join([self.family.digest, *(each.digest for each in self.kept)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def pieces(images: Images, start: int, stop: int, size: int = 250) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of a range of images."""
    return [(images.inputs[at : at + size], images.targets[at : at + size]) for at in range(start, stop, size)]


def task_of(family: Family, seed: int) -> bf.Task:
    """The task of a seed: its own validation images, the held-out images of all."""
    train, test = data()
    begin = seed % 5 * VALIDATION
    return bf.Task(
        family.build(family.architecture.largest()),
        calibration=pieces(train, 1000, 1128, 64),
        validation=pieces(test, begin, begin + VALIDATION),
        holdout=pieces(test, 5000, 5000 + HOLDOUT),
        quality="accuracy",
        name=f"fashion-{seed}",
    )


class Bench:
    """One seed: every arm on one task.

    Args:
        family: the elastic supernet.
        price: what counts beside the error.
        seed: of data and draws.
        evaluations: of every arm.
        out: folder of what was measured.
    """

    def __init__(self, family: Family, price: Price, seed: int, evaluations: int, out: Path) -> None:
        self.family, self.price, self.seed, self.evaluations = family, price, seed, evaluations
        self.task, self.url = task_of(family, seed), f"sqlite:///{out}/store.db"
        self.store = Store(self.url)

    def joint(self, family: Family, evaluations: int, **options: Any) -> list[Point]:
        """A joint search; the points that were judged on held-out images."""
        found = run_joint(
            self.task,
            family,
            formats=self.price.formats,
            objectives=["quality", self.price.metric],
            batch=self.price.batch,
            evaluations=evaluations,
            seed=self.seed,
            executor="local",
            store=self.url,
            whole_models=0,
            **options,
        )
        points = []
        for each in found.points:
            choices = each.genome.choices
            if each.holdout is not None:
                points.append(
                    {
                        "architecture": (family.of(choices) if isinstance(family, Fixed) else choices).to_dict(),
                        "formats": each.genome.configuration.to_dict(),
                        "validation": each.validation.value,
                        "holdout": each.holdout.value,
                        "price": each.prices[self.price.metric].value,
                    }
                )
        return points

    def architectures(self, evaluations: int) -> list[Point]:
        """Architectures in one format, proposed by the same evolution as in the joint search; the front judged."""
        space = self.family.architecture
        subnets = Subnets(JointSpace(self.family, (WIDE,)), self.task, store=self.store)
        evaluator, proposer = JointEvaluator(subnets), FrontEvolution(space, seed=self.seed)
        points: dict[Choices, Point] = {}
        new = [space.largest(), space.smallest()]
        while new:
            for choices in new:
                points[choices] = self._measured(evaluator, subnets, choices)
            fronts = [np.array([[each["validation"], each["price"]]]) for each in points.values()]
            merged = merge(fronts)
            share = merged.share(len(fronts)) / len(merged)
            told = zip(points, fronts, gaps(fronts, merged.values), share, strict=True)
            proposer.tell([Told(one, float(at[0, 0]), at, float(gap), float(part)) for one, at, gap, part in told])
            new = proposer.ask(min(BATCH, evaluations - len(points)))
        table = np.array([[each["validation"], each["price"]] for each in points.values()])
        front = [one for one, kept in zip(points, moocore.is_nondominated(table), strict=True) if kept]
        for choices in front:
            genome = Genome.from_dict({key: points[choices][key] for key in ("architecture", "formats")})
            measured = evaluator.evaluate(genome.configuration, "holdout", architecture=choices)
            points[choices]["holdout"] = measured.value
        return [points[choices] for choices in front]

    def _measured(self, evaluator: JointEvaluator, subnets: Subnets, choices: Choices) -> Point:
        space = subnets.at(choices).space
        wide, metric = space.uniforms()[WIDE], self.price.metric
        table = priced(space, "cpu", self.price.batch, [metric], self.store, Silent())
        return {
            "architecture": choices.to_dict(),
            "formats": wide.to_dict(),
            "validation": evaluator.evaluate(wide, architecture=choices).value,
            "price": table.of(wide)[metric].value,
        }

    def separate(self) -> list[Point]:
        """Architectures first, then the formats of some of their front."""
        half = self.evaluations // 2
        first = sorted(self.architectures(half), key=lambda each: float(each["price"]))
        at = np.unique(np.linspace(0, len(first) - 1, PICKED).round().astype(int))
        kept = [self.family.architecture.choices(first[int(index)]["architecture"]) for index in at]
        return [*first, *self.joint(Fixed(self.family, kept), self.evaluations - half)]

    def arms(self) -> dict[str, Callable[[], list[Point]]]:
        """What is compared."""
        largest = self.family.architecture.largest()
        return {
            "joint": lambda: self.joint(self.family, self.evaluations),
            "joint, REINFORCE": lambda: self.joint(self.family, self.evaluations, proposer=Reinforce),
            "joint, model-based": lambda: self.joint(
                self.family, self.evaluations, proposer=proposer_from(ModelBased, startup=8)
            ),
            "architecture, then bits": self.separate,
            "bits only": lambda: self.joint(Fixed(self.family, [largest]), self.evaluations),
            "architecture only": lambda: self.architectures(self.evaluations),
        }


def whole(family: Family, price: Price, seed: int, runs: Sequence[Run]) -> None:
    """Export the fronts of two arms and time them whole, beside the price that they were found with."""
    subnets = Subnets(JointSpace(family, price.formats), task_of(family, seed))
    for arm in ("joint", "architecture only"):
        points = next(run["points"] for run in runs if run["arm"] == arm and run["seed"] == seed)
        front = sorted(front_of(points), key=lambda each: float(each["price"]))
        genomes = [Genome.from_dict({key: each[key] for key in ("architecture", "formats")}) for each in front]
        found, failed = timed_whole(subnets, genomes, price.batch, Silent())
        ratios = [found[genome] / each["price"] for genome, each in zip(genomes, front, strict=True) if genome in found]
        shown = ", ".join(f"{found[genome]:.3f}" for genome in genomes if genome in found)
        print(f"{arm}: {shown} ms whole; {min(ratios):.2f} to {max(ratios):.2f} of the price, {len(failed)} failed")


def front_of(points: Sequence[Point]) -> list[Point]:
    """The points that none dominates on the validation data."""
    table = np.array([[each["validation"], each["price"]] for each in points])
    return [each for each, kept in zip(points, moocore.is_nondominated(table), strict=True) if kept]


def volume(points: Sequence[Point], price: Price) -> float:
    """Hypervolume of the held-out errors of the validation front, in percent of the box."""
    (low, high), (cheap, dear) = ERRORS, price.box
    table = np.array([[each["holdout"], math.log(each["price"])] for each in front_of(points)])
    table = np.maximum(table, [low, math.log(cheap)])
    box = (high - low) * math.log(dear / cheap)
    return 100 * float(moocore.hypervolume(table, ref=[high, math.log(dear)])) / box


def accuracy(points: Sequence[Point], budget: float) -> float:
    """Held-out accuracy in percent of the best validation point within a budget; NaN where there is none."""
    within = [each for each in points if each["price"] <= budget]
    return 100 - 100 * float(min(within, key=lambda each: each["validation"])["holdout"]) if within else math.nan


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the 95 % interval (Student) over seeds."""
    if len(values) < 2:
        return float(np.mean(values)), math.nan
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values)), float(half)


def figures(points: Sequence[Point], price: Price) -> list[float]:
    """Hypervolume, and accuracy at every budget."""
    return [volume(points, price), *(accuracy(points, budget) for budget in price.budgets)]


def written(values: Sequence[float], form: str = ".1f") -> str:
    """Mean and interval as a cell; a dash where a seed has no point within the budget."""
    if not np.isfinite(values).all():
        return "–"
    mean, half = interval(values)
    return f"{mean:{form}} ± {half:.1f}" if math.isfinite(half) else f"{mean:{form}}"


def show(runs: Sequence[Run], price: Price) -> None:
    """Markdown tables: the arms, and paired by seed what the joint search is ahead."""
    names = list(dict.fromkeys(run["arm"] for run in runs))
    table = {name: {run["seed"]: figures(run["points"], price) for run in runs if run["arm"] == name} for name in names}
    scale, unit = price.unit
    heads = ["hypervolume, %", *(f"accuracy at {budget / scale:g} {unit}" for budget in price.budgets)]
    print(f"| arm | seeds | {' | '.join(heads)} |\n|---|---:|{'---:|' * len(heads)}")
    for name, rows in table.items():
        print(f"| {name} | {len(rows)} | {' | '.join(map(written, zip(*rows.values(), strict=True)))} |")
    print(f"\n| joint is ahead of | seeds | {' | '.join(heads)} |\n|---|---:|{'---:|' * len(heads)}")
    for name, rows in table.items():
        both = sorted(set(rows) & set(table.get("joint", {})))
        if name != "joint" and both:
            ahead = np.array([np.subtract(table["joint"][seed], rows[seed]) for seed in both])
            print(f"| {name} | {len(both)} | {' | '.join(written(column, '+.1f') for column in ahead.T)} |")


def plot(runs: Sequence[Run], price: Price, path: Path) -> None:
    """The held-out fronts of every arm and seed, and the median over seeds of the accuracy within each budget."""
    import plotly.graph_objects as go
    from plotly.colors import qualitative

    grid, figure = np.geomspace(*price.box, 160), go.Figure()
    for color, name in zip(qualitative.D3, dict.fromkeys(run["arm"] for run in runs), strict=False):
        own = [run["points"] for run in runs if run["arm"] == name]
        points = [each for found in own for each in front_of(found)]
        x, y = [each["price"] for each in points], [100 - 100 * each["holdout"] for each in points]
        figure.add_scatter(x=x, y=y, mode="markers", marker={"size": 4, "color": color}, showlegend=False)
        curves = np.array([[accuracy(found, budget) for budget in grid] for found in own])
        shown = np.isfinite(curves).all(axis=0)
        middle = np.median(curves[:, shown], axis=0)
        figure.add_scatter(x=grid[shown], y=middle, mode="lines", line={"color": color}, name=name)
    for budget in price.budgets:
        figure.add_vline(x=budget, line={"color": "silver", "width": 1})
    figure.update_xaxes(type="log", title=price.title, dtick="D2")
    figure.update_yaxes(range=[80, 92], title="held-out accuracy, %")
    figure.update_layout(template="plotly_white", width=860, height=460, margin={"l": 60, "r": 10, "t": 20, "b": 50})
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(path, include_plotlyjs=True, config={"displayModeBar": False})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--price", choices=list(PRICES), default="latency_ms")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--evaluations", type=int, default=32)
    parser.add_argument("--arms", nargs="*", help="default: all")
    parser.add_argument("--out", type=Path, default=Path("out/architecture_joint"))
    parser.add_argument("--weights", type=Path, help="of the supernet; default: trained, or from the cache")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--whole", action="store_true", help="time fronts of the first seed whole")
    parser.add_argument("--report", action="store_true", help="only show what was measured")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    price, out = PRICES[arguments.price], arguments.out / arguments.price
    out.mkdir(parents=True, exist_ok=True)
    family = None if arguments.report else elastic_family("fashion", weights=arguments.weights, fold=True)
    for seed in arguments.seeds:
        if family is None:
            break
        bench = Bench(family, price, seed, arguments.evaluations, out)
        for name, arm in bench.arms().items():
            path = out / f"{name.replace(', ', '-').replace(' ', '-')}-{arguments.evaluations}-{seed}.json"
            if path.is_file() or (arguments.arms and name not in arguments.arms):
                continue
            started = time.perf_counter()
            points = arm()
            run = {"arm": name, "seed": seed, "seconds": time.perf_counter() - started, "points": points}
            write_text(path, json.dumps(run))
            shown = [round(value, 2) for value in figures(points, price)]
            print(f"{path.stem}: {run['seconds']:.0f} s, {shown}", flush=True)
    found = [json.loads(path.read_text()) for path in out.glob(f"*-{arguments.evaluations}-*.json")]
    runs = sorted(found, key=lambda run: (ARMS.index(run["arm"]), run["seed"]))
    show(runs, price)
    if arguments.whole and family is not None:
        whole(family, price, arguments.seeds[0], runs)
    if arguments.plot:
        plot(runs, price, arguments.plot)


if __name__ == "__main__":
    main()
