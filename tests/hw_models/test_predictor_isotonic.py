"""Isotonic regression on grids: against scikit-learn on lines, a quadratic program on a grid, and properties."""

import numpy as np
from bitfront.hw_models.predictor.isotonic import rising, rising_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import LinearConstraint, minimize
from sklearn.isotonic import IsotonicRegression

FINITE = st.floats(-5, 5, width=32)


def test_lines_are_those_of_scikit_learn():
    values = np.random.default_rng(0).normal(size=(23, 7)) + np.linspace(0, 2, 23)[:, None]
    expected = np.stack([IsotonicRegression().fit_transform(np.arange(23), line) for line in values.T], axis=1)
    np.testing.assert_allclose(rising_lines(values), expected, atol=1e-12)


def test_grid_is_the_nearest_rising_one():
    shape = (3, 4, 3)
    values = np.random.default_rng(1).normal(size=shape)
    steps = []
    for axis in range(3):
        index = np.arange(values.size).reshape(shape)
        before = np.delete(index, -1, axis=axis).ravel()
        after = np.delete(index, 0, axis=axis).ravel()
        rows = np.zeros((len(before), values.size))
        rows[np.arange(len(before)), after], rows[np.arange(len(before)), before] = 1, -1
        steps.append(rows)
    best = minimize(
        lambda x: 0.5 * ((x - values.ravel()) ** 2).sum(),
        np.sort(values.ravel()),
        jac=lambda x: x - values.ravel(),
        constraints=LinearConstraint(np.concatenate(steps), 0, np.inf),
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )
    assert best.success
    np.testing.assert_allclose(rising(values, sweeps=200).ravel(), best.x, atol=1e-4)
    # with the usual number of sweeps the distance is already that of the best to a per cent
    distance = ((rising(values) - values) ** 2).sum()
    assert distance <= 1.01 * 2 * best.fun


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.tuples(*[st.integers(1, 5)] * 3), elements=FINITE), st.integers(1, 3))
def test_rises_along_every_axis_after_any_number_of_sweeps(values, sweeps):
    found = rising(values, sweeps)
    for axis in range(3):
        assert (np.diff(found, axis=axis) >= -1e-12).all()
    assert values.min() - 1e-9 <= found.min()
    assert found.max() <= values.max() + 1e-9


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, (4, 3, 4), elements=FINITE))
def test_what_rises_already_stays(values):
    sorted_up = values
    for axis in range(3):
        sorted_up = np.maximum.accumulate(sorted_up, axis=axis)
    np.testing.assert_allclose(rising(sorted_up), sorted_up, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, (5, 3, 4), elements=FINITE), st.integers(1, 4))
def test_stretches_rise_within_and_are_free_in_between(values, cut):
    runs = (slice(0, cut), slice(cut, 5))
    found = rising(values, stretches=runs)
    for run in runs:
        np.testing.assert_allclose(found[run], rising(values[run]), atol=1e-9)
    for axis in (1, 2):
        assert (np.diff(found, axis=axis) >= -1e-12).all()
