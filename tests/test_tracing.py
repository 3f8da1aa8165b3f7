"""Tracing leaves no trace: hooks, training flags, weights, statistics and global switches are as before."""

import bitfront as bf
import pytest
import torch
from bitfront.errors import NonFiniteOutput, UnsupportedModel
from bitfront.task import Batch
from bitfront.tracing import per_sample, trace
from bitfront.zoo.resnet import ResNet
from torch import nn


def state(model):
    hooks = [
        len(hooks)
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    ]
    return hooks, [module.training for module in model.modules()], torch.backends.mha.get_fastpath_enabled()


def frozen_norms():
    """A model in training whose normalization layers the user has frozen: flags that differ from the root's."""
    model = ResNet(1, 4).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


@pytest.mark.parametrize("make", [frozen_norms, lambda: ResNet(1, 4).eval(), lambda: ResNet(1, 4).train()])
def test_the_model_is_as_before(make):
    model = make()
    before, weights = state(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    bf.SearchSpace.from_model(model, torch.randn(2, 1, 8, 8))
    assert state(model) == before
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_the_model_is_as_before_when_it_fails():
    model = frozen_norms()
    before = state(model)
    with pytest.raises(UnsupportedModel):
        bf.SearchSpace.from_model(model, torch.randn(2, 3, 8, 8))
    with torch.no_grad():
        model.fc.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteOutput):
        bf.SearchSpace.from_model(model, torch.randn(2, 1, 8, 8))
    assert state(model) == before


def test_ctrl_c_is_not_swallowed():
    class Interrupted(nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bf.SearchSpace.from_model(Interrupted(), torch.randn(2, 3))


def test_dropout_does_not_draw_from_the_global_generator():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).train()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    bf.SearchSpace.from_model(model, torch.ones(2, 3))
    assert torch.equal(torch.get_rng_state(), before)


class Calls(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.b(input=self.a(x)), self.a(x[:1])


def test_calls_in_order_with_shapes_and_sources():
    found = trace(Calls(), Batch.of(torch.randn(4, 3)), lambda module: isinstance(module, nn.Linear))
    assert found.samples == 4
    assert [call.order for call in found.calls["a"]] == [0, 2]
    assert [call.order for call in found.calls["b"]] == [1]
    assert [call.inputs for call in found.calls["a"]] == [[(4, 3)], [(1, 3)]]
    assert found.calls["b"][0].inputs == [(4, 3)]
    assert len({call.source for calls in found.calls.values() for call in calls}) == 3


def test_only_wanted_modules_are_recorded():
    found = trace(Calls(), Batch.of(torch.randn(4, 3)), lambda module: False)
    assert found.calls == {}


def test_per_sample_rounds_up():
    assert [per_sample(elements, 4) for elements in (0, 1, 4, 5)] == [0, 1, 1, 2]
