"""The surface on the grid: measured where it was, foretold elsewhere, rising as promised."""

import numpy as np
import pytest
from bitfront.hw_models.gemm import Gemms
from bitfront.hw_models.predictor.lattice import Axes
from bitfront.hw_models.predictor.surface import Order, Parts, on_grid

AXES = Axes(np.array([1.0, 16]), np.array([32.0, 64, 256, 512]), np.array([64.0, 128, 1024, 2048, 4096]))


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


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_surface_is_measured_where_it_was_and_foretold_elsewhere(share):
    rng = np.random.default_rng(3)
    trend, boosted = rng.normal(size=(2, *AXES.shape))
    measured = np.where(rng.random(AXES.shape) < 0.5, rng.normal(size=AXES.shape), np.nan)
    parts = Parts(AXES, measured, trend, boosted)
    expected = np.where(np.isnan(measured), trend + share * boosted, measured)
    np.testing.assert_allclose(parts.surface(share, Order(False, np.empty((0, 2)))), expected)
    strict = parts.surface(share, Order(True, np.empty((0, 2))))
    for axis in range(3):
        assert (np.diff(strict, axis=axis) >= -1e-12).all()
    falling = parts.surface(share, Order(True, np.array([[1.0, 16.0]])))
    for axis in (1, 2):
        assert (np.diff(falling, axis=axis) >= -1e-12).all()
    assert (np.diff(falling, axis=0) < 0).any()
    assert ((falling - expected) ** 2).sum() < ((strict - expected) ** 2).sum()
