"""Interactions: planted ones are found, and the allocator sees what the predictions say."""

from dataclasses import replace

import numpy as np
import pytest
from bitfront.search.allocation import allocate
from bitfront.search.surrogate.cross_fit import cross_fit
from bitfront.search.surrogate.pairwise import MOST, chosen_pairs, pair_tables
from bitfront.search.surrogate.prior import Prior
from bitfront.search.surrogate.table import fit_table

PLANTED = [(1, 5), (2, 7)]


def interacting(world, genes):
    terms = world.truth[np.arange(len(world.groups)), genes]
    extra = sum(1.5 * np.sqrt(terms[:, a] * terms[:, b]) for a, b in PLANTED)
    return world.level + world.slope * np.log(terms.sum(axis=1) + extra)


@pytest.fixture(scope="module")
def table(world):
    genes = world.genes(150, 0)
    return fit_table(Prior.of(world.problem), genes, interacting(world, genes))


@pytest.fixture(scope="module")
def paired(world, table):
    pairs = chosen_pairs(table)
    return fit_table(table.model.prior, table.features.genes, table.latent, pairs=pairs)


def test_the_planted_pairs_are_among_the_first(table):
    chosen = [tuple(pair) for pair in chosen_pairs(table).tolist()]
    assert set(PLANTED) <= set(chosen[:6])
    assert all(a < b for a, b in chosen)
    assert len(chosen) == len(set(chosen)) <= MOST
    assert len(chosen_pairs(table, 3)) == 3


def test_their_correlations_are_positive_and_the_fit_predicts_better(world, table, paired):
    found = dict(zip(map(tuple, paired.model.pairs.tolist()), paired.model.correlations.tolist(), strict=True))
    assert all(found[pair] > 0.3 for pair in PLANTED)
    other = world.genes(500, 1)[300:]
    errors = [np.abs(each.model.predict(other) - interacting(world, other)).mean() for each in (table, paired)]
    assert errors[1] < 0.7 * errors[0]
    crossed = [cross_fit(each) for each in (table, paired)]
    assert crossed[1].density(crossed[0].told) > crossed[0].density(crossed[0].told)


def test_cross_fit_predicts_every_point_without_its_fold(table):
    crossed = cross_fit(table)
    moved = table.latent.copy()
    moved[8] += 1.0
    again = cross_fit(replace(table, latent=moved))
    same_fold = np.flatnonzero(crossed.fold == crossed.fold[8])
    assert again.predicted[same_fold] == pytest.approx(crossed.predicted[same_fold], abs=1e-9)
    assert again.residuals[8] == pytest.approx(crossed.residuals[8] + 1.0)
    assert np.abs(crossed.residuals).mean() < 1.5 * np.abs(table.gaussian.left_out()[0]).mean() + 0.02
    assert crossed.without(table.features.genes[:3]).shape == (3, 150)


def test_table_and_pairs_add_up_to_the_model(world, paired):
    genes = world.genes(20, 3)
    choices = world.groups.expand(genes)
    log_table = paired.model.log_table()
    by_site = paired.model.prior.by_site(np.exp(log_table))
    total = by_site[np.arange(choices.shape[1]), choices].sum(axis=1)
    for (one, other), values in pair_tables(paired.model, log_table).items():
        total = total + values[choices[:, one], choices[:, other]]
    assert total == pytest.approx(np.exp(paired.model.log_sum(genes)))


def test_the_allocator_minimises_what_is_predicted(world, paired):
    log_table = paired.model.log_table()
    bits = world.problem.cost("avg_bits")
    found = allocate(
        paired.model.prior.by_site(np.exp(log_table)),
        {"bits": bits},
        {"bits": 3.0},
        ties=world.problem.space.tie_indices,
        pair_loss=pair_tables(paired.model, log_table),
    )
    best = np.exp(paired.model.log_sum(world.groups.contract(np.asarray(found.choice))[None]))[0]
    assert found.objective == pytest.approx(best)
    others = world.genes(2000, 4)
    fits = world.problem.totals(world.groups.expand(others), "avg_bits") <= 3.0
    assert fits.sum() > 50
    assert best <= np.exp(paired.model.log_sum(others[fits])).min() + 1e-12
