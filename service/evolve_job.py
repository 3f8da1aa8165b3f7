"""``bitfront proxies evolve JOB``: formulas for a user's own model, and whether they beat the hand-made proxies.

The job's bench is measured (what the store knows is not measured again) and cut into two halves alike in size. On the
first half formulas evolve and the best hand-made proxy is chosen; the second half judges both. The formula is kept
only if it ranks the second half better, with the whole interval of the paired difference above zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from ..errors import InvalidInput, UnsupportedModel
from ..proxies import proxies as known_proxies
from ..proxies.formulas import Formula
from ..proxies.formulas.library import Entry, read_library, write_library
from ..proxies.formulas.reference import reference
from ..search import Executor, Progress, RayExecutor, Silent, StoredBench, build_bench, calibrated
from ..search.evolution import BenchData, EvolutionSettings, HeldOut, evolve_held_out
from ..search.evolution.held_out import EVOLVED
from ..search.proxy_choice import AUTO
from ..search.ray_cluster import ray_cluster
from ..search.stages import scores_of
from ..store import Store
from .job import Job
from .run_bench import asked
from .run_job import executor_of, load

LEAST = 48  # configurations: two halves of 24
_FOLD = 12  # configurations of a fold, at least
_RIVALS = (*AUTO, "sqnr", "activation_aware", "fit", "sampled_fisher")


def evolve_job(
    job: Job,
    folder: Path,
    out: Path,
    *,
    seconds: float = 300.0,
    evaluations: int = 128,
    proxies: str | None = None,
    store: str | None = None,
    executor: str = "ray",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Search for a formula that ranks configurations of a job's model better than the hand-made proxies.

    Args:
        job: model, data, space, metric and quantization.
        folder: where the job's relative paths start.
        out: file for the formula, written if it is better.
        seconds: of the evolution; measuring and scoring come before.
        evaluations: configurations of the bench; half of them judge.
        proxies: hand-made ones to beat, names with commas between them, ``all`` or ``auto``; default: the job's own and
            those that need at most a few passes.
        store: URL of the store; what it knows is neither measured nor scored again, formulas included.
        executor: ``"ray"`` (also runs the islands) or ``"local"``.
        progress: who watches.

    Returns:
        Plain data: the formula, the judgement, ``beaten``, and what to write into the job.

    Raises:
        InvalidInput: an option is wrong; nothing was loaded then.
        BitfrontError: see ``search.build_bench`` and ``search.evolution.evolve``.
    """
    if evaluations < LEAST:
        raise InvalidInput(f"--evaluations {evaluations}; half of them choose and half judge: give at least {LEAST}")
    if not seconds > 0:
        raise InvalidInput(f"--seconds {seconds}; give the evolution a positive time")
    if out.is_dir() or out.suffix != ".json":
        raise InvalidInput(f"--out {out}: give a file that ends in .json for the formula")
    names = _rivals(job, proxies)
    workers, watch, knowledge = executor_of(executor, job), progress or Silent(), Store(store)
    with ray_cluster(workers.workers * workers.cpus) if isinstance(workers, RayExecutor) else nullcontext():
        found, stored, left_out = _search(job, folder, names, workers, knowledge, watch, seconds, evaluations)
    if found.beaten:
        write_library(out, [_entry(job, found, stored.digest)])
    return _told(job, found, left_out, out) | {"metric": stored.metric, "measured": len(stored)}


def _search(
    job: Job,
    folder: Path,
    names: list[str],
    workers: Executor,
    knowledge: Store,
    watch: Progress,
    seconds: float,
    evaluations: int,
) -> tuple[HeldOut, StoredBench, dict[str, str]]:
    """Measure, score, evolve, judge."""
    made, recipe, seed = load(job, folder, watch), job.quantization.recipe, job.search.seed
    stored = build_bench(
        made.task,
        made.space,
        evaluations=evaluations,
        seed=seed,
        recipe=recipe,
        store=knowledge,
        executor=workers,
        progress=watch,
    )
    calibration = calibrated(made.task, made.space, recipe, knowledge, watch)
    scored, left_out = scores_of(made.task, made.space, calibration, names, seed, knowledge, watch, True)
    if not scored:
        raise UnsupportedModel(f"no hand-made proxy can score this model: {next(iter(left_out.values()))}")
    bench = BenchData.stored(stored, scored)
    found = evolve_held_out(
        [bench],
        released={name: (entry.expression, entry.orientation) for name, entry in read_library().items()},
        settings=settings_for(len(bench), seed),
        seconds=seconds,
        store=knowledge,
        workers=getattr(workers, "workers", 1),
        progress=watch,
    )
    return found, stored, left_out


