"""Statistics of batch normalization against the moments of all data, and against torch's own running average."""

import copy

import pytest
import torch
from bitfront.errors import NonFiniteOutput
from bitfront.evaluators.batch_norm import batch_norm_statistics, taken_on
from bitfront.task import Batch
from torch import nn


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3, affine=False)
    )
    for norm in (model[1], model[4]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return model.eval()


def batches(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [Batch.of(3 * torch.randn(size, 2, 8, 8, generator=generator) + 1) for size in sizes]


def content(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_first_layer_gets_the_moments_of_all_samples_whatever_the_batches():
    model, data = network(), batches(5, 2, 9)
    found = batch_norm_statistics(model, data)
    everything = model[0].double()(torch.cat([batch.inputs[0] for batch in data]).double())
    variance, mean = torch.var_mean(everything, (0, 2, 3))
    torch.testing.assert_close(found["1"][0].double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["1"][1].double(), variance, rtol=1e-5, atol=1e-6)


def test_one_batch_is_what_torch_estimates_in_training():
    model, data = network(), batches(6)
    reference = copy.deepcopy(model)
    for norm in (reference[1], reference[4]):
        norm.momentum = None
        norm.reset_running_stats()
    reference.train()
    with torch.no_grad():
        data[0](reference)
    found = batch_norm_statistics(model, data)
    assert list(found) == ["1", "4"]
    for path, (mean, variance) in found.items():
        torch.testing.assert_close(mean, reference[int(path)].running_mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(variance, reference[int(path)].running_var, rtol=1e-5, atol=1e-6)


def test_the_model_is_left_as_it_was_and_takes_statistics_on_by_reference():
    model, data = network(), batches(4, 4)
    before, pointers = content(model), [buffer.data_ptr() for buffer in model.buffers()]
    found = batch_norm_statistics(model, data)
    with taken_on(model, found) as other:
        assert other is model
        assert model[1].running_mean is found["1"][0]
        assert model[4].running_var is found["4"][1]
        with torch.no_grad():
            output = data[0](model)
    assert [buffer.data_ptr() for buffer in model.buffers()] == pointers
    after = content(model)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not torch.allclose(output, data[0](model))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_own_statistics_come_back_after_an_error():
    model = network()
    before = content(model)
    with pytest.raises(RuntimeError, match="in the block"), taken_on(model, batch_norm_statistics(model, batches(3))):
        raise RuntimeError("in the block")
    data = [Batch.of(torch.full((2, 2, 8, 8), float("inf")))]
    with pytest.raises(NonFiniteOutput, match="input of 1"):
        batch_norm_statistics(model, data)
    assert all(torch.equal(tensor, before[name]) for name, tensor in content(model).items())


def test_a_shift_and_a_stretch_of_the_weights_are_taken_back():
    model, data = network(), batches(8, 8)
    with taken_on(model, batch_norm_statistics(model, data)), torch.no_grad():
        wanted = data[0](model)
    with torch.no_grad():  # what rounding does to the scale of a channel, exaggerated
        model[0].weight.mul_(torch.tensor([0.5, 2.0, 1.5, 3.0])[:, None, None, None])
        model[0].bias.mul_(torch.tensor([0.5, 2.0, 1.5, 3.0])).add_(1)
    with taken_on(model, batch_norm_statistics(model, data)), torch.no_grad():
        torch.testing.assert_close(data[0](model), wanted, rtol=1e-3, atol=1e-4)


def test_relative_to_the_float_model_nothing_moves_where_nothing_changed():
    model, data = network(), batches(4, 6)
    reference = batch_norm_statistics(model, data)
    for path, (mean, variance) in batch_norm_statistics(model, data, reference).items():
        torch.testing.assert_close(mean, model[int(path)].running_mean)
        torch.testing.assert_close(variance, model[int(path)].running_var)


def test_relative_to_the_float_model_a_shift_and_a_stretch_move_the_own_statistics():
    model, data = network(), batches(8, 8)
    reference = batch_norm_statistics(model, data)
    (mean, variance), factor, shift = (
        reference["1"],
        torch.tensor([0.5, 2.0, 1.5, 3.0]),
        torch.tensor([1.0, -2, 0.5, 0]),
    )
    with torch.no_grad():
        model[0].weight.mul_(factor[:, None, None, None])
        model[0].bias.mul_(factor).add_(shift)
    moved = batch_norm_statistics(model, data, reference)
    own_mean, own_variance = model[1].running_mean, model[1].running_var
    expected = own_mean + (own_variance / variance).sqrt() * ((factor - 1) * mean + shift)
    torch.testing.assert_close(moved["1"][0], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved["1"][1], own_variance * factor.square(), rtol=1e-4, atol=1e-4)
    # what follows sees the same activations again
    torch.testing.assert_close(moved["4"][0], model[4].running_mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(moved["4"][1], model[4].running_var, rtol=1e-3, atol=1e-4)


def test_relative_to_the_float_model_rounding_noise_in_a_constant_channel_is_not_blown_up():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
    data = [Batch.of(torch.randn(64, 2, generator=torch.Generator().manual_seed(0)))]
    with torch.no_grad():
        model[0].weight[0] = 1e-8
        reference = batch_norm_statistics(model, data)
        model[0].weight[0] = 1e-5
    mean, variance = batch_norm_statistics(model, data, reference)["1"]
    assert mean[0].abs() < 1e-2
    assert variance[0] == pytest.approx(1, rel=1e-2)


def test_tokens_one_value_a_channel_calls_and_modules_that_never_run():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.unused = nn.BatchNorm1d(3), nn.BatchNorm1d(3)

        def forward(self, x):
            return self.norm(self.norm(x))

    x = torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(0))
    found = batch_norm_statistics(Twice().eval(), [Batch.of(x)])
    assert list(found) == ["norm"]
    variance, mean = torch.var_mean(x, (0, 2), correction=0)
    again = (x - mean[:, None]) / (variance[:, None] + 1e-5).sqrt()
    torch.testing.assert_close(found["norm"][0], torch.cat([x, again]).mean((0, 2)), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["norm"][1], torch.cat([x, again]).var((0, 2)), rtol=1e-4, atol=1e-6)
    single = batch_norm_statistics(nn.Sequential(nn.BatchNorm1d(3)).eval(), [Batch.of(torch.ones(1, 3))])
    assert torch.equal(single["0"][0], torch.ones(3))
    assert torch.equal(single["0"][1], torch.zeros(3))


def test_models_without_running_statistics():
    assert batch_norm_statistics(nn.Sequential(nn.Linear(2, 2)), [Batch.of(torch.ones(1, 2))]) == {}
    model = nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False))
    assert batch_norm_statistics(model.eval(), [Batch.of(torch.randn(3, 2))]) == {}
