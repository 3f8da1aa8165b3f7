"""Latency from measurements of this machine's CPU: known rows are reused, missing ones are timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..space import SearchSpace
from .cost_model import Question
from .kernels import Kernel, computes_in, unfused, site_kernel
from .onnx_runner import STEPS, OnnxRuntimeRunner
from .onnx_session import require
from .prices import Boundary, PriceTable, tabulate
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

    A kernel is priced as it runs between neighbours of its kind: a float convolution without the change of layout, an
    integer one without the conversion of its input and output from float to codes and back. ``PriceTable.boundary``
    holds what unlike neighbours cost: those conversions, or the float kernel on rounded input that runs in place of an
    integer convolution whose output is not rounded, whichever is more. The base is the cost of one call of the
    runtime. Operators outside the sites (attention scores, normalisation, pooling) are not counted.

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
    costs = {key: _cost(kernel, runner, known) for key, kernel in kernels.items()}
    used = list({row.digest: row for kernel in _needed(kernels) if (row := known[runner.digest(kernel)])}.values())

    def column(attribute: str) -> NDArray[np.float64]:
        return tabulate(
            space, lambda site, format_: site.calls * float(getattr(costs[site.name, format_.name], attribute))
        )

    return PriceTable(
        metric="latency_ms",
        unit="ms",
        values=column("value"),
        sigma=column("sigma"),
        base=float(np.median([row.overhead_ms for row in used])),
        source="measured",
        provenance=_provenance(used, question.batch),
        boundary=Boundary(column("boundary"), tuple(computes_in(name) for name in space.formats)),
        rows=tuple(new),
    )


@dataclass(frozen=True)
class _Cost:
    """One call of a kernel, in milliseconds; see ``Boundary`` for the last."""

    value: float
    sigma: float
    boundary: float


def _cost(kernel: Kernel, runner: Runner, known: Mapping[str, KernelRow]) -> _Cost:
    row = known[runner.digest(kernel)]
    boundary = row.conversion_ms
    fallback = unfused(kernel)
    if fallback is not None:
        instead = known[runner.digest(fallback)]
        boundary = max(boundary, instead.median_ms + instead.conversion_ms - row.median_ms)
    return _Cost(row.median_ms, row.sigma_ms, boundary)


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


def _needed(kernels: Mapping[tuple[str, str], Kernel]) -> list[Kernel]:
    """The distinct kernels to know, formats of one shape side by side, with the fall-backs of integer convolutions."""
    pairs = ((kernel, unfused(kernel)) for kernel in kernels.values())
    return list(dict.fromkeys(kernel for pair in pairs for kernel in pair if kernel is not None))


def _missing(kernels: Mapping[tuple[str, str], Kernel], runner: Runner, known: Mapping[str, KernelRow]) -> list[Kernel]:
    """The needed kernels without a row."""
    return [kernel for kernel in _needed(kernels) if runner.digest(kernel) not in known]


def _provenance(rows: Sequence[KernelRow], batch: int) -> str:
    """Device, runtime and version, threads, date; and what to be careful with."""
    one = rows[0]
    dates = sorted({row.date for row in rows})
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    shaky = sum(not row.stable for row in rows)
    return (
        f"measured: cpu ({one.hardware}), {one.runtime} {one.runtime_version}, {one.threads} thread"
        f"{'s' if one.threads > 1 else ''}, batch {batch}, {len(rows)} kernels, {span}; "
        "sum of the sites' kernels, other operators not counted" + (f"; {shaky} unstable" if shaky else "")
    )