def settings_for(points: int, seed: int) -> EvolutionSettings:
    """Settings for a bench of so many configurations, half of which choose: folds of at least twelve, or none."""
    folds = min(4, points // 2 // _FOLD)
    return EvolutionSettings(seed=seed, folds=folds if folds > 1 else 0)


def _rivals(job: Job, given: str | None) -> list[str]:
    """Names of the hand-made proxies to beat; checked before anything is loaded."""
    own = [] if job.proxies == "auto" else job.proxies
    names = asked(job, given)[0] if given is not None else [*own, *_RIVALS]
    rivals = [name for name in dict.fromkeys(names) if name != EVOLVED]  # the shipped formulas are judged beside
    if not rivals:
        raise InvalidInput("--proxies names no hand-made proxy to beat; leave it out, or write --proxies output_fisher")
    for name in rivals:
        if name not in known_proxies() and not name.startswith("formula:"):
            raise InvalidInput(f"unknown proxy {name!r}; known: {', '.join(sorted(known_proxies()))}, all, auto")
    return rivals


def _entry(job: Job, found: HeldOut, digest: str) -> Entry:
    """The formula as a file holds it."""
    assert found.chosen.fitness is not None
    record = found.to_dict()
    evolution = found.evolution
    return Entry(
        name=f"evolved for {job.title}",
        kind="evolved",
        expression=str(Formula.parse(found.chosen.expression)),
        orientation=found.chosen.fitness.orientation,
        summary=f"ranks configurations of {job.title} better than {found.rival}",
        source="bitfront proxies evolve",
        found={
            "networks": list(evolution.networks),
            "benches": {job.title: digest},
            "date": datetime.now(UTC).date().isoformat(),
            "settings": asdict(evolution.settings),
            "formulas": evolution.tried,
            "fitness": found.chosen.value,
        },
        held_out={"configurations": record["seen"]},
    )


def _told(job: Job, found: HeldOut, left_out: Mapping[str, str], out: Path) -> dict[str, Any]:
    """What the command tells."""
    record = found.to_dict()
    kept = f"formula:{out}" if found.beaten else found.rival
    return {
        "name": job.title,
        **record,
        "proxy": reference(record["expression"], record["orientation"]),
        "kept": kept,
        "out": str(out) if found.beaten else None,
        "verdict": _verdict(found),
        "left_out": dict(left_out),
    }


def _verdict(found: HeldOut) -> str:
    """In words, with the numbers that it rests on."""
    points = sum(found.seen.points.values())
    own = found.seen.means[EVOLVED].spearman_fixed
    assert found.rival is not None  # something scored the model
    duel = found.seen.comparisons[found.rival]
    rival = found.seen.means[found.rival].spearman_fixed
    numbers = (
        f"Spearman's rho at fixed size {own.value:.3f} against {rival.value:.3f} on {points} held-out configurations, "
        f"difference {duel.difference.value:+.3f} ({duel.difference.low:+.3f} … {duel.difference.high:+.3f}), "
        f"p = {duel.chance:.3g}"
    )
    if found.beaten:
        return f"the evolved formula beats {found.rival}: {numbers}"
    return f"the evolved formula does not beat {found.rival}, which is kept: {numbers}"


def evolved_table(found: Mapping[str, Any]) -> Table:
    """The candidates on the held-out configurations, the best at fixed size first."""
    judged = found["seen"]
    points = sum(judged["points"].values())
    table = Table(title=f"{found['name']}: {points} held-out configurations, {found['metric']}", title_justify="left")
    table.add_column("proxy")
    for head in ("ρ at fixed size", "95 % interval", "ρ overall", "behind the formula by", "p"):
        table.add_column(head, justify="right")
    means = sorted(judged["means"].items(), key=lambda item: -item[1]["spearman_fixed"]["value"])
    for name, row in means:
        fixed, overall = row["spearman_fixed"], row["spearman"]["value"]
        duel = judged["comparisons"].get(name)
        behind = [f"{duel['difference']['value']:+.3f}", f"{duel['chance']:.3g}"] if duel else ["", ""]
        chosen = " (chosen on the other half)" if name in (EVOLVED, found["rival"]) else ""
        cells = [f"{fixed['value']:.3f}", f"{fixed['low']:.3f} … {fixed['high']:.3f}", f"{overall:.3f}", *behind]
        table.add_row(f"{name}{chosen}", *cells, style="bold" if name == EVOLVED else "")
    return table
