"""Repair, filling and draws against all configurations of small spaces."""

from itertools import product

import numpy as np
from bitfront.search.proposers.draws import flat, tilted
from bitfront.search.proposers.limits import Limits
from bitfront.search.proposers.repair import _solved, filled, repaired
from hypothesis import given, settings
from hypothesis import strategies as st


def random_limits(seed, budgets, groups=4, formats=3):
    """Prices that need not rise with precision, and limits of which some cannot be met."""
    generator = np.random.default_rng(seed)
    rows = generator.uniform(0, 10, size=(budgets, groups, formats))
    allowed = generator.random((groups, formats)) < 0.8
    allowed[np.arange(groups), generator.integers(formats, size=groups)] = True
    rows = np.where(allowed, rows, 0.0)
    every = np.array([genes for genes in product(range(formats), repeat=groups) if allowed[range(groups), genes].all()])
    sums = np.array([[row[np.arange(groups), genes].sum() for row in rows] for genes in every])
    most = np.array([generator.uniform(column.min() * 0.98, column.max()) for column in sums.T])
    scale = np.ptp(sums, axis=0) if len(every) > 1 else np.ones(budgets)
    return Limits(rows, most, np.where(scale > 0, scale, 1.0)), allowed, every, (sums <= most).all(axis=1), generator


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), budgets=st.integers(1, 3))
def test_repair_finds_a_configuration_within_the_limits_whenever_there_is_one(seed, budgets):
    limits, allowed, every, fits, generator = random_limits(seed, budgets)
    wanted = every[generator.integers(len(every))]
    keep = generator.random(len(wanted)) < 0.4
    found = repaired(wanted, limits, allowed, generator, keep)
    assert (found is not None) == fits.any()
    if found is not None:
        assert allowed[np.arange(len(found)), found].all()
        assert (limits.totals(found) <= limits.most).all()
        if (limits.totals(wanted) <= limits.most).all():
            assert np.array_equal(found, wanted)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), budgets=st.integers(1, 2))
def test_the_exact_repair_is_the_nearest_of_all(seed, budgets):
    limits, allowed, every, fits, generator = random_limits(seed, budgets)
    if not fits.any():
        assert _solved(every[0], limits, allowed, generator) is None
        return
    wanted = every[generator.integers(len(every))]
    state = generator.bit_generator.state
    found = _solved(wanted, limits, allowed, generator)
    generator.bit_generator.state = state
    weights = 1 + generator.random(len(wanted))
    rank = np.cumsum(allowed, axis=1)

    def away(genes):
        rows = np.arange(len(genes))
        return float((weights * np.abs(rank[rows, genes] - rank[rows, wanted])).sum())

    assert (limits.totals(found) <= limits.most).all()
    assert np.isclose(away(found), min(away(genes) for genes in every[fits]))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), budgets=st.integers(1, 2))
def test_filling_stays_within_the_limits_and_leaves_nothing_that_one_step_could_use(seed, budgets):
    limits, allowed, every, fits, generator = random_limits(seed, budgets)
    if not fits.any():
        return
    start = every[fits][generator.integers(fits.sum())]
    keep = generator.random(len(start)) < 0.3
    found = filled(start, limits, allowed, generator, keep)
    assert (limits.totals(found) <= limits.most).all()
    assert np.array_equal(found[keep], start[keep])
    assert (found >= start).all()
    for group in np.flatnonzero(~keep):
        finer = [column for column in range(found[group] + 1, allowed.shape[1]) if allowed[group, column]]
        if finer:
            other = found.copy()
            other[group] = finer[0]
            assert (limits.totals(other) > limits.most).any()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_totals_and_moves_are_what_adding_up_says(seed):
    limits, allowed, every, _, generator = random_limits(seed, 2)
    genes = every[generator.integers(len(every))]
    rows = np.arange(len(genes))
    assert np.allclose(limits.totals(genes), [row[rows, genes].sum() for row in limits.rows])
    assert np.allclose(limits.totals(every)[0], limits.totals(every[0]))
    moved = limits.after_moves(genes)
    for group, column in np.argwhere(allowed):
        other = genes.copy()
        other[group] = column
        assert np.allclose(moved[group, column], limits.totals(other))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_a_tilted_draw_is_within_its_target_and_near_it(seed, share):
    generator = np.random.default_rng(seed)
    prices = generator.integers(1, 9, size=(60, 1)) * np.array([2.0, 3.0, 4.0, 8.0])
    allowed = np.ones(prices.shape, dtype=bool)
    low, high = prices.min(axis=1).sum(), prices.max(axis=1).sum()
    most = low + share * (high - low)
    found = prices[np.arange(60), tilted(prices, allowed, most, generator.gumbel(size=prices.shape))].sum()
    assert low <= found <= most + 1e-9
    assert found >= most - 50 - 1e-9 or found == high  # one step of the largest group


def test_flat_draws_give_every_offered_format_the_same_chance():
    generator = np.random.default_rng(0)
    allowed = np.array([[True, True, True], [False, True, True]])
    drawn = np.array([flat(allowed, generator.gumbel(size=allowed.shape)) for _ in range(3000)])
    assert np.allclose(np.bincount(drawn[:, 0], minlength=3) / 3000, 1 / 3, atol=0.03)
    assert np.allclose(np.bincount(drawn[:, 1], minlength=3) / 3000, [0, 0.5, 0.5], atol=0.03)
