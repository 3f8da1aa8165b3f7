"""The gap between a predicted and a measured front."""

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.surrogate import Latent, front_gap

SCALE = Latent(0.0)


def test_no_gap_where_the_promise_is_kept():
    quality, costs = np.array([4.0, 1.0, 0.1]), np.array([[1.0], [2.0], [3.0]])
    gap = front_gap(SCALE, quality, costs, quality, costs)
    assert gap.relative == 0
    assert gap.predicted == gap.measured > 0


def test_the_gap_is_the_missing_volume():
    """One point each in the unit square of (log quality, cost): predicted (0, 0), measured (1, 0) and (0, 1)."""
    gap = front_gap(SCALE, np.array([1.0]), np.array([[0.0]]), np.array([np.e, 1.0]), np.array([[0.0], [1.0]]))
    assert gap.predicted == pytest.approx(1.1 * 1.1)
    assert gap.measured == pytest.approx(1.1 * 1.1 - 1.0)
    assert gap.relative == pytest.approx(1 / 1.21)


def test_it_shrinks_as_more_of_the_front_is_measured():
    costs = np.linspace(0, 1, 9)[:, None]
    quality = np.exp(-5 * costs[:, 0])
    gaps = [
        front_gap(SCALE, quality, costs, quality[kept], costs[kept]).relative
        for kept in ([0, 8], [0, 4, 8], [0, 2, 4, 6, 8], list(range(9)))
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > gaps[-1] == 0


def test_better_than_promised_is_negative():
    gap = front_gap(
        SCALE, np.array([2.0, 1.0]), np.array([[0.0], [1.0]]), np.array([1.5, 0.5]), np.array([[0.0], [1.0]])
    )
    assert gap.relative < 0


def test_fronts_without_points_are_refused():
    with pytest.raises(InvalidInput, match="at least 1"):
        front_gap(SCALE, np.zeros(0), np.zeros((0, 1)), np.ones(1), np.ones((1, 1)))
