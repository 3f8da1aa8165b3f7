"""Latency from measurements of this machine's CPU: known rows are reused, missing ones are timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from ..space import SearchSpace
from .cost_model import Question
from .kernels import Kernel, site_kernel, unfused
from .network import KernelCost, Network, WholeModel, whole_model
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
    """Milliseconds of whole configurations, and per site and format as an allocator takes them.

    Each kernel is timed alone, as it runs between neighbours of its kind: a float convolution without the change of
    layout, an integer one without the conversion of its input and output from float to codes and back. What unlike
    neighbours cost each other comes on top (``network.Terms``): ``values`` are those between like neighbours,
    ``PriceTable.whole`` prices whole configurations. With ``question.network`` the neighbours are those of the exported
    graph, the operators outside the sites are in the base, and the factors of all parts are fitted to the exports
    that were timed whole. Without it neighbours are those in the order of execution, only the sites are counted, and
    the base is the cost of one call of the runtime.

    Raises:
        InvalidInput: onnxruntime is not installed, or ``question.network`` is of another model, batch or machine.
        NotMeasured: the runtime has no kernel for a format.
    """
    network = question.network
    if network is not None:
        network.check(space, question.batch, question.threads)
        if question.runner is None:
            network.check_machine()
    runner = question.runner or _default(question)
    kernels = _kernels(space, question.batch)
    known = lookup(question.tables)
    missing = _missing(kernels, runner, known)
    new = runner.measure(missing, question.seconds, question.advance) if missing else []
    known.update({row.digest: row for row in new})
    costs = {key: _cost(kernel, runner, known) for key, kernel in kernels.items()}
    used = list({row.digest: row for kernel in _needed(kernels) if (row := known[runner.digest(kernel)])}.values())
    call_ms = float(np.median([row.overhead_ms for row in used]))
    whole = whole_model(space, costs, call_ms, network)
    factors = whole.residual.mean
    return PriceTable(
        metric="latency_ms",
        unit="ms",
        values=np.where(space.allowed, whole.terms.additive(factors), np.nan),
        sigma=tabulate(space, lambda site, format_: site.calls * costs[site.name, format_.name].sigma),
        base=float(factors @ whole.terms.constant),
        source="measured",
        provenance=_provenance(used, question.batch, whole, network),
        whole=whole,
        rows=tuple(new),
    )


def _cost(kernel: Kernel, runner: Runner, known: Mapping[str, KernelRow]) -> KernelCost:
    row = known[runner.digest(kernel)]
    other = unfused(kernel)
    if other is None:
        return KernelCost(kernel, row.median_ms, row.sigma_ms, row.conversion_ms)
    instead = known[runner.digest(other)]
    own = (row.median_ms, row.sigma_ms, row.conversion_ms)
    return KernelCost(kernel, *own, instead.median_ms, instead.conversion_ms)


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
    """The distinct kernels to know, formats of one shape side by side, each with what runs where it is not fused."""
    pairs = ((kernel, unfused(kernel)) for kernel in kernels.values())
    return list(dict.fromkeys(kernel for pair in pairs for kernel in pair if kernel is not None))


def _missing(kernels: Mapping[tuple[str, str], Kernel], runner: Runner, known: Mapping[str, KernelRow]) -> list[Kernel]:
    """The needed kernels without a row."""
    return [kernel for kernel in _needed(kernels) if runner.digest(kernel) not in known]


def _provenance(rows: Sequence[KernelRow], batch: int, whole: WholeModel, network: Network | None) -> str:
    """Device, runtime and version, threads, date; what is in the sum, and what to be careful with."""
    one = rows[0]
    dates = sorted({row.date for row in rows})
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    shaky = sum(not row.stable for row in rows)
    if network is None:
        counted = "conversions between neighbours in execution order, other operators not counted"
    else:
        counted = f"conversions between neighbours, other operators {network.operators.total:.3g} ms (profile)"
    learned = whole.residual
    if learned.exports:
        counted += f", fitted to {learned.exports} whole models ({100 * learned.noise:.1f} % noise)"
    return (
        f"measured: cpu ({one.hardware}), {one.runtime} {one.runtime_version}, {one.threads} thread"
        f"{'s' if one.threads > 1 else ''}, batch {batch}, {len(rows)} kernels, {span}; {counted}"
        + (f"; {shaky} unstable" if shaky else "")
    )
