"""Multilinear look-up on a grid: exact on points, exact for log-linear functions, rising where the values rise."""

import numpy as np
from bitfront.hw_models.gemm import Gemms
from bitfront.hw_models.predictor.isotonic import rising
from bitfront.hw_models.predictor.lattice import MOST, Axes
from hypothesis import given, settings
from hypothesis import strategies as st

AXES = Axes(np.array([1.0, 16, 100]), np.array([32.0, 64, 512, 4096]), np.array([64.0, 4096]))


def products(m, n, k):
    rows = len(m)
    return Gemms(np.full(rows, "nvidia-t4"), np.full(rows, "fp16"), np.array(m), np.array(n), np.array(k))


def look_up(values, m, n, k):
    indices, weights = AXES.corners(*(np.asarray(side, dtype=float) for side in (m, n, k)))
    return (values.ravel()[indices] * weights).sum(axis=1)


def test_a_log_linear_function_is_exact_between_points():
    def function(m, n, k):
        return 0.3 * np.log(m) + 0.5 * np.log(n) - 0.1 * np.log(k) + 0.02 * np.log(m) * np.log(n)

    points = function(*AXES.points()).reshape(AXES.shape)
    rng = np.random.default_rng(0)
    m, n, k = rng.uniform(1, 100, 50), rng.uniform(32, 4096, 50), rng.uniform(64, 4096, 50)
    np.testing.assert_allclose(look_up(points, m, n, k), function(m, n, k), rtol=1e-12)


def test_points_are_exact_and_outside_is_the_edge():
    values = np.random.default_rng(1).normal(size=AXES.shape)
    np.testing.assert_allclose(look_up(values, *AXES.points()), values.ravel(), rtol=1e-12)
    np.testing.assert_allclose(look_up(values, [1000], [16], [10_000]), values[-1, 0, -1], rtol=1e-12)


def test_matrix_is_the_look_up_and_no_missing_neighbour_reaches_a_point():
    values = np.random.default_rng(2).normal(size=AXES.shape)
    asked = products([16, 3, 100], [64, 100, 4096], [64, 999, 4096])
    np.testing.assert_allclose(AXES.to(asked) @ values.ravel(), look_up(values, asked.m, asked.n, asked.k))
    values[:] = np.nan
    values[1, 1, 0] = 7.0
    assert (AXES.to(asked) @ values.ravel())[0] == 7.0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9), st.lists(st.integers(1, 5000), min_size=6, max_size=6))
def test_rising_values_give_a_rising_function(seed, sizes):
    values = rising(np.random.default_rng(seed).normal(size=AXES.shape))
    low = [min(pair) for pair in zip(sizes[:3], sizes[3:], strict=True)]
    high = [max(pair) for pair in zip(sizes[:3], sizes[3:], strict=True)]
    below, above = look_up(values, *zip(low, high, strict=True))
    assert below <= above + 1e-12


def test_finer_keeps_every_line_and_splits_wide_gaps_once():
    finer = AXES.finer()
    for axis, more in ((AXES.m, finer.m), (AXES.n, finer.n), (AXES.k, finer.k)):
        assert np.isin(axis, more).all()
        assert len(more) <= 2 * len(axis) - 1
    assert finer.n.tolist() == [32, 48, 64, 176, 512, 1472, 4096]  # 181 and 1448 in multiples of 16 and 64


def test_long_axes_are_thinned_with_their_ends_kept():
    m = np.arange(1, 2001)
    axes = Axes.of(m, m, m)
    assert axes.shape == MOST
    assert (axes.m[0], axes.m[-1]) == (1, 2000)
