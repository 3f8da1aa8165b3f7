"""How the optimum under a latency budget changes between devices and batch sizes; one store, nothing measured twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import bitfront as bf
from bitfront.hw_models import Prices
from bitfront.search import Silent
from bitfront.search.stages import priced
from bitfront.space import Configuration
from bitfront.store import Store
from search_tasks import SAMPLES, Bed, Notebook, Replay

FORMATS = ("w4", "w8", "w8a8", "fp16")
WHERE = (("cpu", 1), ("cpu", 32), ("nvidia-t4", 1), ("nvidia-t4", 32))
SHARE = 0.35  # of the way from the fastest to the slowest configuration: the budget
EVALUATIONS = 16


def flip(book: Notebook, store: Store, name: str) -> None:
    """One search for every device and batch, then every answer priced everywhere."""
    bed = Bed(name, FORMATS, SAMPLES[name], store)
    found: dict[str, tuple[Configuration, Prices, float]] = {}
    for device, batch in WHERE:
        where = f"{device}/{batch}"
        prices = priced(bed.space, device, batch, ["latency_ms", "size_mb", "avg_bits"], store, Silent())
        table = prices["latency_ms"]
        least = bed.space.choice(_fastest(bed, prices))
        slowest = max(prices.of(each)["latency_ms"].value for each in bed.space.uniforms().values())
        low = float(prices.of(bed.space.configuration(least))["latency_ms"].value)
        budget = low + SHARE * (slowest - low)
        result = bf.run(
            bed.task,
            bed.space,
            device=device,
            batch=batch,
            objectives=["quality", "latency_ms"],
            constraints={"latency_ms": budget},
            evaluations=EVALUATIONS,
            executor=Replay(bed.measured),
            proxies=["measured_kl"],
            recipe=bed.recipe,
            store=store,
            finalists=2,
        )
        chosen = result.choose().point
        found[where] = chosen.configuration, prices, budget
        book.write(where, {"source": table.source, "provenance": table.provenance, "budget_ms": budget})
        print(f"{where:16} {table.source:9} budget {budget:.4f} ms  {_counts(bed, chosen.configuration)}", flush=True)
    for where, (configuration, _, _) in found.items():
        book.write(where, {**book[where], **_row(bed, configuration, found)})
        print(where, book[where]["latency_ms"], book[where]["differs_from"], flush=True)


def _fastest(bed: Bed, prices: Prices) -> Configuration:
    """The configuration of least latency."""
    limits = bf.allocate(prices["latency_ms"].values, {}, {}, ties=bed.space.tie_indices, allowed=bed.space.allowed)
    return bed.space.configuration(limits.choice)


def _counts(bed: Bed, configuration: Configuration) -> dict[str, int]:
    counts = Counter(configuration.values())
    return {name: counts.get(name, 0) for name in bed.space.formats}


def _row(
    bed: Bed, configuration: Configuration, found: dict[str, tuple[Configuration, Prices, float]]
) -> dict[str, Any]:
    """An answer: its formats, its quality, its latency everywhere, and in how many sites the others differ."""
    test = bed.measured([configuration], "test")[0]
    return {
        "configuration": configuration.to_dict(),
        "formats": _counts(bed, configuration),
        "test": {"value": test.value, "low": test.low, "high": test.high},
        "metric": test.metric,
        "latency_ms": {where: prices.of(configuration)["latency_ms"].value for where, (_, prices, _) in found.items()},
        "fits": {
            where: bool(prices.of(configuration)["latency_ms"].value <= budget * (1 + 1e-9))
            for where, (_, prices, budget) in found.items()
        },
        "differs_from": {
            where: sum(configuration[site] != other[site] for site in configuration)
            for where, (other, _, _) in found.items()
        },
    }
