"""Fitness: partial Spearman at fixed size, against scipy and the bootstrap code; spread, orientation, ties."""

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.evolution import BenchData, FitnessFunction, FixedSizeRanks
from bitfront.search.evolution.extremes import Extremes
from bitfront.search.evolution.ranks import average_ranks, dense_ranks
from bitfront.search.rank_statistics import partial, spearman
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata


def reference(x, y, z):
    """The textbook: residuals of ranks after a linear regression on the ranks of the size, in float64."""
    ranks = [rankdata(each) for each in (x, y, z)]
    design = np.stack([np.ones(len(x)), ranks[2]], axis=1)
    residual = [each - design @ np.linalg.lstsq(design, each, rcond=None)[0] for each in ranks[:2]]
    return np.corrcoef(*residual)[0, 1]


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(2, 9))
def test_it_is_the_correlation_of_rank_residuals_ties_included(bench, seed, levels):
    generator = np.random.default_rng(seed)
    made = bench(points=60)
    noisy = BenchData(
        "n",
        made.choices,
        generator.integers(0, levels, 60).astype(float),
        np.round(generator.normal(size=60), 1),
        made.statistics,
    )
    predicted = generator.integers(0, levels, 60) + 0.5 * noisy.measured
    found = FixedSizeRanks(noisy, 0).of(predicted)[0]
    np.testing.assert_allclose(found, reference(predicted, noisy.measured, noisy.sizes), atol=1e-10)


def test_it_agrees_with_the_statistic_of_the_trust_report(bench):
    made, ones = bench(points=80), np.ones((1, 80))
    for scores in made.rivals.values():
        rho = spearman(scores, made.measured, ones)
        wanted = partial(rho, spearman(scores, made.sizes, ones), spearman(made.measured, made.sizes, ones))
        np.testing.assert_allclose(FixedSizeRanks(made, 4).of(scores)[0], wanted[0], atol=1e-12)


def test_what_the_size_determines_knows_nothing(bench):
    made = bench(points=60)
    for known in (made.sizes, -np.exp(made.sizes / made.sizes.max()), np.zeros(60)):
        np.testing.assert_array_equal(FixedSizeRanks(made, 2).of(known), 0.0)
    by_size = BenchData("s", made.choices, made.sizes, made.sizes, made.statistics)
    np.testing.assert_array_equal(FixedSizeRanks(by_size, 0).of(made.rivals["mse"]), 0.0)


def test_folds_are_disjoint_alike_in_size_and_ranked_apart(bench):
    made = bench(points=61)
    order = np.argsort(made.sizes, kind="stable")
    predicted = made.rivals["mse"]
    found = FixedSizeRanks(made, 3).of(predicted)
    for fold in range(3):
        part = order[fold::3]
        wanted = reference(predicted[part], made.measured[part], made.sizes[part])
        np.testing.assert_allclose(found[1 + fold], wanted, atol=1e-10)
    with pytest.raises(InvalidInput, match="in 20 folds"):
        FixedSizeRanks(made, 20)


def test_sums_of_a_table_are_predictions(bench):
    made = bench(points=50)
    table = np.random.default_rng(3).normal(size=made.statistics.allowed.shape)
    by_hand = [sum(table[site, column] for site, column in enumerate(row)) for row in made.choices]
    np.testing.assert_allclose(made.predict(table), by_hand)
    ranks = FixedSizeRanks(made, 2)
    np.testing.assert_array_equal(ranks.correlations(table), ranks.of(np.array(by_hand)))


def test_the_spread_over_networks_and_folds_is_paid_for(bench):
    correlations = [np.array([0.8, 0.7, 0.9]), np.array([0.4, 0.4, 0.6])]
    found = FitnessFunction([bench("a"), bench("b")], 2, penalty=0.5)(correlations)
    spread = np.sqrt(np.var([0.8, 0.4], ddof=1) + np.mean([np.var([0.7, 0.9], ddof=1), np.var([0.4, 0.6], ddof=1)]))
    assert found.value == pytest.approx(0.6 - 0.5 * spread)
    assert found.orientation == 1
    steady = FitnessFunction([bench("a"), bench("b")], 2, penalty=0.5)([np.full(3, 0.6), np.full(3, 0.6)])
    assert steady.value == pytest.approx(0.6)


def test_the_orientation_is_kept_and_changes_nothing(bench):
    fitness = FitnessFunction([bench()], 2)
    there, back = fitness([np.array([0.8, 0.7, 0.9])]), fitness([np.array([0.8, 0.7, 0.9])], orientation=-1)
    assert (there.orientation, back.orientation) == (1, -1)
    assert (there.value, there.correlations) == (back.value, (0.8,))
    made = bench()
    assert fitness.of([made.rivals["mse"]]).correlations[0] == pytest.approx(
        -fitness.of([-made.rivals["mse"]]).correlations[0], abs=1e-12
    )


def test_extremes_are_mixed_into_every_part(bench):
    made, predicted = bench(points=60), np.random.default_rng(2).normal(size=60)
    plain, mixed, alone = (FixedSizeRanks(made, 2, share).of(predicted) for share in (0.0, 0.25, 1.0))
    np.testing.assert_allclose(mixed, 0.75 * plain + 0.25 * alone, atol=1e-12)
    assert alone[0] == pytest.approx(Extremes(made.sizes, made.measured).standing(predicted))
    with pytest.raises(InvalidInput, match="extremes=2"):
        FixedSizeRanks(made, 2, 2.0)


def test_nearly_equal_predictions_are_tied():
    values = np.array([0.1 + 0.2, 0.3, 0.5, -4.0, 0.0])
    np.testing.assert_array_equal(dense_ranks(values), [2, 2, 3, 0, 1])
    np.testing.assert_array_equal(dense_ranks(np.zeros(3)), [0, 0, 0])


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40))
def test_average_ranks_are_those_of_scipy(values):
    np.testing.assert_allclose(average_ranks(dense_ranks(np.array(values, dtype=float))), rankdata(values) - 1)


def test_a_wrong_penalty_is_refused(bench):
    with pytest.raises(InvalidInput, match="penalty=-1"):
        FitnessFunction([bench()], 2, penalty=-1)
