"""The command line."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import BitfrontError, InvalidInput
from .default_command import DefaultCommand
from .devices_command import devices_command
from .measure_command import measure_command
from .options import Json, StoreUrl

app = typer.Typer(
    name="bitfront",
    help="Mixed-precision search for PyTorch models: the Pareto front of quality against latency, size and energy.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

bench_app = typer.Typer(help="Benches: measured configurations that proxies and formulas are judged by.")
app.add_typer(bench_app, name="bench")

proxies_app = typer.Typer(
    cls=DefaultCommand,
    help="List the proxies, judge them on a job (`bitfront proxies JOB.yaml`), or evolve formulas for a model.",
)
app.add_typer(proxies_app, name="proxies")

app.command("measure")(measure_command)


@app.command("run")
def run_command(
    job_file: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job; examples/ has some to start from.")],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder for the results, or its URL.")],
    executor: Annotated[str, typer.Option(help="ray (workers in parallel) or local (this process).")] = "ray",
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Search: score, price, allocate exactly, measure, validate, export.

    Stopped or killed, the same command goes on where it was: nothing that was measured is measured again.

        bitfront run examples/efficientnet_lite0.yaml --out out/demo
    """
    from .job import read_job

    job, folder = read_job(job_file)
    from .locations import is_url, writable_folder
    from .run_job import run_job
    from .terminal import TerminalProgress, best_table, front_table, search_lines, show

    if not is_url(out) and Path(out).exists() and not Path(out).is_dir():
        raise InvalidInput(f"--out {out} is a file; give a folder")
    with writable_folder(out) as place:
        progress = TerminalProgress(place / "run.log", quiet=as_json)
        try:
            _, document = run_job(job, folder, place, store=store, executor=executor, progress=progress, shown_as=out)
        except Exception:
            if place.is_dir():
                with (place / "run.log").open("a") as log:
                    log.write(traceback.format_exc())
            raise
    if as_json:
        print(json.dumps(document, allow_nan=False))  # noqa: T201
        return
    shown = out.rstrip("/")
    exported = [
        f"exported  {shown}/{found['path']} ({found['target']}, {found['bytes_on_disk'] / 1e6:.2f} MB, "
        f"relative error {found['relative_error']:.2g} against the fake-quantized model, bound {found['bound']:.2g})"
        for found in document["exports"]
    ]
    show(
        front_table(document),
        best_table(document),
        f"best      {document['best']}: {document['best_reason']}",
        *search_lines(document),
        f"report    {shown}/report.html",
        *(f"note      {note}" for note in document["notes"]),
        *exported,
        *([] if is_url(out) else [f"look      bitfront dashboard {Path(out).parent}"]),
    )


