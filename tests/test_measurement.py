"""Aggregates by hand; intervals by simulation: how often they cover the truth."""

import math
import sys

import numpy as np
import pytest
from bitfront.measurement import Measurement, aggregate, bootstrap_means, interval, probability_better


def measured(values, metric="kl", split="validation"):
    return Measurement.of(metric, split, np.asarray(values, dtype=np.float64), 0.5)


def test_aggregates():
    values = np.array([0.5, 1.0, 3.0])
    assert aggregate("kl", values) == pytest.approx(1.5)
    assert aggregate("perplexity", values) == pytest.approx(math.exp(1.5))


def test_a_measurement_holds_what_it_was_made_of():
    made = measured([0.0, 1.0, 1.0, 0.0], "error", "holdout")
    assert (made.metric, made.split, made.value, made.samples, made.seconds) == ("error", "holdout", 0.5, 4, 0.5)
    assert made.values == (0.0, 1.0, 1.0, 0.0)
    assert made.low <= made.value <= made.high


def test_perplexity_interval_is_the_exponential_of_the_interval_of_the_mean():
    values = np.random.default_rng(1).normal(2, 0.3, 50)
    low, high = interval("loss", values)
    assert interval("perplexity", values) == pytest.approx((math.exp(low), math.exp(high)))


def test_a_perplexity_beyond_float_is_the_largest_float():
    made = measured([800.0, 900.0], "perplexity")
    assert made.value == made.high == sys.float_info.max
    assert math.isfinite(made.value)


def test_one_sample_and_equal_samples_have_no_width():
    assert interval("kl", np.array([0.25])) == (0.25, 0.25)
    assert interval("kl", np.full(9, 0.25)) == (0.25, 0.25)


def test_bootstrap_means_against_a_loop():
    values = np.random.default_rng(2).normal(size=7)
    picks = np.random.default_rng(3).integers(0, 7, size=(40, 7))
    expected = [sum(values[pick] for pick in row) / 7 for row in picks]
    np.testing.assert_allclose(bootstrap_means(values, 40, seed=3), expected, rtol=1e-12)


def test_draws_in_pieces_are_the_draws_in_one(monkeypatch):
    values = np.random.default_rng(4).normal(size=31)
    whole = bootstrap_means(values, 100)
    monkeypatch.setattr("bitfront.measurement._DRAWS", 31 * 7)
    np.testing.assert_array_equal(bootstrap_means(values, 100), whole)


def test_spread_is_the_standard_error():
    values = np.random.default_rng(5).normal(size=400)
    assert bootstrap_means(values, 4000).std() == pytest.approx(values.std() / 20, rel=0.06)


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng: rng.normal(1.0, 2.0, 80), 1.0),
        (lambda rng: rng.exponential(0.5, 80), 0.5),
        (lambda rng: (rng.random(200) < 0.2).astype(float), 0.2),
    ],
    ids=["normal", "exponential", "error"],
)
def test_coverage(draw, truth):
    """400 simulated experiments: a 95 % interval covers in 95 %, give or take 2.2 % (two standard errors) and skew."""
    rng = np.random.default_rng(6)
    hits = [low <= truth <= high for low, high in (interval("loss", draw(rng), resamples=500) for _ in range(400))]
    assert 0.90 <= np.mean(hits) <= 0.985


def test_a_lower_level_is_a_narrower_interval():
    values = np.random.default_rng(7).normal(size=60)
    wide, narrow = interval("kl", values, 0.99), interval("kl", values, 0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_paired_comparison_sees_what_intervals_apart_hide():
    """A constant gain of 0.01 beneath noise of 1: the intervals overlap, the pairs do not."""
    noise = np.random.default_rng(8).normal(size=60)
    worse, better = measured(noise), measured(noise - 0.01)
    assert better.high > worse.low
    assert probability_better(better, worse) == 1.0
    assert probability_better(worse, better) == 0.0
    assert probability_better(worse, worse) == 0.5


def test_probability_better_is_calibrated_to_the_normal_law():
    """Mean difference d with standard error s: P = Phi(-d / s)."""
    rng = np.random.default_rng(9)
    first, gap = rng.normal(size=300), rng.normal(size=300)
    gap = (gap - gap.mean()) / gap.std() + 0.05
    wanted = 0.5 * (1 + math.erf(-0.05 * math.sqrt(300) / math.sqrt(2)))
    assert probability_better(measured(first + gap), measured(first)) == pytest.approx(wanted, abs=0.03)


@pytest.mark.parametrize(
    "other",
    [measured([1.0, 2.0]), measured([1.0] * 3, split="holdout"), measured([1.0] * 3, "error"),
     Measurement("kl", "validation", 1, 1, 1, 0, 3)],
    ids=["samples", "split", "metric", "values left out"],
)  # fmt: skip
def test_only_the_same_samples_are_compared(other):
    with pytest.raises(ValueError, match="not measured on the same samples"):
        probability_better(measured([1.0, 1.0, 1.0]), other)
