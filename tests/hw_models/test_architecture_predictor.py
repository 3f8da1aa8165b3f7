"""The Gaussian process on the log of milliseconds: closed forms, intervals, choice of samples."""

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.hw_models.architecture import ArchitecturePredictor
from bitfront.hw_models.architecture.predictor import _evidence, _products
from scipy.optimize import check_grad


def world(count: int, seed: int, noise: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    """Encodings and milliseconds: a product of powers, something smooth, noise."""
    rng = np.random.default_rng(seed)
    x = rng.random((count, 5)) * [1, 2, 3, 1, 1]
    logs = x @ [0.8, 0.3, -0.2, 0.0, 0.5] + 0.3 * np.sin(3 * x[:, 1]) + noise * rng.standard_normal(count)
    return x, np.exp(logs)


def test_predicts_unseen_architectures_and_its_intervals_hold() -> None:
    x, ms = world(1400, 0)
    model = ArchitecturePredictor.fit(x[:200], ms[:200])
    found = model.predict(x[200:], coverage=0.9)
    error = np.abs(found.ms / ms[200:] - 1).mean()
    assert error < 0.04  # the noise alone is 0.024
    assert model.error == pytest.approx(error, rel=0.3)
    held = ((found.low <= ms[200:]) & (ms[200:] <= found.high)).mean()
    assert 0.855 < held < 0.945  # two standard deviations of a quantile of 200
    assert found.coverage == 0.9


def test_posterior_is_the_textbook_formula() -> None:
    x, ms = world(40, 1)
    model = ArchitecturePredictor.fit(x, ms)
    a, b, length, noise = np.exp(model.parameters)
    z = (x - x.mean(0)) / x.std(0)
    new = (world(7, 2)[0] - x.mean(0)) / x.std(0)

    def kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        square = ((one[:, None] - other[None]) ** 2).sum(2)
        return a**2 * one @ other.T / 5 + b**2 * np.exp(-square / (2 * 5 * length**2))

    inverse = np.linalg.inv(kernel(z, z) + noise**2 * np.eye(40))
    target = np.log(ms) - np.log(ms).mean()
    mean = np.log(ms).mean() + kernel(new, z) @ inverse @ target
    found = model.predict(world(7, 2)[0])
    np.testing.assert_allclose(np.log(found.ms), mean, rtol=1e-6, atol=1e-8)
    # leaving one out, by really leaving it out
    for left in (0, 17):
        rest = np.arange(40) != left
        part = np.linalg.inv(kernel(z[rest], z[rest]) + noise**2 * np.eye(39))
        cross = kernel(z[left : left + 1], z[rest])
        guess = cross @ part @ target[rest]
        spread = np.sqrt(kernel(z[left : left + 1], z[left : left + 1]) - cross @ part @ cross.T + noise**2)
        expected = abs(float(target[left] - guess[0])) / float(spread[0, 0])
        assert np.abs(model.residuals - expected).min() < 1e-6


def test_gradient_of_the_evidence() -> None:
    x, ms = world(25, 3)
    dot, square = _products(x, x)
    target = np.log(ms)
    for point in ([0.0, -1.0, 0.0, -2.0], [-0.5, 0.3, 0.4, -1.0]):
        value = np.array(point)
        slope = np.linalg.norm(_evidence(value, dot, square, target)[1])
        wrong = check_grad(
            lambda p: _evidence(p, dot, square, target)[0], lambda p: _evidence(p, dot, square, target)[1], value
        )
        assert wrong < 1e-4 * slope


def test_next_samples_are_the_greedy_most_uncertain() -> None:
    x, ms = world(60, 4)
    model = ArchitecturePredictor.fit(x[:30], ms[:30])
    chosen = model.next_samples(x[30:], 5)
    assert len(set(chosen.tolist())) == 5
    a, b, length, noise = np.exp(model.parameters)
    z = (x - model.shift) / model.scale

    def kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        square = ((one[:, None] - other[None]) ** 2).sum(2)
        return a**2 * one @ other.T / 5 + b**2 * np.exp(-square / (2 * 5 * length**2))

    seen, rest = list(range(30)), z[30:]
    for pick in chosen:
        inverse = np.linalg.inv(kernel(z[seen], z[seen]) + noise**2 * np.eye(len(seen)))
        cross = kernel(rest, z[seen])
        spare = np.diag(kernel(rest, rest)) - np.einsum("ij,jk,ik->i", cross, inverse, cross)
        spare[[each - 30 for each in seen if each >= 30]] = -np.inf
        assert spare[pick] == pytest.approx(spare.max(), rel=1e-6)
        seen.append(30 + int(pick))


@pytest.mark.parametrize(
    ("x", "ms", "message"),
    [
        (np.ones((3, 2)), np.ones(3), "3 measurements; give 4 to"),
        (np.ones((5, 2)), np.ones(4), r"encodings \(5, 2\) and times \(4,\)"),
        (np.ones((5, 2)), np.zeros(5), "times positive"),
        (np.full((5, 2), np.nan), np.ones(5), "encodings must be finite"),
    ],
)
def test_wrong_measurements_are_refused(x: np.ndarray, ms: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        ArchitecturePredictor.fit(x, ms)


def test_constant_entries_do_no_harm_and_too_many_samples_are_refused() -> None:
    x, ms = world(50, 5)
    with_constant = np.column_stack([x, np.full(50, 7.0)])
    model = ArchitecturePredictor.fit(with_constant, ms)
    assert np.isfinite(model.predict(with_constant).high).all()
    with pytest.raises(InvalidInput, match="count=51 of 50"):
        model.next_samples(with_constant, 51)
