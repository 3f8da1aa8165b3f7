"""Estimators of a trace from products, against naive ones and closed forms."""

import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.proxies.hutchinson import hutchinson, random_signs, standard_error
from bitfront.proxies.hutchpp import hutchpp
from bitfront.proxies.xtrace import xtrace

ALL = [hutchinson, hutchpp, xtrace]
LIKE = torch.zeros(0, dtype=torch.float64)


def symmetric(dimension, decay, seed=0, signs=False):
    """A matrix with eigenvalues that fall as j ** -decay, of both signs if wanted."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)).Q
    values = torch.arange(1, dimension + 1, dtype=torch.float64) ** -decay
    if signs:
        values[1::3] *= -0.5
    return (basis * values) @ basis.T


def repeated(estimator, matrix, products, runs):
    generator = torch.Generator().manual_seed(1)
    found = [estimator(lambda v: matrix @ v, len(matrix), products, generator, LIKE) for _ in range(runs)]
    return np.array([each.value for each in found]), np.array([each.error for each in found])


@pytest.mark.parametrize("estimator", ALL)
@pytest.mark.parametrize("signs", [False, True])
def test_unbiased_and_the_error_is_that_of_the_estimate(estimator, signs):
    matrix = symmetric(30, 0.7, signs=signs)
    values, errors = repeated(estimator, matrix, 12, 600)
    spread = values.std()
    assert abs(values.mean() - float(matrix.trace())) < 4 * spread / np.sqrt(len(values))
    least = 0.5 if estimator is xtrace else 0.8  # leave-one-out estimates are correlated
    assert least * spread < np.sqrt((errors**2).mean()) < 1.25 * spread


def test_hutchinson_has_the_variance_of_its_formula():
    matrix = symmetric(20, 0.5)
    values, _ = repeated(hutchinson, matrix, 2, 4000)
    wanted = 2 * float(matrix.square().sum() - matrix.diagonal().square().sum()) / 2
    assert values.var() == pytest.approx(wanted, rel=0.12)


@pytest.mark.parametrize("estimator", [hutchpp, xtrace])
def test_a_falling_spectrum_is_estimated_better_than_by_hutchinson(estimator):
    matrix = symmetric(60, 2.0)
    plain, _ = repeated(hutchinson, matrix, 18, 200)
    better, _ = repeated(estimator, matrix, 18, 200)
    assert better.std() < 0.2 * plain.std()


@pytest.mark.parametrize("estimator", ALL)
def test_products_stay_within_the_budget_and_are_counted(estimator):
    matrix = symmetric(40, 1.0)
    asked = []

    def product(vectors):
        asked.append(vectors.shape[1])
        return matrix @ vectors

    for budget in (6, 7, 13):
        asked.clear()
        found = estimator(product, 40, budget, torch.Generator().manual_seed(0), LIKE)
        assert sum(asked) == found.products <= budget


@pytest.mark.parametrize("estimator", [hutchpp, xtrace])
def test_a_sketch_of_the_whole_space_is_exact(estimator):
    matrix = symmetric(5, 0.3, signs=True)
    found = estimator(lambda v: matrix @ v, 5, 60, torch.Generator().manual_seed(0), LIKE)
    assert found.value == pytest.approx(float(matrix.trace()), rel=1e-12)
    assert found.error == 0
    assert found.products <= 10


@pytest.mark.parametrize("estimator", [hutchpp, xtrace])
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_low_rank_is_exact_too(estimator, rank):
    factor = torch.randn(25, rank, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    matrix = factor @ factor.T
    found = estimator(lambda v: matrix @ v, 25, 15, torch.Generator().manual_seed(0), LIKE)
    assert found.value == pytest.approx(float(matrix.trace()), rel=1e-9, abs=1e-12)
    assert found.error == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("estimator", "least"), [(hutchinson, 2), (hutchpp, 6), (xtrace, 4)])
def test_too_few_products_are_refused(estimator, least):
    matrix = symmetric(8, 1.0)
    with pytest.raises(InvalidInput, match=f"at least {least}"):
        estimator(lambda v: matrix @ v, 8, least - 1, torch.Generator())


def test_signs_follow_the_generator_and_the_type():
    first = random_signs((3, 4), torch.Generator().manual_seed(5), torch.zeros(1, dtype=torch.bfloat16))
    again = random_signs((3, 4), torch.Generator().manual_seed(5), torch.zeros(1, dtype=torch.bfloat16))
    assert first.dtype == torch.bfloat16
    assert torch.equal(first, again)
    assert set(first.flatten().tolist()) == {-1.0, 1.0}
    assert standard_error(torch.tensor([3.0])) == np.inf
