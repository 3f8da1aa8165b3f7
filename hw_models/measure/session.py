"""Working through a plan: group after group, every group's rows on disk before the next begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import InvalidInput
from ..kernels import Kernel
from ..rows import KernelRow, MeasuredTable
from ..timing import Clock
from .backend import STEPS, Backend
from .plan import Plan, Planned


@dataclass(frozen=True)
class Rejected:
    """A row that is not kept.

    Attributes:
        row: what was measured.
        reason: too few samples, or samples that do not agree.
    """

    row: KernelRow
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        rows: measured and written.
        rejected: measured and not written; the next run tries them again.
        refused: kernels that could not run, with the reason.
        left: kernels for which the time did not suffice.
        seconds: time spent.
    """

    rows: tuple[KernelRow, ...]
    rejected: tuple[Rejected, ...]
    refused: tuple[tuple[Kernel, str], ...]
    left: tuple[Planned, ...]
    seconds: float


def known_rows(path: str | Path) -> MeasuredTable:
    """The rows of a table that an earlier run left, or none.

    Raises:
        InvalidInput: the file is there and is no table of measurements.
    """
    return MeasuredTable.from_parquet(path) if Path(path).exists() else MeasuredTable()


def execute(
    plan: Plan,
    backend: Backend,
    out: str | Path,
    seconds: float | None = None,
    advance: Callable[[float], None] | None = None,
    clock: Clock = time.perf_counter,
    keep_unstable: bool = False,
) -> Outcome:
    """Time what is planned and add the rows to a table.

    A group is begun only while the time left suffices for it; a killed run loses the group that it was at. A row whose
    samples are too few or do not agree is rejected; at the end such kernels are timed once more if time is left.

    Args:
        plan: what.
        backend: where.
        out: the table (parquet), made or added to.
        seconds: time to spend; ``None``: as long as it takes.
        advance: told of the estimated seconds that are done, ``plan.seconds`` in all.
        clock: monotonic seconds.
        keep_unstable: write unstable rows too, marked as such.

    Raises:
        InvalidInput: ``out`` holds something else, another run writes to it, or it cannot be written.
    """
    begin = clock()
    run = _Run(backend, Path(out), keep_unstable)
    left: list[Planned] = []

    def fits(group: Sequence[Planned]) -> bool:
        return seconds is None or (clock() - begin) + sum(item.seconds for item in group) <= seconds

    with _alone(Path(out)):
        run.table = known_rows(out)
        for group in plan.groups:
            if fits(group):
                run.measure(group, _share(advance, group))
            else:
                left += group
        for group in plan.groups:
            shaky = [item for item in group if item.digest in run.rejected]
            if shaky and fits(shaky):
                run.measure(shaky)
    return Outcome(tuple(run.rows), tuple(run.rejected.values()), tuple(run.refused), tuple(left), clock() - begin)


@dataclass
class _Run:
    """What has been measured so far."""

    backend: Backend
    out: Path
    keep_unstable: bool
    table: MeasuredTable = field(default_factory=MeasuredTable)
    rows: list[KernelRow] = field(default_factory=list)
    rejected: dict[str, Rejected] = field(default_factory=dict)
    refused: list[tuple[Kernel, str]] = field(default_factory=list)

    def measure(self, group: Sequence[Planned], advance: Callable[[int], None] | None = None) -> None:
        """Time a group and write what is kept of it."""
        timed = self.backend.measure([item.kernel for item in group], sum(item.seconds for item in group), advance)
        self.refused += timed.refused.items()
        kept = [row for row in timed.rows if row.stable or self.keep_unstable]
        for row in timed.rows:
            self.rejected.pop(row.digest, None)
        self.rejected |= {row.digest: Rejected(row, _reason(row)) for row in timed.rows if row not in kept}
        if kept:
            self.rows += kept
            self.table = self.table.merged(MeasuredTable(tuple(kept)))
            self.table.to_parquet(self.out)


def _reason(row: KernelRow) -> str:
    return (
        f"{row.op} {row.shape} {row.weight_format}: {row.samples} samples, median {row.median_ms:.4g} ms, "
        f"p90 {row.p90_ms:.4g} ms"
    )


def _share(advance: Callable[[float], None] | None, group: tuple[Planned, ...]) -> Callable[[int], None] | None:
    """Steps of a group as its part of the estimated seconds."""
    if advance is None:
        return None
    each = sum(item.seconds for item in group) / (STEPS * len(group))
    return lambda steps: advance(steps * each)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Nobody else writes this table: a lock that ends with the process that holds it."""
    import fcntl

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        stream = out.with_name(f".{out.name}.lock").open("w")
    except OSError as cause:
        raise InvalidInput(f"cannot write {out}: {cause.strerror}; give another --out") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInput(f"another run is writing {out}; wait for it or give another --out") from None
        yield
