"""Recorded gradients are those of one module each, and the model is left as it was."""

import bitfront as bf
import pytest
import torch
from bitfront.errors import UnsupportedModel
from bitfront.proxies.recording import Recorder, single_samples
from torch import nn


class Shared(nn.Module):
    """Two layers read the same tensor, one by keyword; the sum goes through an in-place ReLU."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.left = nn.Linear(5, 3)
        self.right = nn.Linear(5, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.first(x)
        return self.relu(self.left(x)) + self.right(input=x)


def recorded(model, data, outputs=False):
    task = bf.Task(model, calibration=data, validation=data * 2, quality="relative_error")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w4"], ties="none")
    modules = [module for site in space.sites for module in site.modules]
    return task, space, Recorder(model, space, modules, outputs)


def test_gradient_of_an_input_is_that_of_its_module_alone():
    torch.manual_seed(0)
    model = Shared()
    task, _, recorder = recorded(model, [torch.randn(2, 5)])
    with recorder.run(task.calibration[0]) as run:
        values = {call.module: call.value for call in run.calls}
        seed = torch.randn_like(run.output)
        left, right = run.gradients([values["left"], values["right"]], seed)
    with torch.no_grad():
        positive = model.left(model.first(task.calibration[0].inputs[0])) > 0
    torch.testing.assert_close(left, (seed * positive) @ model.left.weight)
    torch.testing.assert_close(right, seed @ model.right.weight)


def test_gradient_of_an_output_is_taken_before_in_place_operations():
    torch.manual_seed(0)
    model = Shared()
    task, _, recorder = recorded(model, [torch.randn(2, 5)], outputs=True)
    with recorder.run(task.calibration[0]) as run:
        output = next(call.output for call in run.calls if call.module == "left")
        seed = torch.randn_like(run.output)
        (gradient,) = run.gradients([output], seed)
        assert bool((output < 0).any())  # the ReLU worked on a copy
    torch.testing.assert_close(gradient, seed * (output > 0))


def test_output_is_that_of_the_plain_model_and_everything_is_restored():
    torch.manual_seed(0)
    model = Shared()
    model.left.weight.requires_grad_(False)
    task, _, recorder = recorded(model, [torch.randn(2, 5)], outputs=True)
    with torch.no_grad():
        plain = model(*task.calibration[0].inputs)
    with recorder.run(task.calibration[0]) as run:
        assert torch.equal(run.output, plain)
    assert not model.left.weight.requires_grad
    assert model.right.weight.requires_grad
    assert model.right.bias.requires_grad
    assert all(not module._forward_pre_hooks and not module._forward_hooks for module in model.modules())


class Undifferentiable(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.how = how

    def forward(self, x):
        if self.how == "no_grad":
            with torch.no_grad():
                return self.fc(x)
        if self.how == "raises" and torch.is_grad_enabled():
            raise RuntimeError("kernel has no derivative\nmore")
        y = self.fc(x)
        return _NoBackward.apply(y) if self.how == "backward" else y


class _NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x * 2

    @staticmethod
    def backward(context, gradient):
        raise RuntimeError("no derivative is known")


@pytest.mark.parametrize(
    ("how", "why"),
    [("no_grad", "does not depend on its weights"), ("raises", "kernel has no derivative;"),
     ("backward", "no derivative is known")],
)  # fmt: skip
def test_models_without_derivatives_are_refused_naming_proxies_that_need_none(how, why):
    torch.manual_seed(0)
    task, _, recorder = recorded(Undifferentiable(how), [torch.randn(2, 4)])
    before = [parameter.requires_grad for parameter in task.model.parameters()]
    match = f"{why}.*without gradients:.*weight_mse"
    with pytest.raises(UnsupportedModel, match=match), recorder.run(task.calibration[0]) as run:
        run.gradients(run.weights, torch.ones_like(run.output))
    assert [parameter.requires_grad for parameter in task.model.parameters()] == before
    assert not task.model.fc._forward_pre_hooks


def test_attention_with_packed_projections_is_recorded_once_for_each_site():
    torch.manual_seed(0)

    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x)[0]

    task, space, recorder = recorded(Attend(), [torch.randn(1, 5, 8)], outputs=True)
    assert {site.kind for site in space.sites} == {"mha_in_proj", "mha_out_proj"}
    with recorder.run(task.calibration[0]) as run:
        assert sorted(call.row for call in run.calls) == [0, 1]
        gradients = run.gradients([call.output for call in run.calls], torch.ones_like(run.output))
    assert all(torch.equal(each, torch.ones(1, 5, 8)) for each in gradients)


def test_single_samples_are_the_first_ones_across_batches():
    data = [(torch.arange(3.0)[:, None], torch.arange(3)), (torch.arange(3.0, 6)[:, None], torch.arange(3, 6))]
    task = bf.Task(nn.Linear(1, 7), calibration=data, validation=data, quality="loss")
    found = single_samples(task, 5)
    assert [float(batch.inputs[0]) for batch in found] == [0, 1, 2, 3, 4]
    assert [int(batch.targets) for batch in found] == [0, 1, 2, 3, 4]
    assert len(single_samples(task, 50)) == 6
