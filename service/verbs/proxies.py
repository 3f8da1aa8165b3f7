"""The verbs ``proxies``: the list, how good they are on a job, and formulas evolved for a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ...errors import InvalidInput
from ..default_command import DefaultCommand
from ..options import Json, StoreUrl
from .printing import print_frame

proxies_app = typer.Typer(
    cls=DefaultCommand,
    help="List the proxies, judge them on a job (`bitfront proxies JOB.yaml`), or evolve formulas for a model.",
)


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
    from ..front_document import Trust
    from ..job import read_job
    from ..run_bench import bench_job
    from ..terminal import TerminalProgress, show
    from ..trust_table import terminal_table, told

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
    from ..evolve_job import evolve_job, evolved_table
    from ..job import read_job
    from ..terminal import TerminalProgress, show

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

    from ...proxies import proxies
    from ..terminal import show

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
    print_frame(pd.DataFrame(rows), as_json, show)
