"""Expected improvement against Monte Carlo with real hypervolumes, and batches that differ."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.allocation import hypervolume
from bitfront.search.surrogate import Latent, choose_batch, expected_hypervolume_improvement
from bitfront.search.surrogate.improvement import _believed, _sampled_improvement, expected_excess
from hypothesis import given, settings
from hypothesis import strategies as st


@dataclass
class Known:
    """A surrogate whose moments are given: of configurations numbered by their first column."""

    mean: np.ndarray
    covariance: np.ndarray
    latent: Latent = field(default_factory=lambda: Latent(0.0))

    def latent_moments(self, choices):
        rows = np.asarray(choices)[:, 0]
        return self.mean[rows].copy(), self.covariance[np.ix_(rows, rows)].copy()


def naive(mean, deviation, costs, known_costs, known, reference, draws=4000, seed=0):
    """Mean gain in hypervolume over draws of the value: [n]."""
    front = np.column_stack([known, known_costs])
    before = hypervolume(front, reference) if len(front) else 0.0
    values = np.random.default_rng(seed).normal(size=draws)
    gains = []
    for m, d, c in zip(mean, deviation, costs, strict=True):
        found = [hypervolume(np.vstack([front, [m + d * value, *np.atleast_1d(c)]]), reference) for value in values]
        gains.append(np.mean(found) - before)
    return np.array(gains)


@pytest.mark.parametrize("points", [0, 1, 5])
def test_one_price_is_exact(points):
    generator = np.random.default_rng(points)
    known_costs, known = generator.random(points), generator.normal(size=points)
    mean, deviation, costs = generator.normal(size=4), generator.uniform(0.1, 1.5, 4), generator.random(4)
    found = expected_hypervolume_improvement(mean, deviation, costs, known_costs, known, 1.5, 1.1)
    expected = naive(mean, deviation, costs, known_costs[:, None], known, [1.5, 1.1])
    assert found == pytest.approx(expected, rel=0.06, abs=0.01)


def test_two_prices_agree_with_hypervolumes_in_three_objectives():
    generator = np.random.default_rng(7)
    known_costs, known = generator.random((4, 2)), generator.normal(size=4)
    mean, deviation, costs = generator.normal(size=3), generator.uniform(0.2, 1.0, 3), 0.6 * generator.random((3, 2))
    points = generator.random((20000, 2))
    found = _sampled_improvement(mean, deviation, costs, known_costs, known, 1.5, points) * 1.1**2
    expected = naive(mean, deviation, costs, known_costs, known, [1.5, 1.1, 1.1])
    assert found == pytest.approx(expected, rel=0.08, abs=0.01)


@settings(max_examples=40)
@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.01, 2))
def test_expected_excess_is_the_integral(level, mean, deviation):
    grid = np.linspace(mean - 9 * deviation, mean + 9 * deviation, 20001)
    density = np.exp(-0.5 * ((grid - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
    expected = float(np.sum(np.maximum(level - grid, 0) * density) * (grid[1] - grid[0]))
    found = expected_excess(np.array([level]), np.array([mean]), np.array([deviation]))
    assert found[0, 0] == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_certain_values_give_the_plain_improvement():
    found = expected_hypervolume_improvement(
        np.array([0.0, 2.0]), np.zeros(2), np.array([0.5, 0.5]), np.array([0.2]), np.array([1.0]), 3.0, 1.0
    )
    assert found == pytest.approx([0.5, 0.0])


def test_dominated_candidates_are_worth_least_and_uncertain_ones_more():
    found = expected_hypervolume_improvement(
        np.array([0.5, 0.5, 1.5]),
        np.array([0.1, 1.0, 0.1]),
        np.full(3, 0.5),
        np.array([0.1]),
        np.array([0.4]),
        2.0,
        1.1,
    )
    assert found[1] > found[0] > found[2] >= 0


def choices_of(count):
    return np.arange(count)[:, None].repeat(3, axis=1)


def test_a_batch_takes_one_of_each_correlated_pair():
    """Two pairs of twins: the second twin of a chosen one is known as well as measured."""
    covariance = np.kron(np.eye(2), np.ones((2, 2))) * 0.25 + 1e-9 * np.eye(4)
    fitted = Known(np.array([-1.0, -1.0, -0.9, -0.9]), covariance)
    for target in ("hypervolume", "best"):
        chosen = choose_batch(
            fitted, choices_of(4), np.full((4, 1), 0.5), np.exp([0.0]), np.array([[0.6]]), 2, target=target
        )
        assert {int(index) // 2 for index in chosen} == {0, 1}


def test_a_batch_spreads_over_the_front():
    costs = np.linspace(0, 1, 21)[:, None]
    fitted = Known(-2 * costs[:, 0], 0.01 * np.eye(21))
    chosen = choose_batch(fitted, choices_of(21), costs, np.exp([0.0, -2.0]), np.array([[0.0], [1.0]]), 4)
    assert len(set(chosen.tolist())) == 4
    assert np.diff(np.sort(costs[chosen, 0])).min() > 0.09


def test_the_best_target_ignores_prices():
    fitted = Known(np.array([-1.0, -3.0, -2.0]), 0.01 * np.eye(3))
    costs = np.array([[0.1], [0.9], [0.5]])
    chosen = choose_batch(fitted, choices_of(3), costs, np.exp([0.0]), np.array([[0.5]]), 3, target="best")
    assert chosen.tolist()[0] == 1
    assert sorted(chosen.tolist()) == [0, 1, 2]


def test_without_measurements_and_with_three_objectives():
    fitted = Known(np.array([-1.0, 0.0, 1.0]), 0.1 * np.eye(3))
    costs = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 1.0]])
    chosen = choose_batch(fitted, choices_of(3), costs, np.zeros(0), np.zeros((0, 2)), 2)
    assert set(chosen.tolist()) == {0, 1}
    again = choose_batch(fitted, choices_of(3), costs, np.zeros(0), np.zeros((0, 2)), 2)
    assert chosen.tolist() == again.tolist()


def test_never_more_than_the_pool_and_none_from_nothing():
    fitted = Known(np.zeros(2), np.eye(2))
    assert sorted(choose_batch(fitted, choices_of(2), np.zeros((2, 1)), np.zeros(0), np.zeros((0, 1)), 9)) == [0, 1]
    assert not len(choose_batch(fitted, choices_of(0), np.zeros((0, 1)), np.ones(1), np.ones((1, 1)), 3))


def test_the_believer_knows_what_it_conditions_on():
    generator = np.random.default_rng(0)
    root = generator.normal(size=(5, 5))
    covariance = root @ root.T
    found = _believed(covariance, 2)
    keep = [0, 1, 3, 4]
    expected = covariance[np.ix_(keep, keep)] - np.outer(covariance[keep, 2], covariance[2, keep]) / covariance[2, 2]
    assert found[np.ix_(keep, keep)] == pytest.approx(expected)
    assert found[2] == pytest.approx(np.zeros(5), abs=1e-12)


def test_wrong_shapes_and_targets_are_refused():
    fitted = Known(np.zeros(2), np.eye(2))
    with pytest.raises(InvalidInput, match="expected"):
        choose_batch(fitted, choices_of(2), np.zeros(2), np.zeros(0), np.zeros((0, 1)), 1)
    with pytest.raises(InvalidInput, match="hypervolume"):
        choose_batch(fitted, choices_of(2), np.zeros((2, 1)), np.zeros(0), np.zeros((0, 1)), 1, target="worst")
