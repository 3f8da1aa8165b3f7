"""Aggregates by hand; intervals by simulation: how often they cover the truth."""

import math
import sys

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.measurement import (
    Difference,
    Measurement,
    aggregate,
    bootstrap_means,
    difference,
    interval,
    probability_better,
)
from hypothesis import given
from hypothesis import strategies as st


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
    np.testing.assert_allclose(bootstrap_means(values, 100), whole, rtol=1e-12)


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


OTHERS = [
    measured([1.0, 2.0]),
    measured([1.0] * 3, split="holdout"),
    measured([1.0] * 3, "error"),
    Measurement("kl", "validation", 1, 1, 1, 0, 3),
]


@pytest.mark.parametrize("other", OTHERS, ids=["samples", "split", "metric", "values left out"])
@pytest.mark.parametrize("compare", [probability_better, difference])
def test_only_the_same_samples_are_compared(compare, other):
    with pytest.raises(InvalidInput, match="not measured on the same samples"):
        compare(measured([1.0, 1.0, 1.0]), other)


# differences -----------------------------------------------------------------------------------------------------


def test_a_difference_is_the_bootstrap_of_the_pairs():
    """The naive way: draw sample indices, take both means on the same draws, sort the differences."""
    rng = np.random.default_rng(10)
    first, second = rng.exponential(size=40), rng.exponential(size=40)
    draws = np.random.default_rng(0).integers(0, 40, size=(2000, 40))
    gaps = [first[pick].mean() - second[pick].mean() for pick in draws]
    found = difference(measured(first), measured(second), level=0.9)
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(gaps, [0.05, 0.95])))
    assert found.probability == pytest.approx(np.mean(np.array(gaps) < 0))
    assert found.level == 0.9


def test_a_difference_of_normal_samples_has_the_normal_interval():
    rng = np.random.default_rng(11)
    noise, gap = rng.normal(0, 5, size=400), rng.normal(0.3, 1, size=400)
    found = difference(measured(noise + gap), measured(noise))
    error = gap.std() / 20
    assert found.value == pytest.approx(gap.mean())
    assert found.low == pytest.approx(gap.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(gap.mean() + 1.96 * error, abs=0.15 * error)
    assert found.worse
    assert not found.better


def test_a_difference_of_errors_has_the_law_of_the_disagreements():
    """Of n samples the first gets k right that the second gets wrong, and none the other way: no resample is above 0,
    and one of (1 - k / n)^n is a tie. Three samples could be chance, twelve are not."""
    n = 400
    for k, better in ((3, False), (12, True)):
        second = np.zeros(n)
        second[:k] = 1
        found = difference(measured(np.zeros(n), "error"), measured(second, "error"))
        assert found.probability == pytest.approx(1 - 0.5 * (1 - k / n) ** n, abs=0.015)
        assert found.better is better
        assert found.value == -k / n


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng: rng.normal(0.2, 1.0, 80), 0.2),
        (lambda rng: rng.exponential(0.5, 80) - rng.exponential(0.3, 80), 0.2),
        (lambda rng: (rng.random(200) < 0.2).astype(float) - (rng.random(200) < 0.1), 0.1),
    ],
    ids=["normal", "exponential", "error"],
)
def test_coverage_of_differences(draw, truth):
    """400 simulated experiments, noise of 10 times the difference common to both: it cancels."""
    rng = np.random.default_rng(12)
    hits = []
    for _ in range(400):
        gap = draw(rng)
        shared = rng.normal(0, 10, len(gap))
        found = difference(measured(shared + gap), measured(shared), resamples=500)
        hits.append(found.low <= truth <= found.high)
    assert 0.91 <= np.mean(hits) <= 0.985


def test_better_is_rarely_said_without_reason():
    """Equal in truth: each side wins in 2.5 % of the experiments, give or take 1.6 % (two standard errors)."""
    rng = np.random.default_rng(13)
    pairs = [(rng.exponential(size=100), rng.exponential(size=100)) for _ in range(400)]
    found = [difference(measured(a), measured(b), resamples=500) for a, b in pairs]
    assert np.mean([each.better for each in found]) < 0.045
    assert np.mean([each.worse for each in found]) < 0.045


def test_perplexities_are_subtracted_as_perplexities():
    rng = np.random.default_rng(14)
    first, second = rng.normal(2.1, 0.3, 60), rng.normal(2, 0.3, 60)
    found = difference(measured(first, "perplexity"), measured(second, "perplexity"))
    assert found.value == pytest.approx(math.exp(first.mean()) - math.exp(second.mean()))
    gaps = np.exp(bootstrap_means(first)) - np.exp(bootstrap_means(second))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(gaps, [0.025, 0.975])))
    losses = difference(measured(first, "loss"), measured(second, "loss"))
    assert found.probability == losses.probability
    assert (found.better, found.worse) == (losses.better, losses.worse)


def test_perplexities_beyond_float_are_still_compared():
    found = difference(measured([800.0, 900.0], "perplexity"), measured([1.0, 2.0], "perplexity"))
    assert math.isfinite(found.value)
    assert found.worse
    assert found.probability == 0


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=1, max_size=30),
    st.sampled_from(["kl", "error", "perplexity"]),
)
def test_the_other_way_round_is_the_negative(pairs, metric):
    one, other = (measured(values, metric) for values in zip(*pairs, strict=True))
    there, back = difference(one, other, resamples=200), difference(other, one, resamples=200)
    assert there.low <= there.high
    assert there.value == -back.value
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), rel=1e-9, abs=1e-9)
    assert there.probability == pytest.approx(1 - back.probability)
    assert difference(one, one) == Difference(0, 0, 0, 0.5)


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, float("nan")])
def test_levels_that_are_none(level):
    with pytest.raises(InvalidInput, match="lies between 0 and 1"):
        difference(measured([1.0]), measured([2.0]), level)
