"""The linear Gaussian model against dense references and real refits."""

import numpy as np
import pytest
from bitfront.search.surrogate.gaussian import Gaussian, log_evidence
from scipy.stats import multivariate_normal
from scipy.stats import t as student


@pytest.fixture
def case():
    generator = np.random.default_rng(3)
    features = generator.normal(size=(12, 7))
    noise = generator.uniform(0.1, 0.6, 12)
    return features, noise, features @ generator.normal(size=7) + generator.normal(size=12) * np.sqrt(noise)


def test_evidence_is_the_density_of_the_data(case):
    features, noise, residual = case
    covariance = features @ features.T
    expected = multivariate_normal(np.zeros(12), covariance + np.diag(noise)).logpdf(residual)
    assert log_evidence(covariance, noise, residual) == pytest.approx(expected)
    assert Gaussian.fit(covariance, noise, residual).evidence == pytest.approx(expected)


def test_left_out_residuals_are_those_of_refits(case):
    features, noise, residual = case
    found = Gaussian.fit(features @ features.T, noise, residual)
    errors, deviations = found.left_out()
    for left in range(12):
        keep = np.arange(12) != left
        seen, matrix = features[keep], features[keep] @ features[keep].T + np.diag(noise[keep])
        weights = np.linalg.solve(matrix, residual[keep])
        assert errors[left] == pytest.approx(residual[left] - features[left] @ seen.T @ weights)
        cross = seen @ features[left]
        variance = features[left] @ features[left] - cross @ np.linalg.solve(matrix, cross) + noise[left]
        assert deviations[left] == pytest.approx(np.sqrt(variance))
    assert found.left_out_density(4.0, np.ones(len(residual), dtype=bool)) == pytest.approx(
        np.mean([student.logpdf(e / d, 4.0) - np.log(d) for e, d in zip(errors, deviations, strict=True)])
    )


def test_posterior_variance_is_that_of_the_weights(case):
    features, noise, residual = case
    found = Gaussian.fit(features @ features.T, noise, residual)
    other = np.random.default_rng(5).normal(size=(4, 7))
    posterior = np.linalg.inv(np.eye(7) + features.T @ np.diag(1 / noise) @ features)
    expected = np.einsum("mp,pq,mq->m", other, posterior, other)
    assert found.variance(other @ features.T, (other**2).sum(axis=1)) == pytest.approx(expected)
