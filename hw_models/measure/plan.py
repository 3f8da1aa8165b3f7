r"""What is going to be timed, and how long that will take.

Two kernels of each class (operator and formats) are tried first, a small one and one of middling size. The time of
another kernel of the class follows from theirs by its roofline work: with r the longer of its arithmetic and its memory
traffic,

.. math:: r = \max(\text{MACs},\, B \cdot \text{bytes}),

B multiply-accumulates a byte being where both take equally long on CPUs, the time is linear in r between the
two trials, that of the small one below it (the fixed cost of a call), and proportional to r above the other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InvalidInput, NotMeasured
from ..kernels import Kernel
from ..timing import MIN_SAMPLES, SAMPLE_SECONDS, WARM_UP
from .backend import Backend, Trial, held_bytes, work
from .catalogue import format_of

if TYPE_CHECKING:
    import pandas as pd

#: Kernels that are timed together at most, and the seconds that they may take, so that little is lost when a run is
#: stopped.
GROUP, GROUP_SECONDS = 24, 10.0
#: Where arithmetic and memory traffic take equally long, in multiply-accumulates a byte.
_BALANCE = 5.0
#: Samples that a kernel takes in the mean: more than the fewest, where they do not agree yet.
_SAMPLES = 1.3 * MIN_SAMPLES
#: Quantiles of the kernels of a class, by work, that are tried.
_TRIALS = (0.1, 0.6)


@dataclass(frozen=True)
class Planned:
    """A kernel to be timed.

    Attributes:
        kernel: what.
        digest: key of its row.
        run_seconds: of one run, estimated.
        seconds: for loading and all samples, estimated.
    """

    kernel: Kernel
    digest: str
    run_seconds: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What is going to be timed.

    Attributes:
        where: device, hardware, runtime.
        groups: kernels that are timed together.
        known: kernels that the table holds already.
        refused: kernels that cannot run here, with the reason.
    """

    where: str
    groups: tuple[tuple[Planned, ...], ...]
    known: int
    refused: tuple[tuple[Kernel, str], ...]

    @property
    def kernels(self) -> list[Planned]:
        """Everything to time, in order."""
        return [item for group in self.groups for item in group]

    @property
    def seconds(self) -> float:
        """How long all of it will take, estimated."""
        return sum(item.seconds for item in self.kernels)

    def to_frame(self) -> pd.DataFrame:
        """Columns op, format, kernels, samples, seconds (estimated): a row for each operator and format."""
        import pandas as pd

        rows = [(item.kernel.op, format_of(item.kernel), 1, MIN_SAMPLES, item.seconds) for item in self.kernels]
        frame = pd.DataFrame(rows, columns=["op", "format", "kernels", "samples", "seconds"])
        return frame.groupby(["op", "format"], sort=False, as_index=False).sum()


def make_plan(
    backend: Backend,
    kernels: Sequence[Kernel],
    known: Collection[str] = (),
    advance: Callable[[int], None] | None = None,
    group: int = GROUP,
    group_seconds: float = GROUP_SECONDS,
) -> Plan:
    """Plan the timing of kernels.

    Args:
        backend: where.
        kernels: what; kernels of one shape side by side.
        known: digests that need not be timed again.
        advance: told of every class that has been tried, of ``classes(kernels)``.
        group: kernels that are timed together at most.
        group_seconds: that they may take; the formats of one shape stay together all the same.

    Raises:
        InvalidInput: there is nothing that could run here.
    """
    refused: list[tuple[Kernel, str]] = []
    missing: list[Kernel] = []
    done = 0
    for kernel in dict.fromkeys(kernels):
        reason = backend.refusal(kernel)
        if reason is not None:
            refused.append((kernel, reason))
        elif backend.digest(kernel) in known:
            done += 1
        else:
            missing.append(kernel)
    if not missing and not done:
        reasons = "; ".join(dict.fromkeys(reason for _, reason in refused)) or "nothing was asked"
        raise InvalidInput(f"nothing to measure on {backend.where}: {reasons}")
    trials: dict[tuple[str, str], list[tuple[Kernel, Trial]]] = {}
    for key, members in classes(missing).items():
        trials[key] = _try(backend, members)
        if not trials[key]:
            refused += [(kernel, f"{format_of(kernel)}: no {kernel.op} of this format ran here") for kernel in members]
        if advance:
            advance(1)
    planned = [_planned(backend, kernel, tried) for kernel in missing if (tried := trials[_class(kernel)])]
    return Plan(backend.where, _groups(planned, backend.memory_bytes, group, group_seconds), done, tuple(refused))


