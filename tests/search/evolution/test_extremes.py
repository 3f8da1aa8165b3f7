"""The standing of the configurations predicted best among those of one size, against a naive reference."""

import numpy as np
import pytest
from bitfront.search.evolution.extremes import PICKED, Extremes
from scipy.stats import rankdata


def naive(predicted, sizes, measured, stratum):
    """Mean over the strata of 1 - 2 q / (n - 1), q the mean rank of the best predicted; no ties."""
    order = np.argsort(sizes, kind="stable")
    found = []
    for points in np.array_split(order, round(len(sizes) / stratum)):
        ranks = rankdata(measured[points]) - 1
        best = np.argsort(predicted[points])[: max(1, round(PICKED * len(points)))]
        found.append(1 - 2 * ranks[best].mean() / (len(points) - 1))
    return np.mean(found)


@pytest.fixture
def drawn():
    generator = np.random.default_rng(4)
    return generator.uniform(1, 9, 120), generator.lognormal(size=120), generator


@pytest.mark.parametrize("stratum", [12, 24, 40])
def test_it_is_that_of_a_naive_reference(drawn, stratum):
    sizes, measured, generator = drawn
    for noise in (0.0, 1.0, 5.0):
        predicted = measured + noise * generator.normal(size=120)
        wanted = naive(predicted, sizes, measured, stratum)
        assert Extremes(sizes, measured, stratum).standing(predicted) == pytest.approx(wanted)


def test_the_best_prediction_has_the_highest_standing_and_a_random_one_none_in_the_mean(drawn):
    sizes, measured, generator = drawn
    extremes = Extremes(sizes, measured, 24)
    assert extremes.standing(measured) == pytest.approx(1 - 3 / 23)
    assert extremes.standing(-measured) == pytest.approx(3 / 23 - 1)
    random = [extremes.standing(generator.normal(size=120)) for _ in range(400)]
    assert abs(np.mean(random)) < 4 * np.std(random) / 20


def test_only_the_extremes_and_their_order_within_a_size_count(drawn):
    sizes, measured, generator = drawn
    extremes, predicted = Extremes(sizes, measured, 24), measured + generator.normal(size=120)
    assert extremes.standing(np.exp(predicted)) == extremes.standing(predicted)
    shuffled = predicted.copy()
    for points in np.array_split(np.argsort(sizes, kind="stable"), 5):
        worse = points[np.argsort(predicted[points])[4:]]
        shuffled[worse] = predicted[generator.permutation(worse)] + 0.0
    assert extremes.standing(shuffled) == pytest.approx(extremes.standing(predicted))
    assert extremes.standing(predicted + 100 * (sizes > np.sort(sizes)[23])) == pytest.approx(
        extremes.standing(predicted)
    )


def test_ties_at_the_edge_share_the_places(drawn):
    sizes, measured, _ = drawn
    assert Extremes(sizes, measured, 24).standing(np.zeros(120)) == pytest.approx(0, abs=1e-12)
    one = Extremes(np.arange(6.0), np.arange(6.0), 6)  # one place of six; two are tied for it
    assert one.standing(np.array([0.0, 0, 1, 1, 1, 1])) == pytest.approx(1 - 2 * 0.5 / 5)


def test_small_benches_have_one_stratum():
    assert Extremes(np.arange(3.0), np.array([3.0, 1.0, 2.0])).standing(np.array([3.0, 1.0, 2.0])) == 1