@app.command("front")
def front_command(
    out: Annotated[str, typer.Argument(metavar="DIR|JOB.yaml", help="Output folder of a finished run, or a job.")],
    budget: Annotated[
        list[str] | None, typer.Option("--budget", metavar="PRICE=MAX", help="Keep points within it; repeatable.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="With a job: measure the optimum of this budget if it never was.")
    ] = False,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Show the measured front of a finished run; or answer a new budget for a job from the store.

    With a job neither model nor data is loaded: the best measured point within the budget, and the exact optimum of
    the scores for it, measured or predicted.

        bitfront front out/demo --budget size_mb=3

        bitfront front examples/efficientnet_lite0.yaml --budget size_mb=3
    """
    if out.endswith((".yaml", ".yml")):
        _answer(Path(out), budget or [], measure, store, as_json)
        return
    if measure:
        raise InvalidInput("--measure needs a job: bitfront front JOB.yaml --budget PRICE=MAX --measure")
    from .run_job import read_document
    from .terminal import front_table, show

    document = read_document(out)
    limits = _budgets(budget or [], list(document["points"][0]["prices"]))
    kept = [
        point
        for point in document["points"]
        if all(point["prices"][name]["value"] <= limit * (1 + 1e-9) for name, limit in limits.items())
    ]
    if not kept:
        least = {name: min(point["prices"][name]["value"] for point in document["points"]) for name in limits}
        told = ", ".join(f"{name} >= {value:.4g}" for name, value in least.items())
        raise InvalidInput(f"no measured point meets the budget; the measured points reach {told}")

    def quality(point: dict[str, Any]) -> float:
        found = point["measured"]["holdout"] or point["measured"]["validation"]
        return float(found["value"])

    best = min(kept, key=quality) if limits else next(p for p in kept if p["id"] == document["best"])
    chosen = {**document, "points": kept, "best": best["id"]}
    if as_json:
        print(json.dumps({"best": best["id"], "points": kept}, allow_nan=False))  # noqa: T201
        return
    show(front_table(chosen), f"best      {best['id']}" + (f" within {', '.join(budget or [])}" if limits else ""))


def _answer(job_file: Path, budget: list[str], measure: bool, store: str | None, as_json: bool) -> None:
    from .front_job import answer_job, parse_budgets, told

    progress = None
    if measure:
        from .terminal import TerminalProgress

        progress = TerminalProgress(quiet=as_json)
    answer = answer_job(job_file, parse_budgets(budget), store=store, measure=measure, progress=progress)
    if as_json:
        print(json.dumps(answer.plain(), allow_nan=False))  # noqa: T201
        return
    for line in told(answer, job_file, budget):
        print(line)  # noqa: T201


@app.command("export")
def export_command(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a finished run.")],
    point: Annotated[str, typer.Option(help="Id of a point (see `bitfront front`), or best.")] = "best",
    target: Annotated[str, typer.Option(help="Export target.")] = "onnx",
    as_json: Json = False,
) -> None:
    """Export a point for a runtime, load it back there, and compare it with what was measured.

    bitfront export out/demo --point best --target onnx
    """
    from .run_job import export_point
    from .terminal import TerminalProgress, show

    report = export_point(out, point, target, TerminalProgress(quiet=as_json))
    if as_json:
        print(json.dumps(report.to_dict(), allow_nan=False))  # noqa: T201
        return
    show(
        f"exported  {report.path}",
        f"size      {report.bytes_on_disk / 1e6:.3f} MB (float: {report.float_bytes / 1e6:.3f} MB)",
        f"checked   {report.runtime} {report.version}: relative error {report.relative_error:.3g}, "
        f"bound {report.bound:.3g}",
    )


app.command("devices")(devices_command)


@app.command("formats")
def formats_command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One format, such as w4g128ae4m3d.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that no library has a kernel for.")] = False,
    as_json: Json = False,
) -> None:
    """List the numeric formats that have kernels: what a weight costs in them, and where they run.

    The grammar has more than any list: any weight with any input, such as `w4g64a8d`.

        bitfront formats w4g128
    """
    import pandas as pd

    from .format_table import format_rows
    from .terminal import show

    _print_frame(pd.DataFrame(format_rows(name, everything)), as_json, show)


@proxies_app.command("judge")
def proxies_command(
    job_file: Annotated[
        Path | None, typer.Argument(metavar="[JOB.yaml]", help="Judge the proxies on this job.  [default: list them]")
    ] = None,
    names: Annotated[
        str | None,
        typer.Option("--proxies", metavar="A,B,C", help="Which; `all` or `auto`.  [default: those of the job]"),
    ] = None,
    evaluations: Annotated[int | None, typer.Option(help="Configurations of the bench.  [default: 64]")] = None,
    executor: Annotated[str, typer.Option(help="local (this process) or ray (workers in parallel).")] = "local",
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """List the proxies, or judge them on a job by really measured configurations.

    The bench is random and spread over the sizes; what the store knows is not measured again.

        bitfront proxies examples/minilm_l6.yaml --proxies hessian_trace,weight_mse --evaluations 64
    """
    if job_file is None:
        if names is not None or evaluations is not None:
            raise InvalidInput("--proxies and --evaluations need a job: bitfront proxies JOB.yaml --proxies A,B")
        _list_proxies(as_json)
        return
    from .front_document import Trust
    from .job import read_job
    from .run_bench import bench_job
    from .terminal import TerminalProgress, show
    from .trust_table import terminal_table, told

    job, folder = read_job(job_file)
    found = bench_job(
        job,
        folder,
        proxies=names,
        evaluations=64 if evaluations is None else evaluations,
        store=store,
        executor=executor,
        progress=TerminalProgress(quiet=as_json),
    )
    if as_json:
        print(json.dumps(found, allow_nan=False))  # noqa: T201
        return
    trust = Trust.model_validate(found["trust"])
    show(
        terminal_table(trust, f"{found['name']}: how far the predictions of {found['metric']} can be trusted"),
        told(trust),
        *([f"choice    {trust.choice.reason}"] if trust.choice else []),
        *(f"left out  {name}: {reason}" for name, reason in found["left_out"].items()),
        *(f"failed    {digest}: {reason}" for digest, reason in found["failed"].items()),
    )


@proxies_app.command("evolve")
def proxies_evolve_command(
    job_file: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job: model, data, space, metric.")],
    seconds: Annotated[float, typer.Option(help="Of the evolution; the bench is measured before.")] = 300.0,
    evaluations: Annotated[int, typer.Option(help="Configurations of the bench; half of them only judge.")] = 128,
    names: Annotated[
        str | None,
        typer.Option("--proxies", metavar="A,B,C", help="To beat.  [default: the job's and the cheap ones]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.json", help="For the formula.  [default: JOB.formula.json]")
    ] = None,
    executor: Annotated[str, typer.Option(help="ray (workers in parallel) or local (this process).")] = "ray",
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Evolve a formula that predicts the loss of this model, and say whether it beats the hand-made proxies.

    Both are chosen on one half of the measured configurations and judged on the other; the better one is kept. What the
    store knows is neither measured nor scored again, so the same command goes on where it was.

        bitfront proxies evolve examples/minilm_l6.yaml --seconds 600
    """
    from .evolve_job import evolve_job, evolved_table
    from .job import read_job
    from .terminal import TerminalProgress, show

    job, folder = read_job(job_file)
    found = evolve_job(
        job,
        folder,
        out or Path(f"{job_file.stem}.formula.json"),
        seconds=seconds,
        evaluations=evaluations,
        proxies=names,
        store=store,
        executor=executor,
        progress=TerminalProgress(quiet=as_json),
    )
    if as_json:
        print(json.dumps(found, allow_nan=False))  # noqa: T201
        return
    show(
        evolved_table(found),
        f"formula   {found['proxy']}",
        f"tried     {found['tried']} formulas in {found['seconds']:.0f} s, {found['scored']} of them usable",
        f"verdict   {found['verdict']}",
        f'keep      proxies: ["{found["kept"]}"]',
        *(f"left out  {name}: {reason}" for name, reason in found["left_out"].items()),
    )


def _list_proxies(as_json: bool) -> None:
    import pandas as pd

    from ..proxies import proxies
    from .terminal import show

    rows = [
        {
            "proxy": name,
            "additive": kind.additive,
            "gradients": kind.gradients,
            "what": kind.summary,
            "source": kind.source,
        }
        for name, kind in proxies().items()
    ]
    _print_frame(pd.DataFrame(rows), as_json, show)


@bench_app.command("build")
def bench_build_command(
    job_file: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job: model, data, space, metric.")],
    evaluations: Annotated[int, typer.Option(help="Configurations; at least 425 to search for formulas.")] = 440,
    vary: Annotated[str, typer.Option(help="What differs between them: both, weights or activations.")] = "both",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the bench.  [default: out/bench/NAME]")
    ] = None,
    executor: Annotated[str, typer.Option(help="ray (workers in parallel) or local (this process).")] = "ray",
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Measure random configurations and others stratified by size, and record what formulas are built from.

    Every result is kept in the store at once; stopped or killed, the same command goes on where it was.

        bitfront bench build examples/minilm_l6.yaml --evaluations 440 --out out/bench/minilm_l6
    """
    from .bench_build import build_job_bench, summary
    from .job import read_job
    from .terminal import TerminalProgress, show

    job, folder = read_job(job_file)
    bench, written = build_job_bench(
        job,
        folder,
        out,
        evaluations=evaluations,
        vary=vary,
        store=store,
        executor=executor,
        progress=TerminalProgress(quiet=as_json),
    )
    found = summary(bench, written)
    if as_json:
        print(json.dumps(found, allow_nan=False))  # noqa: T201
        return
    show(
        f"bench     {written}: {found['configurations']} configurations of {bench.name}, "
        f"{found['stratified']} of them stratified",
        f"measured  {bench.metric} from {found['best']:.4g} to {found['worst']:.4g}; float {bench.float_quality:.4g}",
        f"inputs    {found['inputs']} statistics for formulas",
        *(f"left out  {name}: {reason}" for name, reason in found["left_out"].items()),
        *(f"failed    {digest}: {reason}" for digest, reason in found["failed"].items()),
    )


@app.command("jobs")
def jobs_command(store: StoreUrl = None, as_json: Json = False) -> None:
    """List the jobs in the store, newest first."""
    import pandas as pd

    from ..store import Store
    from .terminal import show

    rows = [
        {
            "id": job.id,
            "name": job.name,
            "state": job.state,
            "updated": job.updated_at.isoformat(timespec="seconds"),
            "out": job.out,
            "reason": job.reason,
        }
        for job in Store(store).jobs()
    ]
    _print_frame(pd.DataFrame(rows, columns=["id", "name", "state", "updated", "out", "reason"]), as_json, show)


@app.command("dashboard")
def dashboard_command(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[DIR]...", help="Folders of runs.  [default: out]")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8501,
) -> None:
    """Open the dashboard: runs, Pareto fronts, layer maps.

    bitfront dashboard out
    """
    from importlib import import_module

    folders = paths or [Path("out")]
    for folder in folders:
        if not folder.is_dir():
            raise InvalidInput(
                f"no folder {folder}; run a search first, such as `bitfront run JOB.yaml --out out/NAME`"
            )
    # the dashboard is the floor above: the command finds it by name, nothing here depends on it
    import_module(f"{__package__.rpartition('.')[0]}.dashboard").launch(folders, host, port)


@app.command("doctor")
def doctor_command(as_json: Json = False) -> None:
    """Check this installation: versions, optional packages, threads, the store."""
    import pandas as pd

    from .doctor import examine
    from .terminal import show

    rows = examine()
    _print_frame(pd.DataFrame(rows), as_json, show)
    if any(row["state"] == "broken" for row in rows):
        raise BitfrontError("the installation is broken: see the lines above")


def _budgets(given: list[str], known: list[str]) -> dict[str, float]:
    """Budgets as written on the command line."""
    limits = {}
    for item in given:
        name, _, value = item.partition("=")
        if name not in known:
            raise InvalidInput(f"--budget {item!r}: this run priced {', '.join(known)}; write PRICE=MAX")
        try:
            limits[name] = float(value)
        except ValueError:
            raise InvalidInput(f"--budget {item!r}: {value!r} is not a number; write PRICE=MAX") from None
    return limits


def _print_frame(frame: Any, as_json: bool, show: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    if as_json:
        print(frame.to_json(orient="records"))  # noqa: T201
        return
    table = Table(*[str(column) for column in frame.columns])
    for row in frame.itertuples(index=False):
        table.add_row(*["" if value is None or value != value else escape(str(value)) for value in row])
    show(table)


def main() -> None:
    """Entry point of the ``bitfront`` command: errors are one line on standard error; 2 bad input, 1 failure."""
    import logging
    import warnings

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # parallelism is by processes
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except InvalidInput as cause:
        _fail(str(cause), 2)
    except BitfrontError as cause:
        _fail(str(cause), 1)
    except Exception as cause:
        if hasattr(cause, "format_message"):  # a usage error of the command line itself
            _fail(f"{cause.format_message()} See `bitfront --help`.", 2)
        if os.environ.get("BITFRONT_DEBUG"):
            raise
        where = traceback.extract_tb(cause.__traceback__)[-1]
        _fail(
            f"unexpected {type(cause).__name__} in {Path(where.filename).name}:{where.lineno}: {cause}; "
            "set BITFRONT_DEBUG=1 for the traceback and report it",
            1,
        )
    if code == 130:
        _fail("interrupted; run the same command to go on", 130)
    sys.exit(code or 0)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"bitfront: {' '.join(message.split())}\n")
    sys.exit(code)