def classes(kernels: Sequence[Kernel]) -> dict[tuple[str, str], list[Kernel]]:
    """Kernels by operator and format."""
    found: dict[tuple[str, str], list[Kernel]] = {}
    for kernel in kernels:
        found.setdefault(_class(kernel), []).append(kernel)
    return found


def _class(kernel: Kernel) -> tuple[str, str]:
    return kernel.op, format_of(kernel)


def _try(backend: Backend, members: Sequence[Kernel]) -> list[tuple[Kernel, Trial]]:
    """The trials of a class, by work; where none of the chosen kernels can run, of the largest, if that can."""
    ordered = sorted(members, key=_roofline)
    chosen = [ordered[int(quantile * (len(ordered) - 1))] for quantile in _TRIALS]
    tried: list[tuple[Kernel, Trial]] = []
    for kernel in dict.fromkeys([*chosen, ordered[-1]]):
        if kernel is ordered[-1] and tried:
            break
        try:
            tried.append((kernel, backend.trial(kernel)))
        except NotMeasured:
            continue
    return tried


def _planned(backend: Backend, kernel: Kernel, tried: Sequence[tuple[Kernel, Trial]]) -> Planned:
    rooflines = [_roofline(reference) for reference, _ in tried]
    times = [trial.run_seconds for _, trial in tried]
    own, (reference, trial) = _roofline(kernel), tried[-1]
    run = float(np.interp(own, rooflines, times)) * max(1.0, own / rooflines[-1])
    load = trial.load_seconds * max(1.0, held_bytes(kernel) / held_bytes(reference))
    repeats = min(max(1.0, np.ceil(SAMPLE_SECONDS / max(run, 1e-9))), trial.most_repeats)
    sampling = (WARM_UP + _SAMPLES * repeats) * (trial.prepare_seconds + run)
    return Planned(kernel, backend.digest(kernel), run, load + sampling)


def _roofline(kernel: Kernel) -> float:
    macs, traffic = work(kernel)
    return max(macs, _BALANCE * traffic, 1.0)


def _groups(planned: Sequence[Planned], room: int, most: int, seconds: float) -> tuple[tuple[Planned, ...], ...]:
    """Kernels in order, cut where a group is full; kernels of one shape stay together if they fit."""
    groups: list[list[Planned]] = []
    used = taken = 0.0
    for shape in _by_shape(planned):
        size, time = sum(held_bytes(item.kernel) for item in shape), sum(item.seconds for item in shape)
        if not groups or used + size > room or taken + time > seconds or len(groups[-1]) + len(shape) > most:
            groups.append([])
            used = taken = 0.0
        for item in shape:
            own = held_bytes(item.kernel)
            if groups[-1] and (used + own > room or len(groups[-1]) >= most):
                groups.append([])
                used = taken = 0.0
            groups[-1].append(item)
            used, taken = used + own, taken + item.seconds
    return tuple(tuple(group) for group in groups if group)


def _by_shape(planned: Sequence[Planned]) -> list[list[Planned]]:
    runs: list[list[Planned]] = []
    for item in planned:
        if not runs or runs[-1][0].kernel.shape != item.kernel.shape:
            runs.append([])
        runs[-1].append(item)
    return runs
