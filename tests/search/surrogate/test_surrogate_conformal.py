"""Intervals: the order statistics of CV+, coverage by simulation, and widths that adapt to a shift."""

import math

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.surrogate import Coverage
from bitfront.search.surrogate.conformal import jackknife_plus, student_interval


def test_the_ends_are_the_order_statistics_of_the_paper():
    generator = np.random.default_rng(0)
    without, deviation, residuals = generator.normal(size=(3, 25)), np.array([1.0, 2.0, 0.5]), generator.random(25)
    low, high = jackknife_plus(without, deviation, residuals, 0.1)
    for row in range(3):
        below = sorted(without[row] - deviation[row] * residuals)
        above = sorted(without[row] + deviation[row] * residuals)
        assert low[row] == below[math.floor(0.1 * 26) - 1]
        assert high[row] == above[math.ceil(0.9 * 26) - 1]


def test_too_few_points_for_the_level_give_no_bound():
    low, high = jackknife_plus(np.zeros((2, 8)), np.ones(2), np.ones(8), 0.1)
    assert np.isneginf(low).all()
    assert np.isposinf(high).all()


def test_coverage_of_regression_with_noise_that_varies():
    generator = np.random.default_rng(1)
    inside, narrow = [], []
    for _ in range(150):
        x = generator.normal(size=(31, 3))
        spread = 0.2 + np.abs(x[:, 0])
        y = x @ [1.0, -1.0, 0.5] + spread * generator.standard_t(4, size=31)
        seen, test = slice(0, 30), slice(30, 31)
        left = [solved_without(x[seen], y[seen], i) for i in range(30)]
        residuals = np.array([abs(y[i] - x[i] @ left[i]) / spread[i] for i in range(30)])
        without = np.stack([x[test] @ each for each in left], axis=1)
        low, high = jackknife_plus(without, spread[test], residuals, 0.1)
        inside.append(bool(low[0] <= y[30] <= high[0]))
        narrow.append((high[0] - low[0]) / spread[30])
    assert 0.84 <= np.mean(inside) <= 0.97
    assert np.median(narrow) < 6.5  # the 90 % interval of t with 4 degrees is 4.3 wide


def solved_without(x, y, left):
    keep = np.arange(len(x)) != left
    return np.linalg.lstsq(x[keep], y[keep], rcond=None)[0]


def test_student_intervals_widen_with_fewer_points():
    mean, deviation = np.zeros(1), np.ones(1)
    widths = [float(np.subtract(*student_interval(mean, deviation, points, 0.1)[::-1])[0]) for points in (3, 6, 1000)]
    assert widths[0] > widths[1] > widths[2]
    assert widths[2] == pytest.approx(2 * 1.645, rel=1e-2)


def test_widths_adapt_until_intervals_cover_under_a_shift():
    """Errors three times as large as the residuals that the intervals were made from."""
    generator = np.random.default_rng(2)
    residuals = np.abs(generator.normal(size=200))
    coverage, fixed, outcomes = Coverage.of(0.9), [], []
    for _ in range(400):
        error = 3.0 * abs(generator.normal())
        for factor, kept in ((1.0, fixed), (coverage.factor, outcomes)):
            low, high = jackknife_plus(np.zeros((1, 200)), np.full(1, factor), residuals, 0.1)
            kept.append(bool(low[0] <= error <= high[0]))
        coverage = coverage.after(np.array(outcomes[-1:]))
    assert np.mean(fixed) < 0.5
    assert np.mean(outcomes[50:]) == pytest.approx(0.9, abs=0.03)
    assert 2 < coverage.factor < 5
    assert coverage.told == 400
    assert coverage.share == pytest.approx(np.mean(outcomes))


def test_intervals_that_always_cover_become_narrower():
    coverage = Coverage.of(0.9).after(np.ones(30, dtype=bool))
    assert coverage.factor == pytest.approx(math.exp(-0.15 * 0.1 * 30))
    assert Coverage.of(0.9).share is None


@pytest.mark.parametrize("asked", [0.0, 1.0, -1.0])
def test_no_coverage_is_refused(asked):
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        Coverage.of(asked)
