"""The monotone map keeps every order and follows a curve that is not a line."""

import numpy as np
import pytest
from bitfront.search.surrogate import MonotoneMap
from bitfront.search.surrogate.monotone import left_out_residuals
from hypothesis import given
from hypothesis import strategies as st

numbers = st.floats(-10, 10, allow_nan=False, width=32)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40), st.lists(numbers, min_size=2, max_size=10))
def test_it_rises_strictly(pairs, where):
    x, y = np.array(pairs).T
    points = np.unique(np.array(where, dtype=np.float64))
    points = points[np.concatenate([[True], np.diff(points) > 1e-3])]
    mapped = MonotoneMap.fit(x, y)(points)
    assert np.isfinite(mapped).all()
    assert (np.diff(mapped) > 0).all()


def test_it_follows_a_saturating_curve_better_than_a_line():
    generator = np.random.default_rng(0)
    x = np.sort(generator.uniform(-3, 3, 120))
    y = np.tanh(2 * x) + 0.05 * generator.normal(size=120)
    found = MonotoneMap.fit(x, y)
    line = np.polyval(np.polyfit(x, y, 1), x)
    error = np.abs(found(x) - np.tanh(2 * x)).mean()
    assert error < 0.06
    assert error < 0.3 * np.abs(line - np.tanh(2 * x)).mean()
    assert np.abs(left_out_residuals(x, y)).mean() < 0.12


def test_beyond_the_ends_it_goes_on_with_slope_one():
    x = np.arange(20.0)
    found = MonotoneMap.fit(x, 2 * x)
    assert found(np.array([40.0]))[0] - found(np.array([30.0]))[0] == pytest.approx(10)
    assert found(np.array([-20.0]))[0] - found(np.array([-10.0]))[0] == pytest.approx(-10)


def test_what_falls_becomes_one_block_at_its_mean():
    x = np.arange(12.0)
    found = MonotoneMap.fit(x, -x)
    assert found.knots == pytest.approx([5.5])
    assert found(np.array([5.5]))[0] == pytest.approx(-5.5, abs=1e-4)


def test_nothing_is_the_identity():
    assert MonotoneMap.fit(np.zeros(0), np.zeros(0))(np.array([1.0, 2.0])).tolist() == [1.0, 2.0]


def test_left_out_residuals_do_not_see_their_own_fold():
    generator = np.random.default_rng(1)
    x, y = np.arange(30.0), generator.normal(size=30)
    moved = y.copy()
    moved[7] += 100
    before, after = left_out_residuals(x, y), left_out_residuals(x, moved)
    assert after[7] - before[7] == pytest.approx(100)
    assert after[[17, 27]] == pytest.approx(before[[17, 27]])
