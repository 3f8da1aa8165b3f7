"""The learned factors against the textbook formulas, and intervals that hold what they promise."""

import numpy as np
import pytest
from bitfront.hw_models.network import PARTS, fit, prior
from scipy import stats

COUNT = len(PARTS)


def drawn_parts(rng, rows):
    """Parts of configurations: some kinds of kernels prevail in each."""
    return 10.0 * rng.dirichlet(np.full(COUNT, 0.5), rows)


def test_the_prior_is_the_plain_sum():
    parts = drawn_parts(np.random.default_rng(0), 5)
    value, deviation = prior().predict(parts)
    np.testing.assert_allclose(value, parts.sum(axis=1))
    assert np.all(deviation > prior().noise * value)
    assert prior().exports == 0


def test_the_posterior_is_that_of_the_normal_equations():
    rng = np.random.default_rng(1)
    parts = drawn_parts(rng, 12)
    measured = parts @ rng.normal(1.0, 0.1, COUNT)
    found = fit(parts, measured)
    x, before = parts / measured[:, None], np.linalg.inv(prior().covariance)
    precision = before + x.T @ x / found.noise**2
    mean = np.linalg.solve(precision, before @ np.ones(COUNT) + x.T @ np.ones(12) / found.noise**2)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-4)
    np.testing.assert_allclose(found.covariance, np.linalg.inv(precision), rtol=1e-3, atol=1e-8)


def test_the_noise_is_a_fixed_point():
    rng = np.random.default_rng(2)
    parts = drawn_parts(rng, 40)
    measured = parts.sum(axis=1) * rng.normal(1.0, 0.08, 40)
    found = fit(parts, measured)
    x = parts / measured[:, None]
    used = np.trace(found.covariance @ x.T @ x) / found.noise**2
    left = np.sum((1 - x @ found.mean) ** 2)
    assert found.freedom == pytest.approx(40 - used + 4, rel=1e-3)
    assert found.noise == pytest.approx(np.sqrt((left + 4 * prior().noise ** 2) / found.freedom), rel=1e-3)
    assert found.noise == pytest.approx(0.08, rel=0.35)


def test_many_exports_give_the_true_factors():
    rng = np.random.default_rng(3)
    truth = rng.uniform(0.8, 1.2, COUNT)
    parts = drawn_parts(rng, 400)
    found = fit(parts, parts @ truth * rng.normal(1.0, 0.01, 400))
    np.testing.assert_allclose(found.mean, truth, atol=0.03)


def test_a_machine_that_is_slower_throughout_is_learned_from_one_export():
    parts = np.array([[3.0, 4.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]])
    found = fit(parts, 1.4 * parts.sum(axis=1))
    assert found.mean[4] > 1.0  # integer kernels, of which the export has none
    assert 1.1 < float(found.predict(parts)[0][0] / parts.sum()) < 1.4


def test_intervals_of_models_from_the_prior_cover():
    rng = np.random.default_rng(4)
    inside = []
    for _ in range(300):
        truth = rng.multivariate_normal(np.ones(COUNT), prior().covariance)
        parts = drawn_parts(rng, 12)
        measured = np.maximum(parts @ truth, 0.1) * rng.normal(1.0, prior().noise, 12)
        found = fit(parts[:8], measured[:8])
        value, deviation = found.predict(parts[8:])
        quantile = stats.t.ppf(0.975, found.freedom)
        inside += list(np.abs(value - measured[8:]) <= quantile * deviation)
    assert 0.92 <= np.mean(inside) <= 0.99
