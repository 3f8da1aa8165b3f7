r"""Timing of many short functions side by side.

The candidates run in turn, round after round (interleaved), so that a change of the clock or a busy neighbour hits all
of them alike, and so that each finds the caches as the others left them. Before every run, outside the timed part, the
candidate's input is written anew: inside a model the layer before has just done so, while the weights have not been
read since the last pass. One sample is the mean over so many timed runs that they fill ``SAMPLE_SECONDS``. What one
thread computes is timed by the CPU time of that thread (``stopwatch``): on a machine that other jobs share, the wall
clock also counts the time that they had the core. The estimate is the median of the samples; its standard error comes
from the interquartile range,

.. math:: \sigma_{\text{median}} = \sqrt{\pi/2}\; \frac{\mathrm{IQR}}{1.349\,\sqrt{n}}

(asymptotic, for samples that are normal around their centre; outliers do not move it), with the floor ``FLOOR`` x
median added in quadrature for what repeats inside one session cannot show.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

MIN_SAMPLES = 30
MAX_SAMPLES = 60
#: Samples under which a row is never left, however slow its kernel.
FEWEST_SAMPLES = 5
SAMPLE_SECONDS = 1e-4
MAX_REPEATS = 16
WARM_UP = 3
#: Relative error between sessions, and between a kernel alone and inside a model (docs/hw_models.md).
FLOOR = 0.06
#: Precision (standard error over median) at which sampling stops early.
PRECISE = 0.01
#: Written before a run that must find the second-level cache without the kernel's weights, bytes.
EVICTION_BYTES = 8_000_000
#: Runs per sample of such a kernel at most: what is written takes longer than a short kernel.
_EVICTING_REPEATS = 4
#: Interquartile range over median above which a row is measured again, and flagged if it stays so.
UNSTABLE = 0.3

Clock = Callable[[], float]
Advance = Callable[[int], None]


class Candidate(Protocol):
    """Something to time."""

    @property
    def most_repeats(self) -> int:
        """Runs that one sample may hold."""
        ...

    def prepare(self) -> None:
        """What comes before every run and is not timed."""
        ...

    def run(self) -> None:
        """What is timed."""
        ...


@dataclass(frozen=True)
class Timing:
    """The samples of one candidate.

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

    @property
    def columns(self) -> dict[str, Any]:
        """The samples as columns of a ``KernelRow``, in milliseconds."""
        net = 1e3 * self.samples
        return {
            "min_ms": float(net.min()),
            "median_ms": float(np.median(net)),
            "p90_ms": float(np.quantile(net, 0.9)),
            "p99_ms": float(np.quantile(net, 0.99)),
            "mean_ms": float(net.mean()),
            "std_ms": float(net.std(ddof=1)) if len(net) > 1 else 0.0,
            "sigma_ms": 1e3 * self.sigma,
            "samples": len(net),
            "repeats": self.repeats,
            "stable": self.stable,
        }


class Evicting:
    """A candidate whose weights are driven out of the second-level cache before each run, as a large model does it.

    Args:
        candidate: what to time.
    """

    def __init__(self, candidate: Candidate) -> None:
        self._candidate = candidate
        self.most_repeats = min(candidate.most_repeats, _EVICTING_REPEATS)
        self._other = _other_memory()

    def prepare(self) -> None:
        """Write other memory, then prepare the candidate."""
        self._other += 1
        self._candidate.prepare()

    def run(self) -> None:
        """Run the candidate."""
        self._candidate.run()


@cache
def _other_memory() -> NDArray[np.uint8]:
    return np.zeros(EVICTION_BYTES, np.uint8)


def interleaved(
    candidates: Sequence[Candidate],
    seconds: float,
    advance: Advance | None = None,
    clock: Clock = time.perf_counter,
    watch: Clock | None = None,
) -> list[Timing]:
    """Time candidates in turn.

    Every candidate gets ``MIN_SAMPLES`` samples, unless that takes more than three times ``seconds``; then sampling
    stops where it is, after ``FEWEST_SAMPLES`` at least. Past ``MIN_SAMPLES`` all are sampled on, up to
    ``MAX_SAMPLES``, while ``seconds`` last and the median of one of them is not yet precise to ``PRECISE``.

    Args:
        candidates: what to time.
        seconds: time to spend.
        advance: called with the number of samples taken, ``MIN_SAMPLES`` per candidate in all.
        clock: monotonic seconds; what ``seconds`` is counted in.
        watch: what runs are timed with; ``clock`` if ``None``.

    Returns:
        One timing per candidate.
    """
    begin = clock()
    watch = watch or clock
    repeats = [_repeats(candidate, watch) for candidate in candidates]
    samples: list[list[float]] = [[] for _ in candidates]
    for done in range(1, MAX_SAMPLES + 1):
        for candidate, count, taken in zip(candidates, repeats, samples, strict=True):
            taken.append(_sample(candidate, count, watch))
        if advance and done <= MIN_SAMPLES:
            advance(len(candidates))
        spent = clock() - begin
        if done < MIN_SAMPLES:
            if done >= FEWEST_SAMPLES and spent > 3 * seconds:
                if advance:
                    advance((MIN_SAMPLES - done) * len(candidates))
                break
        elif spent * (done + 1) / done > seconds or (done % 10 == 0 and all(map(_precise, samples))):
            break
    return [Timing(np.array(taken), count) for taken, count in zip(samples, repeats, strict=True)]


def stopwatch(threads: int) -> Clock:
    """The clock for a computation: CPU time of the calling thread if it computes alone, else the wall clock."""
    return time.thread_time if threads == 1 else time.perf_counter


def _repeats(candidate: Candidate, clock: Clock) -> int:
    """Warm up, and find how many runs fill a sample."""
    shortest = min(_sample(candidate, 1, clock) for _ in range(WARM_UP))
    return int(np.clip(np.ceil(SAMPLE_SECONDS / max(shortest, 1e-9)), 1, candidate.most_repeats))


def _sample(candidate: Candidate, repeats: int, clock: Clock) -> float:
    total = 0.0
    for _ in range(repeats):
        candidate.prepare()
        start = clock()
        candidate.run()
        total += clock() - start
    return total / repeats


def _precise(samples: Sequence[float]) -> bool:
    timing = Timing(np.array(samples), 1)
    return timing.standard_error <= PRECISE * timing.median
