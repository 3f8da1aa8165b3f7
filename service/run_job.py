"""Running a job from its file to its output folder."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ..errors import InvalidInput
from ..evaluators import Calibration, Finetuned, Recipe, calibrate, finetune, prepared
from ..exporters import STEPS, ExportReport, check_packages, export
from ..exporters import get as get_exporter
from ..files import replacing, write_text
from ..search import (
    Executor,
    FinetuneSettings,
    LocalExecutor,
    Point,
    Progress,
    RayExecutor,
    Result,
    Silent,
    calibrated,
    choose_finetuning,
    run,
)
from ..search.joint import JointResult
from ..search.recipe_search import auto_recipes
from ..search.stage import Ledger, Ran
from ..space import Configuration
from ..store import Store
from . import record
from .assemble import Assembled, assemble
from .evidence import evidence_of, options_for
from .export_stage import exported
from .job import Job, Search, parse_job
from .job_key import job_key
from .locations import is_url, opened


def run_job(
    job: Job,
    folder: Path,
    out: Path,
    *,
    store: str | Store | None = None,
    executor: str | Executor = "ray",
    progress: Progress | None = None,
    shown_as: str | None = None,
) -> tuple[Result | JointResult, dict[str, Any]]:
    """Run a job and write its outputs; with ``space.architecture`` a search for architectures and formats.

    Args:
        job: what is asked.
        folder: where the job's relative paths start.
        out: output folder; ``front.json``, ``front.parquet``, ``best.json``, ``report.html`` and
            ``export/`` appear in it when they are complete.
        store: the store, or its URL.
        executor: ``"ray"``, ``"local"``, or an executor of your own.
        progress: who watches.
        shown_as: what the store calls the output folder, where ``out`` is a local copy of what a URL will hold.

    Returns:
        The result and the document that ``front.json`` holds.

    Raises:
        BitfrontError: see ``search.run`` and ``exporters.export``.
    """
    watch = progress or Silent()
    if out.exists() and not out.is_dir():
        raise InvalidInput(f"--out {out} is a file; give a folder")
    if job.export is not None:
        check_packages(get_exporter(job.export.target))  # refuse a target before the search, not after it
    knowledge = store if isinstance(store, Store) else Store(store)
    if job.space.architecture is not None:
        from .joint_job import run_joint_job

        driven = executor_of(executor, job) if isinstance(executor, str) else executor
        return run_joint_job(job, folder, out, store=knowledge, executor=driven, progress=watch, shown_as=shown_as)
    steering = _steering(job)
    ledger = Ledger()
    made = load(job, folder, watch, knowledge, ledger)
    for note in made.notes:
        watch.note(note)
    result = run(
        made.task if job.quantization.search is None else made.plain,
        made.space,
        device=job.device.name,
        batch=job.device.batch,
        runtime=job.device.runtime,
        whole_models=job.device.whole_models,
        objectives=job.objectives,
        constraints=job.constraints,
        evaluations=job.search.evaluations,
        seconds=job.search.seconds,
        seed=job.search.seed,
        executor=executor_of(executor, job) if isinstance(executor, str) else executor,
        proxies=job.proxies,
        recipe=_recipes(job, made),
        store=knowledge,
        progress=watch,
        job={**job.plain(), "folder": str(folder)},
        record=record.of(job, folder, knowledge),
        out=shown_as if shown_as is not None and is_url(shown_as) else str(out.resolve()),
        key=job_key(job, folder, knowledge),
        ledger=ledger,
        **steering,
    )
    result.notes.extend(made.notes)
    made, _ = with_recipe(job, made, result.recipe["chosen"])
    exports = _exports(job, made, result, out, knowledge, watch)
    document = result.document(exports)
    with watch.stage("write the report", 1) as advance:
        write_outputs(result, document, out)
        advance(1)
    for ran in ledger.ran:
        watch.note(ran.told())
    return result, document


def _steering(job: Job) -> dict[str, Any]:
    """What the job says of the search beyond evaluations, seconds and seed, as keyword arguments of ``run``.

    Raises:
        InvalidInput: ``run`` has no such argument: the key would be ignored.
    """
    default, accepted = Search(), inspect.signature(run).parameters
    names = ("proposers", "stop", "fidelity", "finalists")
    asked = {name: getattr(job.search, name) for name in names if getattr(job.search, name) != getattr(default, name)}
    for name in asked:
        if name not in accepted:
            raise InvalidInput(f"search.{name}: this version of the search does not take it; leave it out")
    return {name: value.model_dump() if isinstance(value, BaseModel) else value for name, value in asked.items()}


def _recipes(job: Job, made: Assembled) -> Recipe | tuple[Recipe, ...]:
    """The recipe of a job, or those to choose from."""
    asked = job.quantization
    if asked.search is None:
        return asked.recipe
    return auto_recipes(asked.recipe, made.plain, made.space) if asked.search == "auto" else asked.listed


def with_recipe(job: Job, made: Assembled, chosen: Mapping[str, Any]) -> tuple[Assembled, Recipe]:
    """The task prepared for the recipe that a search of a job chose, and that recipe.

    Args:
        job: what was asked.
        made: what ``load`` gave.
        chosen: the recipe as plain data; not looked at where the job names its recipe.
    """
    if job.quantization.search is None or not chosen:
        return made, job.quantization.recipe
    recipe = Recipe(**chosen)
    return replace(made, task=prepared(made.plain, made.space, recipe)), recipe


def _exports(
    job: Job, made: Assembled, result: Result, out: Path, store: Store, watch: Progress
) -> list[dict[str, Any]]:
    """Finetune and export the best configuration as the job asks for; what front.json says of the artifacts."""
    best = result.choose().point
    recipe = Recipe(**result.recipe["chosen"])
    calibration = calibrated(made.task, made.space, recipe, store, Silent())
    tuned = None
    if job.finetune is not None:
        settings = _settings(job, made, best.configuration, calibration, store, watch, result)
        tuned = _finetuned(job, made, best.configuration, calibration, settings, watch)
        result.notes.append(_note(tuned, best, recipe.batch_norm))
    if job.export is None:
        return []
    target = job.export.target
    path = _artifact(out, best.id, target)
    reports = [
        exported(
            made,
            best.configuration,
            calibration,
            path,
            target,
            batch_norm=recipe.batch_norm,
            store=store,
            ledger=result.ledger,
            progress=watch,
            generation=job.export.generation,
            against_float=job.export.against_float,
            options=_options(job, result),
        )
    ]
    if tuned is not None and tuned.gained:
        name = f"{best.id}-finetuned"
        with watch.stage(f"export {name} to {target} and check back", STEPS) as advance:
            found = export(  # with the batch-norm statistics that it was trained with
                tuned.model,
                best.configuration,
                _artifact(out, name, target),
                target,
                example_inputs=made.task.calibration[0].piece(0, 2),
                calibration=tuned.calibration,
                space=tuned.space,
                advance=advance,
                generation=job.export.generation,
                against_float=job.export.against_float,
            )
        result.ledger.add(Ran("export", f"{target}, finetuned", "", 1, 0, found.seconds))
        reports.append(found)
    return [_summary(report, out) for report in reports]


def _options(job: Job, result: Result) -> dict[str, Any]:
    """What the export target is told of the search."""
    assert job.export is not None
    if "evidence" not in get_exporter(job.export.target).options:
        return {}
    document = result.document([])
    return options_for(job.export.target, evidence_of(document, pick(document, "best")))


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
    path = f"{str(out).rstrip('/')}/front.json"
    if not is_url(path) and not Path(path).is_file():
        raise InvalidInput(f"no {path}; is {out} the output folder of a finished `bitfront run`?")
    try:
        with opened(path, "front") as stream:
            document = json.loads(stream.read())
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
    if job.space.architecture is not None:
        from .joint_job import export_genome

        path = _artifact(out, chosen["id"], target)
        report = export_genome(document, chosen, job, folder, path, target, watch)
    else:
        report = _export_configuration(document, chosen, job, folder, out, target, watch)
    kept = [found for found in document["exports"] if found["path"] != _summary(report, out)["path"]]
    document["exports"] = [*kept, _summary(report, out)]
    write_text(out / "front.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    return report


def _export_configuration(
    document: Mapping[str, Any],
    chosen: Mapping[str, Any],
    job: Job,
    folder: Path,
    out: Path,
    target: str,
    watch: Progress,
) -> ExportReport:
    """Export one point of a run that searched formats alone."""
    made, recipe = with_recipe(job, load(job, folder, watch), document.get("recipe", {}).get("chosen", {}))
    with watch.stage(f"export {chosen['id']} to {target} and check back", STEPS) as advance:
        configuration = Configuration.from_dict(chosen["config"])
        calibration = calibrate(made.task, made.space, recipe)
        return export(
            made.task.model,
            configuration,
            _artifact(out, chosen["id"], target),
            target,
            example_inputs=made.task.calibration[0].piece(0, 2),
            calibration=calibration,
            space=made.space,
            batch_norm=made.task.calibration if recipe.batch_norm else None,
            advance=advance,
            task=made.task,
            options=options_for(target, evidence_of(document, chosen)),
        )


def load(
    job: Job, folder: Path, watch: Progress, store: Store | None = None, ledger: Ledger | None = None
) -> Assembled:
    """Model, data and space of a job, with a progress bar; a space that the store knows is not traced again."""
    trained = 0
    with watch.stage("load model and data", 100) as advance:

        def training(step: int, steps: int, loss: float) -> None:
            nonlocal trained
            done = 95 * step // max(1, steps)
            advance(done - trained)
            trained = done

        made = assemble(job, folder, training, store=store, ledger=ledger)
        advance(100 - trained)
    return made


def _settings(
    job: Job,
    made: Assembled,
    configuration: Configuration,
    calibration: Calibration,
    store: Store,
    watch: Progress,
    result: Result,
) -> FinetuneSettings:
    """The hyper-parameters of finetuning: those of the job, or the best of those to compare."""
    assert job.finetune is not None
    settings = job.finetune.settings
    if len(settings) == 1:
        return settings[0]
    found = choose_finetuning(
        made.task,
        made.space,
        configuration,
        calibration,
        settings,
        epochs=job.finetune.rungs,
        store=store,
        seed=job.search.seed,
        progress=watch,
    )
    told = ", ".join(
        f"{each.learning_rate:g} {each.loss}: {measured.value:.4g}" for each, measured in found.measured.items()
    )
    chosen = found.settings
    result.notes.append(
        f"finetuning: learning rate {chosen.learning_rate:g}, loss {chosen.loss} of {len(settings)} compared on the "
        f"validation data, each after the most epochs that it was run for ({told})"
    )
    return chosen


def _finetuned(
    job: Job,
    made: Assembled,
    configuration: Configuration,
    calibration: Calibration,
    settings: FinetuneSettings,
    watch: Progress,
) -> Finetuned:
    assert job.finetune is not None
    with watch.stage("finetune the best configuration", job.finetune.epochs) as advance:
        return finetune(
            made.task,
            made.space,
            configuration,
            calibration,
            epochs=job.finetune.epochs,
            learning_rate=settings.learning_rate,
            loss=settings.loss,
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
        return RayExecutor(
            job.workers.count,
            job.workers.cpus,
            job.workers.gpus,
            address=job.workers.address,
            storage=job.workers.storage,
        )
    raise InvalidInput(f"--executor {name!r}; choose ray or local")
