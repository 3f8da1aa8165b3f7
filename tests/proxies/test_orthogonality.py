"""ORM and OMPQ's coefficients against their definitions."""

import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, NonFiniteOutput, UnsupportedModel
from bitfront.evaluators import calibrate
from bitfront.formats import Format
from bitfront.proxies.orthogonality import Orthogonality, importances, joined, orm
from torch import nn

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images = CASES["images"]


def naive_orm(first, second):
    """Linear centred kernel alignment by cross-covariances, not by Gram matrices."""
    first, second = first - first.mean(0), second - second.mean(0)
    norms = np.linalg.norm(first.T @ first) * np.linalg.norm(second.T @ second)
    return np.linalg.norm(second.T @ first) ** 2 / norms


def test_orm_from_gram_matrices_is_that_of_the_features():
    generator = np.random.default_rng(0)
    features = [generator.normal(size=(6, width)) for width in (3, 10, 4)]
    features.append(features[0] @ np.linalg.qr(generator.normal(size=(3, 3)))[0])  # a rotation overlaps fully
    centred = [each - each.mean(0) for each in features]
    found = orm(np.stack([each @ each.T for each in centred]))
    for i, first in enumerate(features):
        for j, second in enumerate(features):
            assert found[i, j] == pytest.approx(naive_orm(first, second))
    assert found[0, 3] == pytest.approx(1)


def test_orthogonal_and_constant_features_do_not_overlap():
    one, two = np.array([1.0, -1, 0, 0]), np.array([0.0, 0, 1, -1])
    found = orm(np.stack([np.outer(one, one), np.outer(two, two), np.zeros((4, 4))]))
    np.testing.assert_array_equal(found, np.eye(3))


def test_coefficients_are_means_over_later_layers():
    overlap = np.array([[1, 0.5, 0.1], [0.5, 1, 0.9], [0.1, 0.9, 1]])
    gamma = [0.6, 1.4, 1.0]
    theta = np.exp(-2 * np.array(gamma))
    wanted = np.array([theta.mean(), theta[1:].mean(), theta[2]])
    found = importances(overlap, beta=2)
    np.testing.assert_allclose(found / found.sum(), wanted / wanted.sum())
    alone = np.eye(4)
    alone[:3, :3] = overlap
    constant = importances(alone, beta=2)  # counts as the mean: gamma = 1
    assert constant[3] / constant[2] == pytest.approx(2 * np.exp(-2) / (np.exp(-2) + np.exp(-2)))
    many = importances(np.ones((2000, 2000)), beta=1)  # exp(-1999) is no number
    np.testing.assert_allclose(many, 1)


def test_the_table_is_the_linear_program_of_ompq():
    task, space, calibration = images("kl", ("w2", "w4", "fp32"))
    found = Orthogonality(beta=3).score(task, space, calibration, seed=0, advance=None)
    value = task.calibration[0].inputs[0]
    with torch.no_grad():
        conv = task.model.conv(value)
        fc = task.model(value)
    overlap = naive_orm(conv.flatten(1).double().numpy(), fc.double().numpy())
    theta = importances(np.array([[1, overlap], [overlap, 1]]), 3)
    for column, name in enumerate(space.formats):
        factor = 1 - Format.parse(name).weight_bits / 32
        np.testing.assert_allclose(found.values[:, column], theta / theta.sum() * factor, rtol=1e-5)


def test_samples_are_joined_over_batches_of_equal_shape():
    task, _, _ = images("kl", samples=2)
    task.calibration = [*task.calibration, *task.validation, task.holdout[0]]
    assert len(joined(task, 5)) == 5
    assert torch.equal(joined(task, 3).inputs[0][:2], task.calibration[0].inputs[0])
    one, space, calibration = images("kl", samples=1)
    with pytest.raises(InvalidInput, match="samples of equal shape, and got 1"):
        Orthogonality().score(one, space, calibration, seed=0, advance=None)


def test_outputs_that_cannot_be_told_apart_by_sample_are_refused():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.second(self.first(x).transpose(0, 1)[:7]).transpose(0, 1)

    torch.manual_seed(0)
    model = Turned()
    data = [torch.randn(5, 9, 4) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w4"])
    calibration = calibrate(task, space)
    with pytest.raises(UnsupportedModel, match="second returns \\(7, 5, 4\\) for 5 samples"):
        Orthogonality().score(task, space, calibration, seed=0, advance=None)
    with torch.no_grad():
        model.first.bias[0] = torch.nan
    with pytest.raises((NonFiniteOutput, UnsupportedModel)):
        Orthogonality().score(task, space, calibration, seed=0, advance=None)
