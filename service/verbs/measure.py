"""The verb ``measure``: times this machine's kernels."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import BitfrontError, InvalidInput
from ..options import Json

if TYPE_CHECKING:
    from ...hw_models import MeasuredTable
    from ...hw_models.kernels import Kernel
    from ...hw_models.measure import Backend, Outcome, Plan

#: Kernels of a model that are timed together, so that each finds the caches as the model's other layers leave them.
_MODEL_GROUP: dict[str, Any] = {"group": 200, "group_seconds": 60.0}


def measure_command(
    job_file: Annotated[
        Path | None, typer.Argument(metavar="[JOB.yaml]", help="Measure what this job's model and formats need.")
    ] = None,
    zoo: Annotated[str | None, typer.Option("--zoo", metavar="NAME", help="Measure a model of the zoo.")] = None,
    grid: Annotated[
        str | None, typer.Option("--grid", metavar="GRID.yaml", help="Measure a grid: a file, or tiny, zoo, gpt.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    runtime: Annotated[
        str | None, typer.Option(help="onnxruntime or torch.  [default: onnxruntime on the CPU, torch on CUDA]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="TABLE.parquet", help="Table to make or to add to.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Time to spend.  [default: as long as the plan takes]")] = None,
    formats: Annotated[str | None, typer.Option("--formats", metavar="A,B,C", help="Kernel formats.")] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="N,N", help="Samples per pass of a model.  [default: the job's, else 1]")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the CPU.")] = 1,
    mode: Annotated[str, typer.Option(help="CUDA: graph (captured), eager (launched one by one) or both.")] = "both",
    name: Annotated[
        str | None, typer.Option("--name", help="CUDA: the device's name in `bitfront devices`.  [default: recognized]")
    ] = None,
    few: Annotated[
        int | None, typer.Option("--few", min=1, metavar="N", help="CUDA: only those N products that say most.")
    ] = None,
    like: Annotated[
        list[str] | None, typer.Option("--like", metavar="DEVICE", help="With --few: a device with tables; repeatable.")
    ] = None,
    keep_unstable: Annotated[
        bool, typer.Option("--keep-unstable", help="Also write rows whose samples do not agree, marked as such.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be measured, and how long it takes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Time this machine's real kernels for the shapes of a model or a grid.

    The plan says how long it takes. Rows are written as they come: stopped or killed, the same command goes on where
    it was.

        bitfront measure --grid tiny --out cpu.parquet --plan

        bitfront measure examples/efficientnet_lite0.yaml --out cpu.parquet --seconds 60
    """
    from ...hw_models import MeasuredTable
    from ...hw_models.measure import known_rows
    from ..measure_report import show_outcomes, show_plans, why_nothing
    from ..terminal import TerminalProgress

    if out is None and not plan:
        raise InvalidInput("give --out TABLE.parquet, or --plan to see how long it would take")
    if seconds is not None and not seconds > 0:
        raise InvalidInput(f"--seconds {seconds:g}: give a time above 0")
    if device not in ("cpu", "cuda"):
        raise InvalidInput(f"--device {device!r}: this machine's kernels are timed on cpu or cuda")
    chosen = runtime or ("onnxruntime" if device == "cpu" else "torch")
    backends = _backends(device, chosen, threads, mode, name, cold=grid is not None)
    progress = TerminalProgress(quiet=as_json)
    kernels = _kernels(job_file, zoo, grid, device, chosen, _numbers(batch), _names(formats))
    table = known_rows(out) if out is not None else MeasuredTable()
    if few is not None or like:
        kernels = _few(kernels, backends[0], few, like or [], table)
    known = {row.digest for row in table}
    group = {} if grid is not None else _MODEL_GROUP
    plans = [_plan(backend, kernels, known, progress, group) for backend in backends]
    if plan:
        show_plans(plans, as_json)
        return
    assert out is not None
    outcomes = _execute(plans, backends, out, seconds, keep_unstable, progress)
    show_outcomes(plans, outcomes, out, as_json)
    if all(not made.rows for made in outcomes) and any(made.kernels for made in plans):
        raise BitfrontError(why_nothing(plans, outcomes, seconds))


