"""Overfitting: validation against held-out loss along the search, with few validation samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from bitfront.space import Configuration
from bitfront.store import Store
from search_tasks import FOUR, SAMPLES, Bed, Notebook, alone, looped, with_more_data

AVG_BITS, EVALUATIONS = 4.0, 64
VALIDATION = (16, 64)
SEEDS = 3


def overfitting(book: Notebook, store: Store, name: str) -> None:
    """The best so far on the validation data, and what it is worth on samples that the search does not see."""
    for validation in VALIDATION:
        bed = Bed(name, FOUR, replace(SAMPLES[name], calibration=validation, validation=validation), store)
        for method in ("level_switch", "loop"):
            for seed in range(SEEDS):
                key = f"{name}/{validation}/{method}/{seed}"
                if key in book:
                    continue
                if book.over:
                    print(f"the time is up before {key}", flush=True)
                    return
                if method == "loop":
                    order = looped(bed, AVG_BITS, EVALUATIONS, seed, finalists=2)[1]
                else:
                    problem = bed.problem(AVG_BITS)
                    order = alone(method, problem, bed.measured, EVALUATIONS, seed, start="random")
                book.write(key, along(bed, order))
                steps = book[key]["steps"]
                print(
                    f"{key:36} {len(steps)} steps, validation {steps[-1]['validation']:.5f}, "
                    f"test {steps[-1]['test']:.5f}, best on the way {min(s['test'] for s in steps):.5f}, "
                    f"chosen with more data {book[key]['finalist']['test']:.5f}",
                    flush=True,
                )


def along(bed: Bed, order: list[Configuration]) -> dict[str, object]:
    """Every improvement of the best so far: after how many evaluations, validation and held-out loss."""
    steps: list[dict[str, float]] = []
    best = float("inf")
    for number, configuration in enumerate(order, 1):
        value = bed.measured([configuration])[0].value
        if bed.bits(configuration) <= AVG_BITS * (1 + 1e-9) and value < best:
            best = value
            steps.append(
                {"evaluations": number, "validation": value, "test": bed.measured([configuration], "test")[0].value}
            )
    uniform = bed.space.uniforms()["w4"]
    finalist = with_more_data(bed, order, AVG_BITS)
    return {
        "steps": steps,
        "finalist": {
            "validation": bed.measured([finalist])[0].value,
            "test": bed.measured([finalist], "test")[0].value,
        },
        "uniform": {
            "validation": bed.measured([uniform])[0].value,
            "test": bed.measured([uniform], "test")[0].value,
        },
        "optimism": float(np.log(steps[-1]["test"] / steps[-1]["validation"])),
        "samples": {"validation": bed.samples.validation, "test": bed.samples.test},
    }
