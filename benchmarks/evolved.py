"""Evolved formulas against hand-made proxies, on networks that the search for the formulas never saw.

``python benchmarks/evolved.py --store sqlite:///out/proxies.db`` takes the benches that ``benchmarks/proxies.py``
measured (what is missing is measured), adds the statistics that formulas are built from, and writes each bench to
``out/bench/NAME``. Then, with every network left out once, formulas evolve on one half of the configurations of the
other networks, and all candidates are judged on the network that was left out:

- Spearman's rho and Kendall's tau, overall and at fixed size, with 95 % bootstrap intervals; Spearman's rho among the
  best 20 % and 50 % (measured) as in EMQ's table; top-k regret; and paired differences to the evolved formula,
- measured quality of what the allocator picks with each candidate (``--allocate``: with some) at 3, 4, 5 and 6 average
  bits, once with weight-only formats and once with 8-bit activations,
- formulas tried per minute.

At last formulas evolve on one half of all networks; that one is written to ``out/evolved_library.json``, ready to ship.
Everything is kept in the stores, so a stopped run goes on where it was. JSON goes to ``out/evolved.json``, Markdown and
figures beside it (``evolved_report.py``).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bitfront as bf
import numpy as np
import torch
from bitfront import zoo
from bitfront.errors import BitfrontError
from bitfront.evaluators import Calibration
from bitfront.files import write_text
from bitfront.formats import Format
from bitfront.hw_models import price
from bitfront.measurement import difference
from bitfront.proxies import Sensitivity
from bitfront.proxies import proxies as known_proxies
from bitfront.proxies.formulas import Formula, scores
from bitfront.proxies.formulas.library import Entry, read_library, write_library
from bitfront.search import LocalExecutor, Silent, StoredBench, build_bench, calibrated
from bitfront.search.bench import measured
from bitfront.search.evolution import BenchData, EvolutionSettings, HeldOut, evolve_held_out
from bitfront.search.evolution.held_out import EVOLVED, SIZE
from bitfront.search.rank_statistics import Estimate, resamples, spearman, top_regret
from bitfront.search.stages import score_key, scored
from bitfront.space import Configuration
from bitfront.store import Store
from evolved_report import write_report

from proxies import FORMATS, RECIPE, SAMPLES, bench_task, in_order

NETWORKS = ("digits_resnet20", "fashion_resnet", "minilm_l6", "efficientnet_lite0")
BUDGETS = (3.0, 4.0, 5.0, 6.0)  # average bits
SHARES, PICKS = (0.2, 0.5), (1, 5, 20)
FORMULAS = ("emq", "evolved")  # proxies that are formulas themselves
COSTLY = ("measured_kl", "measured_loss", "measured_quality", "interest_points", "pairwise")  # perturb every site
VARIANTS = ("weights", "activations")
PAIRS_SECONDS = 60.0  # of an allocation with interactions


@dataclass
class Network:
    """A network with all that is known of it."""

    task: bf.Task
    space: bf.SearchSpace
    store: Store
    calibration: Calibration
    bench: StoredBench
    sensitivities: dict[str, Sensitivity]
    unusable: dict[str, str]

    @property
    def data(self) -> BenchData:
        """What the evolution gets."""
        return BenchData.stored(self.bench, self.sensitivities)

    def table(self, expression: str, orientation: int) -> np.ndarray:
        """Loss that a formula predicts: [sites, formats]."""
        return orientation * scores(Formula.parse(expression), self.bench.statistics)


def main() -> None:
    """Load, evolve, judge, allocate, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument(
        "--store", nargs="+", default=["sqlite:///out/proxies.db"], help="of benchmarks/proxies.py; NAME=URL for one"
    )
    parser.add_argument("--formulas-store", default="sqlite:///out/evolved.db", help="keeps what was tried")
    parser.add_argument("--proxies", nargs="+", default=None, help="hand-made ones; default: all")
    parser.add_argument("--stored-only", action="store_true", help="leave out proxies whose scores no store holds")
    parser.add_argument("--allocate", nargs="+", default=None, help="proxies that allocate too; default: all")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="of the allocation")
    parser.add_argument("--evaluations", type=int, default=440, help="configurations of each bench")
    parser.add_argument("--samples", type=int, default=None, help="of each split; default: as benchmarks/proxies.py")
    parser.add_argument("--seconds", type=float, default=900.0, help="of each evolution")
    parser.add_argument("--formulas", type=int, default=None, help="tried in each evolution, instead of --seconds")
    parser.add_argument("--islands", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--budgets", nargs="+", type=float, default=list(BUDGETS), help="average bits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/evolved.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    networks = {name: load(name, arguments) for name in arguments.networks}
    evolutions = evolve_all(networks, arguments)
    found: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "recipe": str(RECIPE),
        "formats": list(FORMATS),
        "workers": arguments.workers,
        "settings": asdict(settings_of(arguments)),
        "networks": {name: described(network) for name, network in networks.items()},
        "evolutions": {name: {**each.to_dict(), "archive": archive(each)} for name, each in evolutions.items()},
        "held_out": {
            name: held_out_rows(networks[name], each, arguments.seed)
            for name, each in evolutions.items()
            if each.unseen is not None
        },
        "allocation": {},
        "duels": {},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_library(arguments.out.with_name(f"{arguments.out.stem}_library.json"), [shipped(networks, evolutions)])
    left_out = {name: each for name, each in evolutions.items() if each.unseen is not None}
    for variant, name in [(variant, name) for variant in arguments.variants for name in left_out]:
        save(found, started, arguments.out)  # measuring takes longest; what is known is kept
        picked, duels = allocations(networks[name], left_out[name], arguments, variant)
        found["allocation"].setdefault(name, {})[variant] = picked
        found["duels"].setdefault(name, {})[variant] = duels
        print(f"{variant}: measured what is picked for {name} after {time.perf_counter() - started:.0f} s", flush=True)
    save(found, started, arguments.out)
    print(write_report(found, arguments.out.with_suffix("")))


def save(found: dict[str, Any], started: float, path: Path) -> None:
    """Write the JSON."""
    found["seconds"] = time.perf_counter() - started
    write_text(path, json.dumps(found, indent=1, allow_nan=False) + "\n")


def load(name: str, arguments: argparse.Namespace) -> Network:
    """A network with its bench and the scores of the hand-made proxies; the bench is also written as files."""
    samples = arguments.samples or SAMPLES.get(name, 64)
    task, space = bench_task(name, samples, FORMATS)
    store = Store(store_of(name, arguments.store))
    started = time.perf_counter()
    bench = build_bench(
        task, space, evaluations=arguments.evaluations, seed=arguments.seed, recipe=RECIPE, store=store, progress=Told()
    )
    bench.save(arguments.out.parent / "bench" / name)
    calibration = calibrated(task, space, RECIPE, store, Silent())
    sensitivities: dict[str, Sensitivity] = {}
    unusable: dict[str, str] = {}
    for proxy in in_order(arguments.proxies or [each for each in known_proxies() if each not in FORMULAS]):
        key = score_key(task, space, calibration, proxy, arguments.seed)
        if arguments.stored_only and store.score(key) is None:
            unusable[proxy] = "not scored here: the store holds no scores of it"
            continue
        try:
            sensitivities[proxy] = scored(task, space, calibration, proxy, arguments.seed, store, Silent())
        except BitfrontError as cause:
            unusable[proxy] = str(cause)
    print(f"{name}: {len(bench)} configurations, {len(sensitivities)} proxies, {time.perf_counter() - started:.0f} s")
    return Network(task, space, store, calibration, bench, sensitivities, unusable)


def store_of(name: str, given: list[str]) -> str:
    """The store of a network: the one given as NAME=URL, else the one without a name."""
    named = dict(each.split("=", 1) for each in given if each.split("=", 1)[0] in zoo.names())
    plain = [each for each in given if each.split("=", 1)[0] not in named]
    if name not in named and not plain:
        raise SystemExit(f"--store names no store for {name}; add {name}=URL or a URL for all others")
    return named.get(name) or plain[0]


def settings_of(arguments: argparse.Namespace) -> EvolutionSettings:
    """Those of every evolution."""
    return EvolutionSettings(seed=arguments.seed, islands=arguments.islands)


def evolve_all(networks: dict[str, Network], arguments: argparse.Namespace) -> dict[str, HeldOut]:
    """An evolution with each network left out, by its name, and one with none left out, ``all``."""
    benches = {name: network.data for name, network in networks.items()}
    emq = read_library()["emq"]
    found: dict[str, HeldOut] = {}
    for left_out in [*(benches if len(benches) > 1 else []), None]:
        found[left_out or "all"] = evolve_held_out(
            [bench for name, bench in benches.items() if name != left_out],
            left_out=benches[left_out] if left_out else None,
            released={"emq": (emq.expression, emq.orientation)},
            costly=COSTLY,
            settings=settings_of(arguments),
            seconds=None if arguments.formulas else arguments.seconds,
            formulas=arguments.formulas,
            store=Store(arguments.formulas_store),
            workers=arguments.workers,
        )
        told = found[left_out or "all"]
        print(
            f"left out: {left_out or 'none'}: {told.chosen.expression}  ({told.evolution.tried} tried, "
            f"{told.evolution.per_minute:.0f} a minute)",
            flush=True,
        )
    return found


def described(network: Network) -> dict[str, Any]:
    """What the report says of a bench."""
    bench = network.bench
    return {
        "metric": bench.metric,
        "float_quality": bench.float_quality,
        "sites": len(bench.sites),
        "configurations": len(bench),
        "digest": bench.digest,
        "statistics": bench.details["statistics"],
        "failed": len(bench.details["failed"]),
        "unusable": network.unusable,
    }


def archive(found: HeldOut) -> list[dict[str, Any]]:
    """Fitness against size."""
    return [
        {"expression": each.expression, "size": each.size, "fitness": each.value} for each in found.evolution.archive
    ]


def candidates(network: Network, found: HeldOut) -> dict[str, tuple[np.ndarray, Sensitivity | None]]:
    """Loss tables [sites, formats] of all that is compared on a network that was left out."""
    emq = read_library()["emq"]
    fitness = found.chosen.fitness
    assert fitness is not None  # what is chosen has one
    tables: dict[str, tuple[np.ndarray, Sensitivity | None]] = {}
    for name, expression, orientation in (
        (EVOLVED, found.chosen.expression, fitness.orientation),
        ("emq", emq.expression, emq.orientation),
    ):
        try:
            tables[name] = network.table(expression, orientation), None
        except BitfrontError as cause:
            print(f"{network.task.name}: {name} cannot score it: {cause}")
    return tables | {name: (each.values, each) for name, each in network.sensitivities.items()}


def held_out_rows(network: Network, found: HeldOut, seed: int) -> dict[str, dict[str, Any]]:
    """Every candidate on the network that was left out, with the ranking among the best and more picks."""
    assert found.unseen is not None  # the caller sees to it
    bench = network.bench
    predictions = {
        name: bench.predicted(table) if scores_ is None else np.array([scores_.joint(c) for c in bench.configurations])
        for name, (table, scores_) in candidates(network, found).items()
    }
    predictions[SIZE] = -bench.sizes
    rows = {}
    for name, predicted in predictions.items():
        standing = asdict(found.unseen.standings[name][network.task.name])
        top = {f"top_{share:.0%}": among_the_best(predicted, bench.measured, share, seed) for share in SHARES}
        regrets = {f"regret_{picks}": top_regret(predicted, bench.measured, picks) for picks in PICKS}
        against = found.unseen.comparisons.get(name)
        rows[name] = {
            **{key: standing[key] for key in ("spearman", "spearman_fixed", "kendall", "kendall_fixed")},
            **top,
            **regrets,
            "behind": asdict(against.difference) if against else None,
            "chance": against.chance if against else None,
            "seconds": network.sensitivities[name].seconds if name in network.sensitivities else None,
        }
    return rows


def among_the_best(predicted: np.ndarray, quality: np.ndarray, share: float, seed: int) -> dict[str, float] | None:
    """Spearman's rho among the configurations that are measured to be best, with its interval."""
    best = np.argsort(quality, kind="stable")[: max(3, round(share * len(quality)))]
    rho = Estimate.of(spearman(predicted[best], quality[best], resamples(len(best), 1000, seed)))
    return asdict(rho) if rho else None


def allocations(
    network: Network, found: HeldOut, arguments: argparse.Namespace, variant: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measured quality of what the allocator picks with the candidates: budget -> candidate.

    Also the paired differences of the evolved formula to its rivals and to uniform, sample by sample.
    """
    space = network.space
    quantizes = np.array([Format.parse(name).quantizes_activations for name in space.formats])
    rounding = space.allowed & quantizes
    allowed = {
        "weights": space.allowed & ~quantizes,
        "activations": np.where(rounding.any(axis=1, keepdims=True), rounding, space.allowed),
    }[variant]
    named = arguments.allocate and {EVOLVED, "emq", found.rival, found.peer, *arguments.allocate}
    asked = {name: each for name, each in candidates(network, found).items() if not named or name in named}
    picked: dict[tuple[float, str], Configuration] = {}
    for budget in arguments.budgets:
        for name, (table, scores_) in asked.items():
            picked[budget, name] = pick(network, table, allowed, budget, scores_)
        uniform = f"w{budget:.0f}" + ("a8" if variant == "activations" else "")
        if uniform in space.formats:
            picked[budget, f"uniform {uniform}"] = space.uniform(uniform)
    distinct = list(dict.fromkeys(picked.values()))
    known = measured(network.task, space, network.calibration, RECIPE, distinct, network.store, LocalExecutor(), Told())
    exact = price(space, metrics=("avg_bits", "size_mb"))
    result: dict[str, Any] = {f"{budget:g}": {} for budget in arguments.budgets}
    duels: dict[str, Any] = {f"{budget:g}": {} for budget in arguments.budgets}
    for (budget, name), configuration in picked.items():
        quality = known.measurements.get(configuration)
        costs = exact.of(configuration)
        result[f"{budget:g}"][name] = {
            "digest": configuration.digest,
            "avg_bits": costs["avg_bits"].value,
            "size_mb": costs["size_mb"].value,
            "quality": None if quality is None else {"value": quality.value, "low": quality.low, "high": quality.high},
        }
        ours = picked.get((budget, EVOLVED))  # a formula may not be usable on this network
        own = known.measurements.get(ours) if ours is not None else None
        if (
            own is not None
            and quality is not None
            and (name in (found.rival, found.peer) or name.startswith("uniform"))
        ):
            duels[f"{budget:g}"][name.split()[0]] = asdict(difference(own, quality))
    return result, duels


def pick(
    network: Network, table: np.ndarray, allowed: np.ndarray, budget: float, scores_: Sensitivity | None
) -> Configuration:
    """The configuration of least predicted loss within a budget of average bits."""
    space = network.space
    bits = price(space, metrics=("avg_bits",))["avg_bits"].values
    pairs = scores_.pairs if scores_ is not None else None
    found = bf.allocate(
        table,
        {"avg_bits": bits},
        {"avg_bits": budget},
        ties=space.tie_indices,
        allowed=allowed,
        pair_loss=pairs,
        time_limit=PAIRS_SECONDS if pairs else None,
    )
    return space.configuration(found.choice)


def shipped(networks: dict[str, Network], evolutions: dict[str, HeldOut]) -> Entry:
    """The formula that was chosen on all networks, as an entry of a library."""
    final = evolutions["all"]
    fitness = final.chosen.fitness
    assert fitness is not None  # what is chosen has one
    date = datetime.now(UTC).date().isoformat()

    def numbers(found: HeldOut, where: Any) -> dict[str, Any]:
        mean = asdict(where.means[EVOLVED])
        return {
            "spearman_fixed": mean["spearman_fixed"],
            "spearman": mean["spearman"],
            "configurations": sum(where.points.values()),
            "rivals, paired difference": {
                name: asdict(where.comparisons[name].difference)
                for name in dict.fromkeys((found.rival, found.peer, "emq"))
                if name in where.comparisons
            },
        }

    return Entry(
        name="evolved-1",
        kind="evolved",
        expression=final.chosen.expression,
        orientation=fitness.orientation,
        summary=f"evolved on {len(networks)} networks, judged on their other configurations",
        source="benchmarks/evolved.py",
        found={
            "networks": list(networks),
            "benches": {name: network.bench.digest for name, network in networks.items()},
            "date": date,
            "settings": asdict(final.evolution.settings),
            "tried": final.evolution.tried,
        },
        held_out={
            "other configurations of the same networks": numbers(final, final.seen),
            "networks left out (the formula evolved without them)": {
                name: {"expression": each.chosen.expression, **numbers(each, each.unseen)}
                for name, each in evolutions.items()
                if each.unseen is not None
            },
        },
    )


class Told(Silent):
    """Prints what is already known, and how much is to be measured."""

    def note(self, text: str) -> None:
        """Print the line."""
        print(f"  {text}", flush=True)


if __name__ == "__main__":
    main()
