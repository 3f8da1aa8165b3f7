"""The timing loop with a clock of its own: nothing here depends on how fast this machine is."""

import numpy as np
import pytest
from bitfront.hw_models.timing import FEWEST_SAMPLES, FLOOR, MAX_SAMPLES, MIN_SAMPLES, Timing, interleaved


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Job:
    def __init__(self, clock, seconds, log, name, most_repeats=16):
        self.clock, self.seconds, self.log, self.name, self.most_repeats = clock, seconds, log, name, most_repeats
        self.calls = 0

    def prepare(self):
        self.clock.now += 1.0 * 0

    def run(self):
        self.calls += 1
        self.log.append(self.name)
        self.clock.now += self.seconds(self.calls) if callable(self.seconds) else self.seconds


def test_candidates_take_turns_and_every_sample_is_the_mean_of_its_runs():
    clock, log = Clock(), []
    jobs = [Job(clock, 1e-3, log, "a"), Job(clock, 2e-5, log, "b")]
    first, second = interleaved(jobs, seconds=10, clock=clock)
    assert (first.repeats, second.repeats) == (1, 5)
    assert log[6:18] == ["a", *"bbbbb"] * 2
    assert np.allclose(first.samples, 1e-3)
    assert np.allclose(second.samples, 2e-5)
    assert len(first.samples) == MIN_SAMPLES
    assert first.sigma == pytest.approx(FLOOR * 1e-3)
    assert first.stable


def test_preparation_is_not_timed():
    clock, log = Clock(), []

    class Prepared(Job):
        def prepare(self):
            self.clock.now += 1.0

    (timing,) = interleaved([Prepared(clock, 1e-3, log, "a")], seconds=1000, clock=clock)
    assert np.allclose(timing.samples, 1e-3)


def test_noise_is_sampled_on_and_time_is_bounded():
    rng = np.random.default_rng(0)
    clock, log = Clock(), []
    noisy = Job(clock, lambda _: float(rng.uniform(1e-3, 2e-3)), log, "noisy", most_repeats=1)
    (timing,) = interleaved([noisy], seconds=100, clock=clock)
    assert len(timing.samples) == MAX_SAMPLES
    clock = Clock()
    slow = Job(clock, 1.0, [], "slow")
    (timing,) = interleaved([slow], seconds=0.5, clock=clock)
    assert len(timing.samples) == FEWEST_SAMPLES
    assert not timing.stable


def test_progress_adds_up():
    for seconds in (0.5, 100):
        clock, steps = Clock(), []
        interleaved([Job(clock, 1.0, [], "a"), Job(clock, 1.0, [], "b")], seconds, steps.append, clock)
        assert sum(steps) == 2 * MIN_SAMPLES


def test_standard_error_of_the_median_matches_simulation():
    rng = np.random.default_rng(1)
    draws = rng.normal(10, 1, (4000, 50))
    true = np.median(draws, axis=1).std()
    estimates = [Timing(row, 1).standard_error for row in draws[:500]]
    assert np.mean(estimates) == pytest.approx(true, rel=0.05)


def test_two_modes_are_unstable():
    assert not Timing(np.array([1.0, 2.0] * 20), 1).stable
    assert Timing(np.array([1.0, 1.1] * 20), 1).stable
