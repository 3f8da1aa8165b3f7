"""Which sites are undecided, by enumeration; the multipliers; strata; and where probes are spent."""

import numpy as np
import pytest
from bitfront.proxies.stopping import multipliers, relative_errors, undecided
from bitfront.proxies.stratified import Stratified
from hypothesis import given, settings
from hypothesis import strategies as st

BITS = np.array([2.0, 4.0, 8.0])


def table(traces, elements):
    """Effects and bits of sites whose squared error falls as 4 ** -bits."""
    elements = np.asarray(elements, dtype=float)
    effects = np.broadcast_to(4.0**-BITS, (len(elements), 3))[None] * np.ones((1, len(elements), 1))
    return np.asarray(traces, dtype=float)[None], effects, elements[:, None] * BITS


def test_a_certain_site_is_decided_and_a_vague_one_is_not():
    traces, effects, bits = table([5.0, 1.0, 40.0], [100, 100, 100])
    errors = np.array([[0.0, 0.5, 1e-9]])
    assert undecided(traces, errors, effects, bits, 16, 2.0).tolist() == [False, True, False]


def test_an_error_that_moves_no_decision_does_not_matter():
    """A site so flat that it takes the least bits at every budget."""
    traces, effects, bits = table([1e-9, 1.0, 1.0], [10, 100, 50])
    errors = np.array([[1e-10, 0.0, 0.0]])
    grid = multipliers((traces[:, :, None] * effects).sum(0), bits, 3)
    choice = ((traces[:, :, None] * effects).sum(0)[0] + grid[:, None] * bits[0]).argmin(1)
    assert set(choice.tolist()) == {0}
    assert not undecided(traces, errors, effects, bits, 3, 2.0)[0]
    assert relative_errors(traces, errors)[0, 0] == pytest.approx(0.1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 4.0), st.integers(1, 20))
def test_equals_the_definition_site_by_site(seed, z, budgets):
    rng = np.random.default_rng(seed)
    sites, formats = 5, 4
    traces = rng.normal(1.0, 1.0, (2, sites))
    errors = rng.exponential(0.1, (2, sites))
    effects = rng.exponential(1.0, (2, sites, formats)) * 4.0 ** -np.arange(formats)
    bits = rng.integers(1, 50, sites)[:, None] * np.array([2.0, 3.0, 4.0, 4.0])
    effects[:, 0, 1] = np.nan
    found = undecided(traces, errors, effects, bits, budgets, z)
    losses = (traces[:, :, None] * effects).sum(0)
    wanted = np.zeros(sites, dtype=bool)
    for multiplier in multipliers(losses, bits, budgets):
        for site in range(sites):
            offered = [f for f in range(formats) if not np.isnan(losses[site, f])]
            cost = {f: losses[site, f] + multiplier * bits[site, f] for f in offered}
            best = min(offered, key=cost.__getitem__)
            for other in offered:
                variance = sum(
                    (errors[part, site] * (effects[part, site, other] - effects[part, site, best])) ** 2
                    for part in range(2)
                )
                wanted[site] |= cost[other] - cost[best] < z * variance**0.5
    assert found.tolist() == wanted.tolist()


def test_multipliers_spread_over_the_budgets():
    rng = np.random.default_rng(0)
    traces, effects, bits = table(rng.lognormal(0, 2, 60), rng.integers(10, 1000, 60))
    losses = (traces[:, :, None] * effects).sum(0)
    grid = multipliers(losses, bits, 8)
    assert np.all(np.diff(grid) > 0)
    chosen = [bits[np.arange(60), (losses + each * bits).argmin(1)].sum() for each in grid]
    wanted = np.linspace(bits.min(1).sum(), bits.max(1).sum(), 10)[1:-1]
    assert np.abs(np.sort(chosen) - wanted).max() < 0.1 * np.ptp(bits.sum(0))


def test_no_choice_means_nothing_to_decide():
    assert multipliers(np.ones((3, 1)), np.ones((3, 1)), 5).size == 0
    traces, effects, bits = np.ones((1, 3)), np.ones((1, 3, 1)), np.ones((3, 1))
    assert not undecided(traces, traces, effects, bits, 5, 2.0).any()


def test_relative_errors_at_the_edges():
    found = relative_errors(np.array([0.0, 0.0, -2.0, 1.0]), np.array([0.0, 1.0, 1.0, np.inf]))
    assert found.tolist() == [0.0, np.inf, 0.5, np.inf]


def test_stratified_means_and_errors_equal_their_definition():
    rng = np.random.default_rng(1)
    draws = rng.normal(3.0, 1.0, (6, 4, 2)) + np.arange(4)[:, None] * 10
    strata = Stratified(4, (2,))
    for index, each in enumerate(draws):
        strata.add(each, np.array([True, index < 3]))
    assert strata.draws.tolist() == [6, 3]
    assert strata.mean[0] == pytest.approx(draws[:, :, 0].mean())
    assert strata.mean[1] == pytest.approx(draws[:3, :, 1].mean())
    assert strata.error[0] == pytest.approx(np.sqrt((draws[:, :, 0].var(0, ddof=1) / 6).sum()) / 4)
    assert strata.error[1] == pytest.approx(np.sqrt((draws[:3, :, 1].var(0, ddof=1) / 3).sum()) / 4)


def test_a_population_that_is_exhausted_leaves_no_error():
    strata = Stratified(2, (1,))
    strata.population[:] = 3
    assert strata.error[0] == 0  # nothing drawn, nothing claimed
    for count, value in enumerate((1.0, 5.0, 3.0), start=1):
        strata.add(np.array([[value], [2 * value]]), np.array([True]))
        assert np.isinf(strata.error[0]) == (count == 1)
    assert strata.error[0] == 0
    assert strata.mean[0] == pytest.approx(4.5)


def test_the_error_of_draws_without_replacement_is_unbiased():
    rng = np.random.default_rng(2)
    population = rng.exponential(1.0, 6)
    means, variances = [], []
    for _ in range(4000):
        strata = Stratified(1, (1,))
        strata.population[:] = 6
        for value in rng.permutation(population)[:3]:
            strata.add(np.array([[value]]), np.array([True]))
        means.append(strata.mean[0])
        variances.append(strata.error[0] ** 2)
    assert np.mean(variances) == pytest.approx(np.var(means), rel=0.08)
