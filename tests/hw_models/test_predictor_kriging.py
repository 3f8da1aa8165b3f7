"""Kriging over weight shapes: against solving without each shape, and what reaches whom."""

import numpy as np
import pytest
from bitfront.hw_models.gemm import Gemms
from bitfront.hw_models.predictor import kriging
from bitfront.hw_models.predictor.kriging import Kriging, shape_codes

SIZES = np.array([64, 128, 512, 1024, 4096])
LINES = np.array([1.0, 16, 256])


def products(m, n, k):
    m, n, k = (np.asarray(side, dtype=np.int64) for side in np.broadcast_arrays(m, n, k))
    return Gemms(np.full(len(m), "nvidia-t4"), np.full(len(m), "fp16"), m, n, k)


@pytest.fixture
def table():
    m, n, k = (side.ravel() for side in np.meshgrid(LINES.astype(int), SIZES, SIZES, indexing="ij"))
    rng = np.random.default_rng(0)
    return products(m, n, k), 0.1 * np.log(n) - 0.2 * np.log(k) + 0.05 * rng.normal(size=len(m))


def naive(shapes, values, mean, nugget, n, k):
    """Kriging of one shape by a linear system in plain loops."""

    def alike(one, other):
        return np.exp(-(abs(np.log2(one[0] / other[0])) + abs(np.log2(one[1] / other[1]))) / kriging.LENGTH)

    system = np.array([[alike(one, other) for other in shapes] for one in shapes]) + nugget * np.eye(len(shapes))
    row = np.array([alike((n, k), other) for other in shapes])
    return mean + row @ np.linalg.solve(system, values - mean)


def test_left_out_is_solving_again_without_the_shape(table, monkeypatch):
    monkeypatch.setattr(kriging, "CLIP", np.inf)
    rows, remainder = table
    found = Kriging.of(rows, remainder, LINES)
    shapes = list(zip(found.n.tolist(), found.k.tolist(), strict=True))
    for own in (0, 7, 24):
        others = [at for at in range(len(shapes)) if at != own]
        expected = naive([shapes[at] for at in others], found.values[others], found.mean, found.nugget, *shapes[own])
        np.testing.assert_allclose(found.left_out[own], expected, rtol=1e-9)
    np.testing.assert_allclose(found.values[found.n == 512][:, 1], remainder[(rows.m == 16) & (rows.n == 512)])


def test_new_shapes_and_sizes_of_m_in_between(table, monkeypatch):
    monkeypatch.setattr(kriging, "CLIP", np.inf)
    rows, remainder = table
    found = Kriging.of(rows, remainder, LINES)
    shapes = list(zip(found.n.tolist(), found.k.tolist(), strict=True))
    low, high = naive(shapes, found.values, found.mean, found.nugget, 700, 90)[1:]
    asked = found.at(products([16, 64, 256, 5000], 700, 90))
    np.testing.assert_allclose(asked, [low, (low + high) / 2, high, high], rtol=1e-9)  # 64 is the middle of 16 and 256


def test_no_shape_hears_of_its_own_measurement(table):
    rows, remainder = table
    own = (rows.n == 512) & (rows.k == 1024)
    changed = remainder + np.where(own, 0.03, 0.0)
    before, after = (Kriging.of(rows, each, LINES).without_own(rows) for each in (remainder, changed))
    assert np.abs(after - before)[own].max() < 0.004  # the median of the line may move, nothing else
    assert np.abs(after - before)[~own].max() > 0.004


def test_a_stalled_measurement_hardly_reaches_its_neighbours(table, monkeypatch):
    rows, remainder = table
    own = (rows.n == 512) & (rows.k == 1024)
    stalled = remainder + np.where(own, 3.0, 0.0)
    asked = products(16, 512, [512, 4096])
    before, after = (Kriging.of(rows, each, LINES).at(asked) for each in (remainder, stalled))
    monkeypatch.setattr(kriging, "CLIP", np.inf)
    unprotected = Kriging.of(rows, stalled, LINES).at(asked)
    assert np.abs(after - before).max() < 0.35 * np.abs(unprotected - before).max()


def test_a_shape_with_few_sizes_and_a_shape_that_was_not_kriged(table, monkeypatch):
    rows, remainder = table
    few = (rows.n != 64) | (rows.k != 64) | (rows.m == 16)
    found = Kriging.of(rows.take(few), remainder[few], LINES)
    np.testing.assert_allclose(found.values[0], remainder[~few | (shape_codes(rows) == shape_codes(rows)[0])][1])
    monkeypatch.setattr(kriging, "MOST_SHAPES", 20)
    thinned = Kriging.of(rows, remainder, LINES)
    assert len(thinned.n) == 20
    left = ~np.isin(shape_codes(rows), (thinned.n << 32) | thinned.k)
    np.testing.assert_array_equal(thinned.without_own(rows)[left], thinned.at(rows)[left])


def test_one_line_of_m():
    rows = products(8, np.repeat(SIZES, 5), np.tile(SIZES, 5))
    found = Kriging.of(rows, np.full(25, 0.7), np.array([8.0]))
    np.testing.assert_allclose(found.at(products([1, 8, 900], 100, 100)), 0.7)
