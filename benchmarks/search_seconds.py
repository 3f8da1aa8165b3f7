"""Seconds from model to front by stage, and how they grow with sites, formats and workers."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import bitfront as bf
from bitfront.search import LocalExecutor, RayExecutor
from bitfront.search.executor import Executor
from bitfront.store import Store
from search_tasks import FOUR, PROXIES, SAMPLES, SEVEN, Bed, Notebook

EVALUATIONS = 32


def seconds(book: Notebook, name: str) -> None:
    """The same search from nothing: all sites or a part, four formats or seven, one process or two workers."""
    cases: dict[str, tuple[tuple[str, ...], float, Executor]] = {
        "all sites, 4 formats, in this process": (FOUR, 1.0, LocalExecutor()),
        "half of the sites": (FOUR, 0.5, LocalExecutor()),
        "7 formats": (SEVEN, 1.0, LocalExecutor()),
        "Ray, 1 worker": (FOUR, 1.0, RayExecutor(1)),
        "Ray, 2 workers": (FOUR, 1.0, RayExecutor(2)),
    }
    for label, (formats, share, executor) in cases.items():
        key = f"{name}/{label}"
        if key in book:
            continue
        if book.over:
            print(f"the time is up before {key}", flush=True)
            return
        with tempfile.TemporaryDirectory() as folder:
            store = Store(f"sqlite:///{Path(folder) / 'store.db'}")
            bed = Bed(name, formats, SAMPLES[name], store)
            task = bed.task
            started = time.perf_counter()
            space = bed.space
            if share < 1.0:
                keep = round(share * len(space.sites))
                space = bf.SearchSpace.from_model(
                    task.model, bed.entry.example_inputs, formats=list(formats), exclude=space.names[keep:]
                )
            result = bf.run(
                task,
                space,
                objectives=["quality", "avg_bits"],
                constraints={"avg_bits": 4.0},
                evaluations=EVALUATIONS,
                executor=executor,
                proxies=list(PROXIES),
                recipe=bed.recipe,
                store=store,
                finalists=2,
            )
            total = time.perf_counter() - started
            store.close()
        stages = [
            {"stage": each["stage"], "of": each["detail"], "seconds": each["seconds"]}
            for each in result.report["stages"]
        ]
        row = {"sites": len(space.sites), "formats": len(formats), "evaluations": len(result.points), "stages": stages}
        evaluating = sum(p.validation.seconds + (p.holdout.seconds if p.holdout else 0.0) for p in result.points)
        book.write(key, {**row, "total": total, "evaluating": evaluating, "wall": result.report["seconds"]})
        print(
            f"{key:60} {total:.1f} s, of it {evaluating:.1f} s evaluations",
            {k: round(v, 1) for k, v in result.report["seconds"].items()},
            flush=True,
        )