def _backends(device: str, runtime: str, threads: int, mode: str, name: str | None, cold: bool) -> list[Backend]:
    from ...hw_models.measure import FORMATS, MODES, CudaBackend, OnnxRuntimeBackend, TorchCpuBackend

    if (device, runtime) not in FORMATS:
        known = [runtime for at, runtime in FORMATS if at == device]
        raise InvalidInput(f"--runtime {runtime!r}: on {device} kernels are timed in {' or '.join(known)}")
    if mode not in (*MODES, "both"):
        raise InvalidInput(f"--mode {mode!r}: give graph, eager or both")
    if device == "cuda":
        from ...hw_models.measure.cuda import CudaAccelerator, device_name

        gpu = CudaAccelerator()
        return [CudaBackend(gpu, name or device_name(gpu.hardware), each) for each in MODES if mode in (each, "both")]
    if runtime == "torch":
        return [TorchCpuBackend(threads)]
    from ...hw_models.onnx_runner import OnnxRuntimeRunner
    from ...hw_models.onnx_session import require

    require()
    return [OnnxRuntimeBackend(OnnxRuntimeRunner(threads, cold, again=False))]


def _kernels(
    job_file: Path | None,
    zoo: str | None,
    grid: str | None,
    device: str,
    runtime: Any,
    batches: tuple[int, ...] | None,
    formats: tuple[str, ...] | None,
) -> list[Kernel]:
    """What is asked for: the kernels of exactly one of job, zoo entry and grid."""
    from ...hw_models.measure import model_kernels, read_grid

    if (job_file is not None) + (zoo is not None) + (grid is not None) != 1:
        raise InvalidInput("say what to measure: JOB.yaml, --zoo NAME or --grid GRID.yaml (tiny, zoo, gpt)")
    if grid is not None:
        if batches is not None:
            raise InvalidInput("--batch belongs to a model; a grid names its own sizes")
        return read_grid(grid).kernels(device, runtime, formats)
    from ..assemble import assemble
    from ..job import parse_job, read_job

    if job_file is not None:
        job, folder = read_job(job_file)
    else:
        job, folder = parse_job({"model": {"zoo": zoo}, "space": {"formats": ["w8a8", "fp32"]}}), Path()
        formats = formats or _all(device, runtime)
    space = assemble(job, folder).space
    return model_kernels(space, device, runtime, batches or (job.device.batch,), formats)


def _few(
    kernels: list[Kernel], backend: Backend, count: int | None, like: list[str], table: MeasuredTable
) -> list[Kernel]:
    """The products that say most about all of them, and those that the table has."""
    from ...hw_models.measure import CudaBackend
    from ...hw_models.measure.few import few

    if count is None:
        raise InvalidInput("--like belongs to --few N: how many products to measure")
    if not isinstance(backend, CudaBackend):
        raise InvalidInput("--few chooses by the tables of other GPUs; it needs --device cuda")
    chosen = few(kernels, backend.name, like, count, table)
    return chosen + [kernel for kernel in kernels if table.find(backend.digest(kernel)) is not None]


def _all(device: str, runtime: str) -> tuple[str, ...]:
    from ...hw_models.measure import FORMATS

    products, convolutions = FORMATS[device, runtime]
    return tuple(dict.fromkeys([*products, *convolutions]))


def _plan(backend: Backend, kernels: list[Kernel], known: set[str], progress: Any, group: dict[str, Any]) -> Plan:
    from ...hw_models.measure import classes, make_plan

    with progress.stage("try two kernels of a kind", len(classes(kernels))) as advance:
        return make_plan(backend, kernels, known, advance, **group)


def _execute(
    plans: list[Plan], backends: list[Backend], out: Path, seconds: float | None, keep_unstable: bool, progress: Any
) -> list[Outcome]:
    """One plan after the other; what a plan does not need of its share of the time, the next has."""
    from ...hw_models.measure import execute

    outcomes: list[Outcome] = []
    left, due = seconds, sum(made.seconds for made in plans)
    for made, backend in zip(plans, backends, strict=True):
        if made.kernels:
            progress.note(f"{len(made.kernels)} kernels, about {timedelta(seconds=round(made.seconds))}: {made.where}")
        share = None if left is None else left * made.seconds / due if due else left
        with progress.stage("measure (seconds of the plan)", max(1, round(made.seconds))) as advance:
            outcome = execute(made, backend, out, share, advance, keep_unstable=keep_unstable)
        outcomes.append(outcome)
        left, due = (None if left is None else max(left - outcome.seconds, 0.0)), due - made.seconds
    return outcomes


def _names(given: str | None) -> tuple[str, ...] | None:
    """Formats as written on the command line."""
    if given is None:
        return None
    from ...hw_models.measure import FORMATS

    names = tuple(part.strip() for part in given.split(",") if part.strip())
    known = sorted({name for pair in FORMATS.values() for each in pair for name in each})
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise InvalidInput(f"--formats {given!r}: known kernel formats are {', '.join(known)}")
    return names


def _numbers(given: str | None) -> tuple[int, ...] | None:
    """Batch sizes as written on the command line."""
    if given is None:
        return None
    parts = given.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise InvalidInput(f"--batch {given!r}: give whole numbers from 1, such as 1,8")
    return tuple(int(part) for part in parts)
