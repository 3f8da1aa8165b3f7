"""Parts of a latency against naive loops, and what the additive values mean."""

import numpy as np
import pytest
from bitfront.hw_models.network import KINDS, PARTS, Terms
from bitfront.hw_models.network.terms import INTEGER, ROUNDED
from hypothesis import given, settings
from hypothesis import strategies as st


def random_terms(seed, sites=5, formats=4, edges=6, readers=4):
    rng = np.random.default_rng(seed)
    pairs = [(one, other) for one in range(sites) for other in range(one + 1, sites)]
    chosen = [pairs[index] for index in rng.choice(len(pairs), edges, replace=False)]
    direct = [pairs[index] for index in rng.choice(len(pairs), readers, replace=False)]
    return Terms(
        constant=rng.random(len(PARTS)),
        unary=rng.random((len(PARTS), sites, formats)),
        kinds=rng.integers(0, len(KINDS), (sites, formats)),
        edges=np.array(chosen),
        pair=rng.normal(size=(len(PARTS), edges, len(KINDS), len(KINDS))),
        readers=np.array(direct),
        leaks=rng.random(sites) < 0.3,
        unfused=rng.random((len(PARTS), sites)),
    )


def naive(terms, choice):
    """The sum of the docstring, term by term."""
    total = terms.constant.copy()
    kinds = [terms.kinds[site, format_] for site, format_ in enumerate(choice)]
    for site, format_ in enumerate(choice):
        total += terms.unary[:, site, format_]
        read_as_floats = any(kinds[reader] < ROUNDED for source, reader in terms.readers if source == site)
        if kinds[site] == INTEGER and (terms.leaks[site] or read_as_floats):
            total += terms.unfused[:, site]
    for number, (source, reader) in enumerate(terms.edges):
        total += terms.pair[:, number, kinds[source], kinds[reader]]
    return total


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_parts_are_those_of_the_formula(seed):
    terms = random_terms(seed)
    choices = np.random.default_rng(seed).integers(0, 4, (7, 5))
    np.testing.assert_allclose(terms.of(choices), [naive(terms, choice) for choice in choices], rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), kind=st.integers(0, len(KINDS) - 1))
def test_additive_values_are_exact_where_all_sites_run_one_kind(seed, kind):
    terms = random_terms(seed)
    kinds = terms.kinds.copy()
    kinds[:, 0] = kind
    terms = Terms(**{**vars(terms), "kinds": kinds})
    theta = np.random.default_rng(seed).random(len(PARTS))
    total = theta @ terms.constant + terms.additive(theta)[:, 0].sum()
    assert total == pytest.approx(float(theta @ terms.of(np.zeros((1, 5), np.int64))[0]))


def test_without_edges():
    terms = random_terms(0, edges=0, readers=0)
    terms = Terms(**{**vars(terms), "edges": np.zeros((0, 2), np.int64), "readers": np.zeros((0, 2), np.int64)})
    choice = np.array([0, 1, 2, 3, 0])
    np.testing.assert_allclose(terms.of(choice[None])[0], naive(terms, choice))
