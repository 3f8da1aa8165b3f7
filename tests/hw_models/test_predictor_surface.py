"""The residual between measured neighbours: against a loop, and that no point sees its own measurement."""

import numpy as np
import pytest
from bitfront.hw_models.gemm import Gemms
from bitfront.hw_models.predictor.lattice import Axes
from bitfront.hw_models.predictor.surface import Parts, between, on_grid

AXES = Axes(np.array([1.0, 16]), np.array([32.0, 64, 256, 512]), np.array([64.0, 128, 1024, 2048, 4096]))


def naive(values, axes):
    """Mean of the interpolations along n and along k from the nearest numbers on either side."""

    def line(axis, numbers, at):
        below = [i for i in range(at) if not np.isnan(numbers[i])]
        above = [i for i in range(at + 1, len(axis)) if not np.isnan(numbers[i])]
        if below and above:
            low, high = below[-1], above[0]
            share = np.log(axis[at] / axis[low]) / np.log(axis[high] / axis[low])
            return numbers[low] + share * (numbers[high] - numbers[low])
        return numbers[below[-1]] if below else numbers[above[0]] if above else None

    found = np.full(values.shape, np.nan)
    for m, n, k in np.ndindex(values.shape):
        both = [line(axes.n, values[m, :, k], n), line(axes.k, values[m, n], k)]
        numbers = [number for number in both if number is not None]
        if numbers:
            found[m, n, k] = np.mean(numbers)
    return found


def test_between_is_the_loop_where_a_neighbour_is_known():
    rng = np.random.default_rng(0)
    values = rng.normal(size=AXES.shape)
    values[rng.random(AXES.shape) < 0.3] = np.nan
    expected = naive(values, AXES)
    reached = ~np.isnan(expected)
    assert reached.mean() > 0.9
    np.testing.assert_allclose(between(values, AXES)[reached], expected[reached], rtol=1e-12)


def test_no_point_sees_its_own_measurement():
    values = np.random.default_rng(1).normal(size=AXES.shape)
    before = between(values, AXES)
    values[1, 2, 3] += 100.0
    after = between(values, AXES)
    assert after[1, 2, 3] == before[1, 2, 3]
    assert after[1, 1, 3] != before[1, 1, 3]


def test_a_new_line_is_filled_from_the_lines_around_it():
    log_n, log_k = np.log(AXES.n), np.log(AXES.k)
    plane = np.broadcast_to(log_n[:, None] + 2 * log_k, AXES.shape).copy()
    known = plane.copy()
    known[:, 1, :], known[:, :, 2] = np.nan, np.nan
    np.testing.assert_allclose(between(known, AXES)[:, 1:3, 1:4], plane[:, 1:3, 1:4], rtol=1e-12)
    alone = np.full(AXES.shape, np.nan)
    alone[0] = plane[0]
    np.testing.assert_allclose(between(alone, AXES)[1], plane[0])  # nothing at this m: the other m


def test_grid_takes_the_mean_of_repeats_and_leaves_other_products_out():
    rows = Gemms(
        np.full(4, "nvidia-t4"),
        np.full(4, "fp16"),
        np.array([1, 1, 16, 3]),
        np.array([32, 32, 512, 32]),
        np.array([64, 64, 4096, 64]),
    )
    found = on_grid(AXES, rows, np.array([1.0, 3.0, 5.0, 7.0]))
    assert found[0, 0, 0] == 2.0
    assert found[1, 3, 4] == 5.0
    assert np.isnan(found).sum() == found.size - 2


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_surface_is_measured_where_it_was_and_blended_elsewhere(weight):
    rng = np.random.default_rng(3)
    boosted, interpolated = rng.normal(size=(2, *AXES.shape))
    measured = np.where(rng.random(AXES.shape) < 0.5, rng.normal(size=AXES.shape), np.nan)
    interpolated[0, 0, 0] = measured[0, 0, 0] = np.nan
    parts = Parts(AXES, measured, boosted, interpolated)
    found = parts.surface(weight, monotone=False)
    expected = np.where(np.isnan(measured), weight * boosted + (1 - weight) * interpolated, measured)
    expected[0, 0, 0] = boosted[0, 0, 0]
    np.testing.assert_allclose(found, expected)
    for axis in range(3):
        assert (np.diff(parts.surface(weight), axis=axis) >= -1e-12).all()
