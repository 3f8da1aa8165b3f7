"""The gradients at the outputs have the curvature of the objective as their second moment."""

import bitfront as bf
import pytest
import torch
from bitfront.errors import InvalidInput, NonFiniteOutput
from bitfront.evaluators import objective
from bitfront.proxies.likelihood import check_softmax, labels_of, score
from torch import nn
from torch.nn import functional


def make(quality, loss=None, labelled=True, shape=(1, 3, 4)):
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(shape, generator=generator)
    targets = torch.tensor([[1, -100, 3]])[..., : shape[1]] if labelled else None
    data = [(torch.randn(1, 2), targets)] * 3
    return bf.Task(nn.Linear(2, 4), calibration=data, validation=data[1:], quality=quality, loss=loss), output, targets


@pytest.mark.parametrize("source", ["model", "signs"])
@pytest.mark.parametrize("quality", ["kl", "loss", "relative_error", "cosine"])
def test_second_moment_is_the_hessian_of_the_objective_at_the_outputs(quality, source):
    task, output, targets = make(quality)
    hessian = torch.func.hessian(lambda y: objective(task, y, output.double(), targets))(output.double())
    wanted = hessian.reshape(output.numel(), -1)
    generator = torch.Generator().manual_seed(1)
    draws = []
    for _ in range(3000):
        found = score(task, output, targets, source, generator)
        draws.append(found.seed.double().flatten() * found.root)
    outer = torch.stack([each[:, None] * each[None] for each in draws])
    error = outer.std(0) / len(draws) ** 0.5
    assert torch.all((outer.mean(0) - wanted).abs() <= 5 * error + 1e-6 * wanted.abs().max())
    assert error.diagonal().max() < 0.1 * wanted.diagonal().max()  # the check above has teeth


def test_data_gives_the_gradient_of_the_loss_times_the_root_of_the_positions():
    task, output, targets = make("loss")
    leaf = output.double().requires_grad_(True)
    (gradient,) = torch.autograd.grad(functional.cross_entropy(leaf.flatten(0, 1), targets.flatten()), leaf)
    found = score(task, output, targets, "data", torch.Generator())
    assert found.positions == 2  # one of three does not count
    torch.testing.assert_close(found.seed.double() * found.scale, gradient, rtol=1e-5, atol=1e-8)
    assert found.root == pytest.approx(found.scale * 2**0.5)


def test_ignored_positions_get_no_gradient_from_any_source():
    task, output, targets = make("loss")
    for source in ("data", "model", "signs"):
        seed = score(task, output, targets, source, torch.Generator().manual_seed(0)).seed
        assert torch.all(seed[0, 1] == 0)
        assert seed[0, 0].abs().max() > 0.05


def test_distance_to_the_own_outputs_counts_every_position():
    task, output, targets = make("kl")
    found = score(task, output, targets, "signs", torch.Generator().manual_seed(0))
    assert found.positions == 3
    assert torch.all(found.seed.abs().amax(-1) > 0)


def test_half_precision_seeds_neither_vanish_nor_overflow():
    task, output, targets = make(
        "loss", loss=lambda y, t: 1e-7 * functional.cross_entropy(y.flatten(0, 1), t.flatten())
    )
    for source in ("data", "model", "signs"):
        found = score(task, output.half(), targets, source, torch.Generator().manual_seed(0))
        assert found.seed.dtype == torch.float16
        assert 0.01 < float(found.seed.abs().max()) <= 2


def test_drawn_gradients_depend_on_the_generator_alone():
    task, output, targets = make("kl")
    one, two, other = (
        score(task, output, targets, "model", torch.Generator().manual_seed(seed)).seed for seed in (3, 3, 5)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_losses_that_are_no_cross_entropy_of_the_outputs_are_refused():
    def plain(y, t):
        return functional.cross_entropy(y.flatten(0, 1), t.flatten())

    def smoothed(y, t):
        return functional.cross_entropy(y.flatten(0, 1), t.flatten(), label_smoothing=0.2)

    task, output, targets = make("loss", loss=plain)
    check_softmax(task, output, targets, "sampled_fisher")
    task, output, targets = make("loss", loss=smoothed)
    with pytest.raises(InvalidInput, match="sampled_fisher takes the outputs as logits; choose empirical_fisher"):
        check_softmax(task, output, targets, "sampled_fisher")
    task, output, targets = make("kl", loss=smoothed)
    check_softmax(task, output, targets, "sampled_fisher")  # the objective is the divergence, not the loss


def test_regression_targets_are_no_class_indices():
    data = [(torch.randn(1, 2), torch.randn(1, 4))] * 3
    task = bf.Task(nn.Linear(2, 4), calibration=data, validation=data[1:], quality="loss", loss=functional.mse_loss)
    with pytest.raises(InvalidInput, match="not class indices"):
        check_softmax(task, torch.randn(1, 4), data[0][1], "gauss_newton_diagonal")


def test_where_labels_come_from():
    labelled, unlabelled = make("loss")[0], make("kl", labelled=False)[0]
    divergence = make("kl")[0]
    assert [labels_of(each, "auto", "fit") for each in (labelled, unlabelled, divergence)] == ["data", "signs", "signs"]
    assert labels_of(divergence, "data", "fit") == "data"
    assert labels_of(labelled, "model", "fit") == "signs"
    with pytest.raises(InvalidInput, match="needs calibration batches"):
        labels_of(unlabelled, "data", "fit")
    with pytest.raises(InvalidInput, match="must be 'auto', 'data' or 'model', got 'soft'"):
        labels_of(labelled, "soft", "fit")


def test_outputs_that_are_not_finite_are_an_error():
    task, output, targets = make("kl")
    output[0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteOutput):
        score(task, output, targets, "signs", torch.Generator())
