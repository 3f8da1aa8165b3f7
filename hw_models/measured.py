"""Latency from measurements of this machine's CPU: known rows are reused, missing ones are timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from ..space import SearchSpace
from .cost_model import Question
from .kernels import Kernel, site_kernel
from .onnx_runner import STEPS, OnnxRuntimeRunner
from .onnx_session import require
from .prices import PriceTable, tabulate
from .rows import KernelRow, lookup


class Runner(Protocol):
    """Times kernels; ``OnnxRuntimeRunner`` is the one that runs them."""

    def digest(self, kernel: Kernel) -> str:
        """The key of a kernel's row."""
        ...

    def measure(
        self, kernels: Sequence[Kernel], seconds: float, advance: Callable[[int], None] | None = None
    ) -> list[KernelRow]:
        """One row per kernel, in order; ``advance`` gets ``STEPS`` per kernel in all."""
        ...


def cpu_latency(space: SearchSpace, question: Question) -> PriceTable:
    """Milliseconds per site and format: median time of the kernel x calls; sigma likewise.

    The base is the cost of one call of the runtime. Conversions between neighbours of unlike formats (layout, float to
    int8 and back) are in ``PriceTable.conversion``, which widens the interval of a configuration; operators outside
    the sites are not counted.

    Raises:
        InvalidInput: onnxruntime is not installed.
        NotMeasured: the runtime has no kernel for a format.
    """
    runner = question.runner or _default(question)
    kernels = _kernels(space, question.batch)
    known = lookup(question.tables)
    missing = _missing(kernels, runner, known)
    new = runner.measure(missing, question.seconds, question.advance) if missing else []
    known.update({row.digest: row for row in new})
    rows = {key: known[runner.digest(kernel)] for key, kernel in kernels.items()}
    used = list({row.digest: row for row in rows.values()}.values())
    return PriceTable(
        metric="latency_ms",
        unit="ms",
        values=tabulate(space, lambda site, format_: site.calls * rows[site.name, format_.name].median_ms),
        sigma=tabulate(space, lambda site, format_: site.calls * rows[site.name, format_.name].sigma_ms),
        conversion=tabulate(space, lambda site, format_: site.calls * rows[site.name, format_.name].conversion_ms),
        base=float(np.median([row.overhead_ms for row in used])),
        source="measured",
        provenance=_provenance(used, question.batch),
        rows=tuple(new),
    )


def planned_steps(space: SearchSpace, question: Question) -> int:
    """How many steps ``advance`` will be told in all."""
    runner = question.runner or _default(question)
    return STEPS * len(_missing(_kernels(space, question.batch), runner, lookup(question.tables)))


def _default(question: Question) -> Runner:
    require()
    return OnnxRuntimeRunner(question.threads)


def _kernels(space: SearchSpace, batch: int) -> dict[tuple[str, str], Kernel]:
    """(site name, format name) -> kernel."""
    return {(site.name, name): site_kernel(site, name, batch) for site in space.sites for name in site.formats}


def _missing(kernels: dict[tuple[str, str], Kernel], runner: Runner, known: dict[str, KernelRow]) -> list[Kernel]:
    """The distinct kernels without a row, formats of one shape side by side."""
    return [kernel for kernel in dict.fromkeys(kernels.values()) if runner.digest(kernel) not in known]


def _provenance(rows: Sequence[KernelRow], batch: int) -> str:
    """Device, runtime and version, threads, date; and what to be careful with."""
    one = rows[0]
    dates = sorted({row.date for row in rows})
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    shaky = sum(not row.stable for row in rows)
    return (
        f"measured: cpu ({one.hardware}), {one.runtime} {one.runtime_version}, {one.threads} thread"
        f"{'s' if one.threads > 1 else ''}, batch {batch}, {len(rows)} kernels, {span}"
        + (f"; {shaky} unstable" if shaky else "")
    )
