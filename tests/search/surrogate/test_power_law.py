"""The power law between a score and a quality."""

import numpy as np
import pytest
from bitfront.search.rank_statistics import correlation
from bitfront.search.surrogate import PowerLaw


def test_it_recovers_an_exact_law():
    scores = np.array([0.1, 1.0, 5.0, 20.0])
    law = PowerLaw.fit(scores, 0.3 + 2.0 * scores**1.5, offset=0.3)
    assert law.slope == pytest.approx(1.5)
    assert law.predict(3.0) == pytest.approx(0.3 + 2.0 * 3.0**1.5)
    assert law.spread == pytest.approx(0, abs=1e-9)


def test_a_falling_relation_has_slope_zero():
    law = PowerLaw.fit(np.array([1.0, 2.0, 4.0]), np.array([4.0, 2.0, 1.0]))
    assert law.slope == 0
    assert law.predict(1.0) == law.predict(9.0) == pytest.approx(2.0)


def test_fewer_than_three_usable_points_give_none():
    assert PowerLaw.fit(np.array([1.0, 2.0, 0.0]), np.array([1.0, 2.0, 3.0])) is None


def test_spearman_with_ties_and_constants():
    assert correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0])) == pytest.approx(1)
    assert correlation(np.ones(3), np.arange(3.0)) is None
    assert correlation(np.arange(2.0), np.arange(2.0)) is None
