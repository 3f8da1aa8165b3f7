"""The verb ``serve``: the API, workers and the dashboard on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..options import Json, StoreUrl
from .service_options import (
    AllowModule,
    AllowUrl,
    Config,
    Executor,
    Gpus,
    JobsAtATime,
    KeepDays,
    Outputs,
    RayAddress,
    settings_of,
)

if TYPE_CHECKING:
    from .serving import Started


def serve_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0: a free one.  [default: 8765]")
    ] = None,
    store: StoreUrl = None,
    outputs: Outputs = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that run jobs.")] = 1,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="The API only; `bitfront worker` runs jobs.")] = False,
    jobs: JobsAtATime = None,
    gpus: Gpus = None,
    executor: Executor = None,
    ray_address: RayAddress = None,
    allow_module: AllowModule = None,
    allow_url: AllowUrl = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="No tokens: everybody who reaches the port is an administrator.")
    ] = False,
    insecure_remote: Annotated[
        bool, typer.Option("--insecure-remote", help="As --insecure, even where other machines reach the port.")
    ] = False,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="The dashboard too, on this machine only.")] = False,
    dashboard_port: Annotated[int, typer.Option(help="Port of the dashboard.")] = 8501,
    keep_days: KeepDays = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Run a server: the HTTP API and a worker, by default for this machine only.

    At the first start a token of an administrator is made, shown once, and kept in a file that only you can read;
    clients on this account find it there. Ctrl-C or SIGTERM drains: jobs that run are given back to the queue with all
    that was measured, and go on at the next start.

        bitfront serve

        bitfront serve --store postgresql+psycopg://bitfront@db/bitfront --outputs s3://bucket/jobs --no-worker

        bitfront serve --config service.yaml
    """
    settings = settings_of(
        config,
        host=host,
        port=port,
        store=store,
        outputs=outputs,
        jobs_at_a_time=jobs,
        gpus=gpus,
        executor=executor,
        ray_address=ray_address,
        allowed_modules=allow_module,
        allowed_urls=allow_url,
        keep_days=keep_days,
        insecure=(insecure or insecure_remote) or None,
        insecure_remote=insecure_remote or None,
    )
    from ..worker.redaction import redacted
    from .printing import print_json
    from .serving import serve, warn

    count = 0 if no_worker else workers
    shown_dashboard = dashboard_port if dashboard else None
    warn(settings)

    def ready(started: Started) -> None:
        if as_json:
            known = {"token": started.token, "token_file": started.token_file, "pids": started.pids}
            print_json({"url": started.url, **known})
            return
        lines = [
            f"serving   {started.url} (the API: {started.url}/openapi.json)",
            f"store     {redacted(settings.store)}",
            f"outputs   {redacted(settings.outputs)}",
            f"workers   {count or 'none here'}" + (f", {settings.jobs_at_a_time} at a time each" if count else ""),
            *([f"look      http://127.0.0.1:{shown_dashboard}"] if shown_dashboard else []),
            *_token_lines(started, settings.insecure),
            f"try       {_prefix(started.url)}bitfront submit JOB.yaml --wait",
            "end       Ctrl-C: running jobs are given back and go on at the next start",
        ]
        print("\n".join(lines), flush=True)  # noqa: T201

    serve(settings, count, shown_dashboard, ready)


def _token_lines(started: Started, insecure: bool) -> list[str]:
    if insecure:
        return ["token     none needed (--insecure)"]
    if started.token is not None:
        return [f"token     {started.token} (of admin; shown this once, kept in {started.token_file})"]
    if started.token_file is not None:
        return [f"token     in {started.token_file}"]
    return ["token     as before; `bitfront users token NAME` makes another"]


def _prefix(url: str) -> str:
    """What tells clients the server where it is not the default one."""
    from ..client import DEFAULT_URL

    return "" if url == DEFAULT_URL else f"BITFRONT_SERVER={url} "
