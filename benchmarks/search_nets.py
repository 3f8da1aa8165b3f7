"""Networks at a budget of average bits: the loop against its rivals, judged on samples that none of them saw."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from bitfront.search.groups import Groups
from bitfront.space import Configuration
from bitfront.store import Store
from search_tasks import SAMPLES, Bed, Notebook, alone, gap, greedy, looped, told

GREEDY, EXACT = "weight_mse", ("hessian_trace", "measured_kl")
SEARCHES = ("loop", "evolution")
REFERENCES = ("uniform", "exact measured_kl")  # whom everything is compared with in pairs


def nets(
    book: Notebook,
    store: Store,
    names: Sequence[str],
    formats: tuple[str, ...],
    widths: Sequence[float],
    evaluations: Sequence[int],
    searches: Sequence[str] = SEARCHES,
) -> None:
    """Every method on every network and budget that is not in the notebook yet."""
    for name in names:
        bed = Bed(name, formats, SAMPLES[name], store)
        for width in widths:
            prefix = f"{name}/{formats[0]}-{formats[-1]}x{len(formats)}/{width:g}"
            methods: list[tuple[str, int]] = [("rivals", 0)]
            methods += [(method, count) for count in evaluations for method in searches]
            for method, count in methods:
                if book.over:
                    print(f"the time is up before {prefix} {method} {count}", flush=True)
                    return
                if method == "rivals":
                    found = rivals(bed, width) if f"{prefix}/uniform" not in book else {}
                elif f"{prefix}/{method} {count}" in book:
                    found = {}
                else:
                    found = {f"{method} {count}": searched(bed, method, width, count)}
                for label, (configuration, extra) in found.items():
                    enter(book, bed, prefix, label, configuration, extra)


def rivals(bed: Bed, width: float) -> dict[str, tuple[Configuration, dict[str, Any]]]:
    """Uniform, greedy and exact allocation: nothing is measured but the uniform configurations."""
    problem = bed.problem(width, (*EXACT, GREEDY))
    uniforms = [each for each in bed.space.uniforms().values() if bed.bits(each) <= width * (1 + 1e-9)]
    values = [each.value for each in bed.measured(uniforms)]
    scores = {name: problem.sensitivities[name] for name in (*EXACT, GREEDY)}
    choice = greedy(problem.loss(GREEDY), problem.cost("avg_bits"), width, Groups.of(bed.space).sites)
    found = {
        "uniform": (uniforms[int(np.argmin(values))], {}),
        f"greedy {GREEDY}": (bed.space.configuration(choice), {}),
    }
    for proxy in EXACT:
        found[f"exact {proxy}"] = (problem.solve(proxy, {"avg_bits": width}), {"score_seconds": scores[proxy].seconds})
    return found


def searched(bed: Bed, method: str, width: float, count: int) -> tuple[Configuration, dict[str, Any]]:
    """What the loop ships after so many evaluations, or the best that evolution has measured."""
    started = time.perf_counter()
    extra: dict[str, Any]
    if method == "loop":
        result, order = looped(bed, width, count)
        chosen = result.choose()
        best = min(order, key=lambda each: _rank(bed, each, width))
        extra = {
            "guarded": chosen.point.configuration != best,
            "reason": chosen.reason,
            "shares": {arm["name"]: arm["evaluations"] for arm in result.report["search"]["proposers"]},
            "surrogate": result.report["search"]["surrogate"],
            "origin": chosen.point.origin,
            "best on validation": {"digest": best.digest, "test": told(bed.measured([best], "test")[0])},
            "judged against exact": chosen.plain_exact(),
        }
        configuration = chosen.point.configuration
    else:
        order = alone("level_switch", bed.problem(width), bed.measured, count, seed=0, start="random")
        configuration, extra = min(order, key=lambda each: _rank(bed, each, width)), {}
    best_so_far = np.minimum.accumulate([_rank(bed, each, width) for each in order])
    extra |= {"first": int(np.argmin(best_so_far)) + 1, "evaluations": len(order)}
    return configuration, {**extra, "seconds": time.perf_counter() - started}


def _rank(bed: Bed, configuration: Configuration, width: float) -> float:
    """Validation quality; infinite beyond the budget."""
    return bed.measured([configuration])[0].value if bed.bits(configuration) <= width * (1 + 1e-9) else float("inf")


def enter(
    book: Notebook, bed: Bed, prefix: str, label: str, configuration: Configuration, extra: dict[str, Any]
) -> None:
    """Judge a configuration on the test samples and write it down, with paired differences to the references."""
    found = bed.measured([configuration], "test")[0]
    row: dict[str, Any] = {
        "configuration": configuration.to_dict(),
        "avg_bits": bed.bits(configuration),
        "validation": told(bed.measured([configuration])[0]),
        "test": told(found),
        "metric": found.metric,
        **extra,
    }
    for reference in REFERENCES:
        if f"{prefix}/{reference}" in book:
            rival = Configuration.from_dict(book[f"{prefix}/{reference}"]["configuration"])
            row[f"against {reference}"] = gap(found, bed.measured([rival], "test")[0])
    book.write(f"{prefix}/{label}", row)
    told_gaps = "".join(
        f"  {row[key]['ratio']:.3f} of {key.removeprefix('against ')}" for key in row if key.startswith("against ")
    )
    print(
        f"{prefix:34} {label:20} {found.value:.5f}  validation {row['validation']['value']:.5f}{told_gaps}", flush=True
    )
