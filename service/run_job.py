"""Running a job from its file to its output folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidInput
from ..evaluators import Calibration, Finetuned, calibrate, finetune
from ..exporters import STEPS, ExportReport, export
from ..exporters.registry import get as get_exporter
from ..files import replacing, write_text
from ..search import Executor, LocalExecutor, Point, Progress, RayExecutor, Result, Silent, calibrated, run
from ..space import Configuration
from ..store import Store
from .assemble import Assembled, assemble
from .job import Job, parse_job


def run_job(
    job: Job,
    folder: Path,
    out: Path,
    *,
    store: str | None = None,
    executor: str = "ray",
    progress: Progress | None = None,
) -> tuple[Result, dict[str, Any]]:
    """Run a job and write its outputs.

    Args:
        job: what is asked.
        folder: where the job's relative paths start.
        out: output folder; ``front.json``, ``front.parquet``, ``best.json``, ``report.html`` and ``export/`` appear in
            it when they are complete.
        store: URL of the store.
        executor: ``"ray"`` or ``"local"``.
        progress: who watches.

    Returns:
        The result and the document that ``front.json`` holds.

    Raises:
        BitfrontError: see ``search.run`` and ``exporters.export``.
    """
    watch = progress or Silent()
    if out.exists() and not out.is_dir():
        raise InvalidInput(f"--out {out} is a file; give a folder")
    if job.export is not None:
        get_exporter(job.export.target)  # refuse an unknown target before the search, not after it
    made = load(job, folder, watch)
    knowledge = Store(store)
    result = run(
        made.task,
        made.space,
        device=job.device.name,
        batch=job.device.batch,
        objectives=job.objectives,
        constraints=job.constraints,
        evaluations=job.search.evaluations,
        seconds=job.search.seconds,
        seed=job.search.seed,
        executor=executor_of(executor, job),
        proxies=job.proxies,
        recipe=job.quantization.recipe,
        store=knowledge,
        progress=watch,
        job={**job.plain(), "folder": str(folder)},
        out=str(out.resolve()),
    )
    best = result.choose().point
    calibration = calibrated(made.task, made.space, job.quantization.recipe, knowledge, Silent())
    again = made.task.calibration if job.quantization.batch_norm else None
    shipped = [(best.id, made.task.model, made.space, calibration, again)]
    if job.finetune is not None:
        tuned = _finetuned(job, made, best.configuration, calibration, watch)
        result.notes.append(_note(tuned, best, job.quantization.batch_norm))
        if tuned.gained:  # with the batch-norm statistics that it was trained with
            shipped.append((f"{best.id}-finetuned", tuned.model, tuned.space, tuned.calibration, None))
    exports = []
    for name, model, space, found, batch_norm in shipped if job.export is not None else []:
        assert job.export is not None
        with watch.stage(f"export {name} to {job.export.target} and check back", STEPS) as advance:
            path = _artifact(out, name, job.export.target)
            report = export(
                model,
                best.configuration,
                path,
                job.export.target,
                example_inputs=made.task.calibration[0].piece(0, 2),
                calibration=found,
                space=space,
                batch_norm=batch_norm,
                advance=advance,
            )
            exports.append(_summary(report, out))
    document = result.document(exports)
    with watch.stage("write the report", 1) as advance:
        write_outputs(result, document, out)
        advance(1)
    return result, document


def write_outputs(result: Result, document: Mapping[str, Any], out: Path) -> None:
    """Write the output files, each whole or not at all; ``front.json`` last, as the sign that all are there."""
    from .report import write_report

    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "front.parquet") as side:
        frame = result.front.copy()
        frame["configuration"] = frame["configuration"].map(json.dumps)
        frame.to_parquet(side)
    result.best().to_json(out / "best.json")
    write_report(document, out / "report.html")
    write_text(out / "front.json", json.dumps(document, indent=1, allow_nan=False) + "\n")


def read_document(out: str | Path) -> dict[str, Any]:
    """The ``front.json`` of a finished run.

    Raises:
        InvalidInput: there is none, or it is not one.
    """
    path = Path(out) / "front.json"
    if not path.is_file():
        raise InvalidInput(f"no {path}; is {out} the output folder of a finished `bitfront run`?")
    try:
        document = json.loads(path.read_text())
        if document["schema_version"] != 1:
            raise InvalidInput(f"{path} has schema {document['schema_version']}; this bitfront reads 1")
    except (json.JSONDecodeError, KeyError, TypeError) as cause:
        raise InvalidInput(f"{path} is not a front of bitfront: {cause!r}") from None
    found: dict[str, Any] = document
    return found


def pick(document: Mapping[str, Any], point: str) -> Mapping[str, Any]:
    """The point of a document by id; ``best`` is the one to ship.

    Raises:
        InvalidInput: no such point.
    """
    wanted = document["best"] if point == "best" else point
    for found in document["points"]:
        if found["id"] == wanted:
            chosen: Mapping[str, Any] = found
            return chosen
    ids = ", ".join(found["id"] for found in document["points"])
    raise InvalidInput(f"no point {point!r}; there are best, {ids}")


def export_point(out: Path, point: str, target: str, progress: Progress | None = None) -> ExportReport:
    """Export one point of a finished run and check it back.

    Args:
        out: output folder of the run.
        point: its id, or ``best``.
        target: an export target.
        progress: who watches.

    Returns:
        The exporter's report; the artifact lies in ``out/export/``.

    Raises:
        InvalidInput: no such run, point or target.
        ExportMismatch: the artifact does not compute what was measured.
    """
    watch = progress or Silent()
    document = read_document(out)
    chosen = pick(document, point)
    content = dict(document["job"])
    folder = Path(content.pop("folder", "."))
    job = parse_job(content, "front.json")
    made = load(job, folder, watch)
    with watch.stage(f"export {chosen['id']} to {target} and check back", STEPS) as advance:
        configuration = Configuration.from_dict(chosen["config"])
        calibration = calibrate(made.task, made.space, job.quantization.recipe)
        report = export(
            made.task.model,
            configuration,
            _artifact(out, chosen["id"], target),
            target,
            example_inputs=made.task.calibration[0].piece(0, 2),
            calibration=calibration,
            space=made.space,
            batch_norm=made.task.calibration if job.quantization.batch_norm else None,
            advance=advance,
        )
    kept = [found for found in document["exports"] if found["path"] != _summary(report, out)["path"]]
    document["exports"] = [*kept, _summary(report, out)]
    write_text(out / "front.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    return report


def load(job: Job, folder: Path, watch: Progress) -> Assembled:
    """Model, data and space of a job, with a progress bar."""
    trained = 0
    with watch.stage("load model and data", 100) as advance:

        def training(step: int, steps: int, loss: float) -> None:
            nonlocal trained
            done = 95 * step // max(1, steps)
            advance(done - trained)
            trained = done

        made = assemble(job, folder, training)
        advance(100 - trained)
    return made


def _finetuned(
    job: Job, made: Assembled, configuration: Configuration, calibration: Calibration, watch: Progress
) -> Finetuned:
    assert job.finetune is not None
    with watch.stage("finetune the best configuration", job.finetune.epochs) as advance:
        return finetune(
            made.task,
            made.space,
            configuration,
            calibration,
            epochs=job.finetune.epochs,
            learning_rate=job.finetune.learning_rate,
            loss=job.finetune.loss,
            seed=job.search.seed,
            advance=advance,
        )


def _note(finetuned: Finetuned, best: Point, batch_norm: bool) -> str:
    """What the report says of finetuning; ``batch_norm``: whether the search estimated statistics again."""
    if not finetuned.gained:
        return f"{finetuned.summary}, and no finetuned artifact is written"
    if not batch_norm:
        return finetuned.summary
    return (
        f"{finetuned.summary}; before and after it batch normalization has the float model's statistics, also in the "
        f"artifact; with statistics estimated again, as in this search, {best.id} has {best.quality:.4g}"
    )


def _artifact(out: Path, point: str, target: str) -> Path:
    return out / "export" / f"{point}.{target}"


def _summary(report: ExportReport, out: Path) -> dict[str, Any]:
    """What the document says of an export, with the path relative to the output folder."""
    found = report.to_dict()
    found["path"] = str(Path(report.path).relative_to(out)) if Path(report.path).is_relative_to(out) else report.path
    return found


def executor_of(name: str, job: Job) -> Executor:
    """The executor that the command line names, with the workers that the job asks for.

    Raises:
        InvalidInput: no such executor.
    """
    if name == "local":
        return LocalExecutor()
    if name == "ray":
        return RayExecutor(job.workers.count, job.workers.cpus, job.workers.gpus)
    raise InvalidInput(f"--executor {name!r}; choose ray or local")
