r"""Timing on an accelerator whose work is asynchronous: event pairs, cold cache, rounds that ran throttled left out.

The candidates run in turn, round after round. Before each, outside the timed part, memory twice as large as the
last-level cache is read (read, not written: dirty lines would be written back at the expense of the kernel), then the
inputs are written, as the layer before would have. One sample is one pair of events.

``graph``: the candidate is a captured graph of R calls on R copies of its operands, each touched once a replay, so that
all weights are cold and the latency of starting a graph is shared; the sample is the elapsed time over R. The replay is
queued behind the reading of memory, so no time of the host is in it.

``eager``: one call, started when the device is idle; the host's time to launch it is part of the sample.

From both the median of an empty event pair is taken off. The clock is read after every round, while the last candidate
may still run. A round counts unless the hardware says that it slowed down (heat, power brake) or its clock was under
``THROTTLED`` times the highest clock of the session under load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..timing import FEWEST_SAMPLES, MAX_SAMPLES, MIN_SAMPLES, PRECISE, Advance, Clock, Timing

Mode = Literal["graph", "eager"]
MODES: tuple[Mode, ...] = ("graph", "eager")
#: Runs of every candidate before the first sample.
WARM_UP = 3
#: Share of the highest clock under which a round is left out.
THROTTLED = 0.95
#: Rounds over samples at most, where rounds are left out.
_MOST_ROUNDS = 2
#: Part of a sample that is kept however long the empty pair took.
_LEAST = 0.1


class Event(Protocol):
    """A mark in the device's queue."""

    def record(self) -> None:
        """Put the mark into the queue."""
        ...

    def elapsed_ms(self, later: Event) -> float:
        """Milliseconds between two marks that have been passed."""
        ...


@dataclass(frozen=True)
class State:
    """What the device says of itself; zeros where that cannot be read.

    Attributes:
        clock_mhz: of the processors.
        memory_clock_mhz: of the memory.
        power_w: of the board.
        slowed: whether heat or the power brake slow it down.
    """

    clock_mhz: float = 0.0
    memory_clock_mhz: float = 0.0
    power_w: float = 0.0
    slowed: bool = False


class Accelerator(Protocol):
    """The device and its queue."""

    def event(self) -> Event:
        """A new mark."""
        ...

    def synchronize(self) -> None:
        """Wait until the queue is empty."""
        ...

    def flush(self) -> None:
        """Queue the reading of memory twice as large as the last-level cache."""
        ...

    def capture(self, call: Callable[[], object]) -> Callable[[], None]:
        """Warm a call up, capture it as a graph, and return its replay."""
        ...

    def state(self) -> State:
        """Clocks and power now."""
        ...


@dataclass(frozen=True)
class Launch:
    """Something to time.

    Attributes:
        prepare: writes the inputs; not timed.
        call: what is timed: a replay or an eager call.
        repeats: calls of the kernel in it.
    """

    prepare: Callable[[], object]
    call: Callable[[], object]
    repeats: int = 1


@dataclass(frozen=True)
class Sampled:
    """The samples of all candidates.

    Attributes:
        timings: one per candidate, without the empty pair.
        overhead: of the empty pair, seconds.
        state: medians over the rounds that count.
        rounds: rounds run.
        left_out: of these, not counted.
    """

    timings: tuple[Timing, ...]
    overhead: float
    state: State
    rounds: int
    left_out: int


def sample(
    accelerator: Accelerator,
    launches: Sequence[Launch],
    mode: Mode,
    seconds: float,
    advance: Advance | None = None,
    clock: Clock = time.perf_counter,
) -> Sampled:
    """Time candidates in turn.

    Bounded as ``timing.interleaved``: ``MIN_SAMPLES`` counting rounds, unless that takes more than three times
    ``seconds``; on to ``MAX_SAMPLES`` while ``seconds`` last and a median is not precise.

    Args:
        accelerator: the device.
        launches: what to time.
        mode: graph or eager.
        seconds: time to spend.
        advance: called with the samples taken, ``MIN_SAMPLES`` per candidate in all.
        clock: monotonic seconds of the host.
    """
    begin = clock()
    everything = [*launches, Launch(lambda: None, lambda: None)]
    for launch in everything:
        for _ in range(WARM_UP):
            launch.prepare()
            launch.call()
    accelerator.synchronize()
    times: list[list[float]] = []
    states: list[State] = []
    told = 0
    while len(times) < _MOST_ROUNDS * MAX_SAMPLES:
        times.append(_round(accelerator, everything, mode, states))
        counted = int(counting(states).sum())
        if advance and told < min(counted, MIN_SAMPLES):
            told += 1
            advance(len(launches))
        spent = clock() - begin
        if counted < MIN_SAMPLES:
            if len(times) >= FEWEST_SAMPLES and spent > 3 * seconds:
                break
        else:
            over = spent * (len(times) + 1) / len(times) > seconds
            precise = counted % 10 == 0 and _precise(np.array(times)[counting(states)])
            if counted >= MAX_SAMPLES or over or precise:
                break
    if advance and told < MIN_SAMPLES:
        advance((MIN_SAMPLES - told) * len(launches))
    return _sampled(np.array(times), launches, states)


def counting(states: Sequence[State]) -> NDArray[np.bool_]:
    """Which rounds count: those in which the device was not slowed down."""
    clocks = np.array([state.clock_mhz for state in states])
    slowed = np.array([state.slowed for state in states])
    good: NDArray[np.bool_] = ~slowed & (clocks >= THROTTLED * clocks.max(initial=0.0))
    return good


def _round(accelerator: Accelerator, launches: Sequence[Launch], mode: Mode, states: list[State]) -> list[float]:
    pairs: list[tuple[Event, Event]] = []
    for launch in launches:
        accelerator.flush()
        launch.prepare()
        if mode == "eager":
            accelerator.synchronize()
        before, after = accelerator.event(), accelerator.event()
        before.record()
        launch.call()
        after.record()
        pairs.append((before, after))
    states.append(accelerator.state())
    accelerator.synchronize()
    return [1e-3 * before.elapsed_ms(after) for before, after in pairs]


def _sampled(times: NDArray[np.float64], launches: Sequence[Launch], states: Sequence[State]) -> Sampled:
    good = counting(states)
    counted = times[good] if good.any() else times
    overhead = float(np.median(counted[:, -1]))
    timings = []
    for column, launch in enumerate(launches):
        taken = counted[:, column]
        net = np.maximum(taken - overhead, _LEAST * taken) / launch.repeats
        timings.append(Timing(net, launch.repeats))
    seen = [state for state, counts in zip(states, good, strict=True) if counts] or list(states)
    clock, memory_clock, power = np.median([[s.clock_mhz, s.memory_clock_mhz, s.power_w] for s in seen], axis=0)
    middle = State(float(clock), float(memory_clock), float(power), slowed=not good.any())
    return Sampled(tuple(timings), overhead, middle, len(times), int((~good).sum()))


def _precise(times: NDArray[np.float64]) -> bool:
    columns = (Timing(column, 1) for column in times[:, :-1].T)
    return all(timing.standard_error <= PRECISE * timing.median for timing in columns)
