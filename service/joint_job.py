"""Running a job that searches architectures and formats together, and exporting genomes of a finished one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..architecture import Family, Genome
from ..errors import InvalidInput
from ..exporters import STEPS, ExportReport, check_packages, export, restricted
from ..exporters import get as get_exporter
from ..files import replacing, write_text
from ..search import Executor, Progress
from ..search.families import called, make_family
from ..search.joint import JointPoint, JointResult, JointSpace, Subnets, run_joint
from ..search.joint.network_file import write_network
from ..search.stage import Ledger, Ran
from ..space import SearchSpace
from ..store import Store
from ..task import Task
from . import record
from .assemble import Assembled, imported, task_of
from .evidence import evidence_of, options_for
from .export_stage import exported
from .job import ArchitectureSource, Job
from .locations import is_url


def run_joint_job(
    job: Job,
    folder: Path,
    out: Path,
    *,
    store: Store,
    executor: Executor,
    progress: Progress,
    shown_as: str | None = None,
) -> tuple[JointResult, dict[str, Any]]:
    """Run a job with ``space.architecture`` and write its outputs; see ``run_job``.

    ``best.json`` is a genome, and ``export/`` holds beside the artifact of the export target the chosen network as a
    plain safetensors file of its float weights that carries the genome.
    """
    asked = _asked(job)
    if job.export is not None:
        check_packages(get_exporter(job.export.target))
    with progress.stage("load model, data and family", 1) as advance:
        task, _ = task_of(job, folder, store=store)
        family = family_of(asked, task, folder)
        advance(1)
    result = run_joint(
        task,
        family,
        formats=job.space.formats,
        exclude=job.space.exclude,
        ties=job.space.ties,
        device=job.device.name,
        batch=job.device.batch,
        runtime=job.device.runtime,
        objectives=job.objectives,
        constraints=job.constraints,
        evaluations=job.search.evaluations,
        seconds=job.search.seconds,
        seed=job.search.seed,
        executor=executor,
        proxy=asked.proxy,
        finalists=job.search.finalists,
        recipe=job.quantization.recipe,
        store=store,
        progress=progress,
        job={**job.plain(), "folder": str(folder)},
        record=record.of(job, folder, store),
        out=shown_as if shown_as is not None and is_url(shown_as) else str(out.resolve()),
        ledger=Ledger(),
        restrict=_restriction(job),
    )
    exports = _exports(job, result, out, store, progress)
    document = result.document(exports)
    with progress.stage("write the report", 1) as advance:
        _write_outputs(result, document, out)
        advance(1)
    for ran in summed(result.ledger):
        progress.note(ran.told())
    return result, document


def summed(ledger: Ledger) -> list[Ran]:
    """The stages of all architectures together, one line for each kind."""
    found: dict[tuple[str, str], Ran] = {}
    for ran in ledger.ran:
        name = (ran.stage, ran.detail)
        one = found.get(name, Ran(*name, "", 0, 0, 0.0))
        found[name] = Ran(
            *name, "", one.ran + ran.ran, one.reused + ran.reused, one.seconds + ran.seconds, one.saved + ran.saved
        )
    return list(found.values())


def family_of(asked: ArchitectureSource, task: Task, folder: Path) -> Family:
    """The family that a job names.

    Args:
        asked: name or function, and arguments; ``weights`` among them is a path relative to the job.
        task: model and data.
        folder: where relative paths start.

    Raises:
        InvalidInput: no such family, function or argument.
    """
    arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in asked.arguments.items()}
    if ":" in asked.family:
        return called(asked.family, imported(asked.family, folder, "space.architecture.family"), task, arguments)
    if isinstance(weights := arguments.get("weights"), str):
        arguments["weights"] = str(folder / weights)
    return make_family(asked.family, task, arguments)


def export_genome(
    document: Mapping[str, Any],
    chosen: Mapping[str, Any],
    job: Job,
    folder: Path,
    path: Path,
    target: str,
    progress: Progress,
) -> ExportReport:
    """Export one point of a finished joint run and check it back.

    Args:
        document: its ``front.json``.
        chosen: the point.
        job: that was run.
        folder: where its relative paths start.
        path: of the artifact.
        target: an export target.
        progress: who watches.

    Raises:
        InvalidInput: the family is not the one that was searched.
        ExportMismatch: the artifact does not compute what was measured.
    """
    asked = _asked(job)
    task, _ = task_of(job, folder)
    family = family_of(asked, task, folder)
    if family.digest != document["family"]["digest"]:
        raise InvalidInput(
            f"family {family.name} is {family.digest} now and was {document['family']['digest']} in this run: its "
            "weights or arguments changed; run the job again"
        )
    space = JointSpace(family, tuple(job.space.formats), tuple(job.space.exclude), _ties(job))
    subnets = Subnets(space, task, job.quantization.recipe)
    genome = Genome.from_dict({"architecture": chosen["architecture"], "formats": chosen["config"]})
    net, recipe = subnets.at(genome.choices), job.quantization.recipe
    with progress.stage(f"export {chosen['id']} to {target} and check back", STEPS) as advance:
        return export(
            net.module,
            genome.configuration,
            path,
            target,
            example_inputs=net.task.calibration[0].piece(0, 2),
            calibration=subnets.calibration(genome.choices),
            space=net.space,
            batch_norm=net.task.calibration if recipe.batch_norm else None,
            advance=advance,
            options=options_for(target, evidence_of(document, chosen)),
        )


def _asked(job: Job) -> ArchitectureSource:
    if job.space.architecture is None:
        raise InvalidInput("this job searches formats alone: it has no space.architecture")
    return job.space.architecture


def _ties(job: Job) -> str | tuple[tuple[str, ...], ...]:
    return job.space.ties if isinstance(job.space.ties, str) else tuple(tuple(group) for group in job.space.ties)


def _restriction(job: Job) -> Any:
    if job.export is None:
        return None
    return partial(_loadable, target=job.export.target, generation=job.export.generation)


def _loadable(space: SearchSpace, target: str, generation: str | None) -> SearchSpace:
    """The space without what an export target cannot load."""
    return restricted(space, get_exporter(target), generation).space


def _exports(job: Job, result: JointResult, out: Path, store: Store, watch: Progress) -> list[dict[str, Any]]:
    """The chosen network as a plain file and for the runtime; what ``front.json`` says of the artifact."""
    best = result.choose().point
    _write_network(result, best, out / "export" / f"{best.id}.safetensors")
    if job.export is None:
        return []
    target, choices = job.export.target, best.genome.choices
    net = result.subnets.at(choices)
    example = net.task.calibration[0].piece(0, 2)
    made = Assembled(net.task, net.space, example.inputs, net.task)
    document = result.document()
    point = next(each for each in document["points"] if each["id"] == best.id)
    wants = "evidence" in get_exporter(target).options
    report = exported(
        made,
        best.genome.configuration,
        result.subnets.calibration(choices),
        out / "export" / f"{best.id}.{target}",
        target,
        batch_norm=result.subnets.recipe.batch_norm,
        store=store,
        ledger=result.ledger,
        progress=watch,
        generation=job.export.generation,
        against_float=job.export.against_float,
        options=options_for(target, evidence_of(document, point)) if wants else {},
    )
    return [summary(report, out)]


def summary(report: ExportReport, out: Path) -> dict[str, Any]:
    """What the document says of an export, with the path relative to the output folder."""
    found = report.to_dict()
    found["path"] = str(Path(report.path).relative_to(out)) if Path(report.path).is_relative_to(out) else report.path
    return found


def _write_network(result: JointResult, point: JointPoint, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_network(result.module(point.genome), point.genome, result.subnets.joint.family, path)


def _write_outputs(result: JointResult, document: Mapping[str, Any], out: Path) -> None:
    """Write the output files, each whole or not at all; ``front.json`` last, as the sign that all are there."""
    from .joint_report import write_joint_report

    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "front.parquet") as side:
        frame = result.front.copy()
        for name in ("architecture", "formats"):
            frame[name] = frame[name].map(json.dumps)
        frame.to_parquet(side)
    result.best().to_json(out / "best.json")
    write_joint_report(document, out / "report.html")
    write_text(out / "front.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
