"""The verbs ``bench``: measured configurations that proxies and formulas are judged by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..options import Json, StoreUrl

bench_app = typer.Typer(help="Benches: measured configurations that proxies and formulas are judged by.")


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
    from ..bench_build import build_job_bench, summary
    from ..job import read_job
    from ..terminal import TerminalProgress, show

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
