"""Falls along m: found where most weight shapes show them, not in noise; the stretches between them."""

import numpy as np
import pytest
from bitfront.hw_models import device
from bitfront.hw_models.gemm import Gemms
from bitfront.hw_models.law import START, log_ms, work
from bitfront.hw_models.predictor.falls import falls, stretches
from bitfront.hw_models.predictor.kriging import Kriging
from bitfront.hw_models.predictor.trend import Trend

LINES = np.array([1.0, 16, 17, 32, 64, 256])
SIZES = 64 * np.unique(np.round(2 ** np.arange(0, 8, 0.4))).astype(int)
GPU = "nvidia-h100-sxm"


def trend(change, noise=0.0):
    """A device that obeys the law but for ``change(gemms)`` and noise."""
    m, n, k = (side.ravel() for side in np.meshgrid(LINES.astype(int), SIZES, SIZES, indexing="ij"))
    rows = Gemms(np.full(len(m), GPU), np.full(len(m), "bf16"), m, n, k)
    remainder = change(rows) + noise * np.random.default_rng(0).normal(size=len(m))
    return Trend(device(GPU), START, Kriging.of(rows, remainder, LINES))


def found(*given):
    return falls(trend(*given), GPU, "bf16").tolist()


def test_a_slower_kernel_at_an_odd_size_is_a_fall_behind_it():
    assert found(lambda rows: np.where(rows.m == 17, 0.3, 0.0), 0.01) == [[17, 32]]


def test_a_fall_in_a_corner_of_the_shapes_is_one():
    assert found(lambda rows: np.where((rows.m == 17) & (rows.n * rows.k < 2**20), 0.3, 0.0)) == [[17, 32]]


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.1])
def test_noise_is_none(noise):
    assert found(lambda rows: np.zeros(len(rows)), noise) == []


def test_the_law_itself_rises_along_m():
    given = trend(lambda rows: np.zeros(len(rows)))
    rows = Gemms(np.full(6, GPU), np.full(6, "bf16"), LINES.astype(int), np.full(6, 512), np.full(6, 512))
    np.testing.assert_array_equal(given.law(rows), log_ms(START, work(rows, device(GPU))))
    assert (np.diff(given.law(rows)) > 0).all()


def test_stretches_cover_the_lines_and_break_inside_falls():
    finer = np.array([1.0, 16, 17, 24, 32, 64, 256])
    runs = stretches(finer, np.array([[17.0, 32.0]]))
    assert [finer[run].tolist() for run in runs] == [[1, 16, 17], [24], [32, 64, 256]]
    assert stretches(finer, np.empty((0, 2))) == (slice(0, 7),)
    without = np.array([1.0, 16, 32, 64])  # the line before the fall is missing
    assert [without[run].tolist() for run in stretches(without, np.array([[17.0, 32.0]]))] == [[1, 16], [32, 64]]
