r"""Timing of many short functions side by side.

The candidates run in turn, round after round (interleaved), so that a change of the clock or a busy neighbour hits all
of them alike. One sample is the mean over as many back-to-back runs as fill ``SAMPLE_SECONDS``, so that the resolution
of the clock (tens of nanoseconds) does not matter. The estimate is the median of the samples; its standard error comes
from the interquartile range,

.. math:: \sigma_{\text{median}} = \sqrt{\pi/2}\; \frac{\mathrm{IQR}}{1.349\,\sqrt{n}}

(asymptotic, for samples that are normal around their centre; outliers do not move it), with the floor ``FLOOR`` x
median added in quadrature for what repeats inside one session cannot show.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_SAMPLES = 30
SAMPLE_SECONDS = 1e-4
MAX_REPEATS = 32
WARM_UP = 3
#: Relative error between sessions that the spread inside one session does not show.
FLOOR = 0.03
#: Precision (standard error over median) at which sampling stops early.
PRECISE = 0.01
#: Interquartile range over median above which a row is measured again, and flagged if it stays so.
UNSTABLE = 0.3

Clock = Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """The samples of one function.

    Attributes:
        samples: seconds per run, one entry a sample.
        repeats: runs per sample.
    """

    samples: NDArray[np.float64]
    repeats: int

    @property
    def median(self) -> float:
        """Median, in seconds."""
        return float(np.median(self.samples))

    @property
    def spread(self) -> float:
        """Interquartile range over median."""
        low, high = np.quantile(self.samples, [0.25, 0.75])
        return float((high - low) / self.median) if self.median > 0 else 0.0

    @property
    def standard_error(self) -> float:
        """Standard error of the median, in seconds."""
        return float(np.sqrt(np.pi / 2) * self.spread * self.median / 1.349 / np.sqrt(len(self.samples)))

    @property
    def sigma(self) -> float:
        """Standard deviation of the median as an estimate of the kernel's time: sampling error and floor."""
        return float(np.hypot(self.standard_error, FLOOR * self.median))

    @property
    def stable(self) -> bool:
        """Whether there are enough samples and they agree."""
        return len(self.samples) >= MIN_SAMPLES and self.spread <= UNSTABLE


def interleaved(
    functions: Sequence[Callable[[], object]],
    seconds: float,
    advance: Callable[[int], None] | None = None,
    clock: Clock = time.perf_counter,
) -> list[Timing]:
    """Time functions in turn.

    Every function gets ``MIN_SAMPLES`` samples, unless that takes more than three times ``seconds``; then sampling
    stops where it is, after five samples at least. Past ``MIN_SAMPLES`` the functions whose median is not yet precise
    to 1 % are sampled on while ``seconds`` last.

    Args:
        functions: what to time; each is called without arguments.
        seconds: time to spend.
        advance: called with the number of samples taken, ``MIN_SAMPLES`` per function in all.
        clock: monotonic seconds.

    Returns:
        One timing per function.
    """
    begin = clock()
    repeats = [_repeats(function, clock) for function in functions]
    samples: list[list[float]] = [[] for _ in functions]
    active = list(range(len(functions)))
    rounds = 0
    while active:
        for index in active:
            samples[index].append(_sample(functions[index], repeats[index], clock))
        rounds += 1
        if advance and rounds <= MIN_SAMPLES:
            advance(len(active))
        spent = clock() - begin
        if rounds < MIN_SAMPLES:
            if rounds >= 5 and spent > 3 * seconds:
                break
            continue
        if spent + spent / rounds > seconds:
            break
        if rounds % 10 == 0:
            active = [index for index in active if not _precise(samples[index])]
    if advance and rounds < MIN_SAMPLES:
        advance((MIN_SAMPLES - rounds) * len(functions))
    return [Timing(np.array(taken), count) for taken, count in zip(samples, repeats, strict=True)]


def _repeats(function: Callable[[], object], clock: Clock) -> int:
    """Warm up, and find how many runs fill a sample."""
    shortest = min(_sample(function, 1, clock) for _ in range(WARM_UP))
    return int(np.clip(np.ceil(SAMPLE_SECONDS / max(shortest, 1e-9)), 1, MAX_REPEATS))


def _sample(function: Callable[[], object], repeats: int, clock: Clock) -> float:
    start = clock()
    for _ in range(repeats):
        function()
    return (clock() - start) / repeats


def _precise(samples: Sequence[float]) -> bool:
    timing = Timing(np.array(samples), 1)
    return timing.standard_error <= PRECISE * timing.median
