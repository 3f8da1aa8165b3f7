"""What one recorded forward pass knows about readers of tensors."""

import torch
from bitfront.evaluators.equalization.dataflow import record
from bitfront.task import Batch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.left = nn.Linear(4, 4)
        self.right = nn.Linear(4, 4)

    def forward(self, x):
        y = self.first(x)
        batch, features = y.shape  # reads no numbers
        assert y.size(0) == batch
        assert features == 4
        z = F.relu(y, inplace=True)
        total = self.left(z) + self.right(z)
        return {"total": total, "inner": [z]}


def test_readers_producers_and_results():
    flow = record(Net().eval(), Batch.of(torch.randn(2, 3)))
    assert [step.function for step in flow.steps] == ["linear", "relu", "linear", "linear", "add"]
    first, relu, left, right, add = flow.steps
    assert [step.module for step in flow.steps] == ["first", "", "left", "right", ""]
    assert flow.only_reader(first.outputs[0].value) is relu
    assert flow.producer[left.args[0].value] is relu
    # changed in place: the same tensor, another value
    assert relu.outputs[0].value != first.outputs[0].value
    assert flow.readers[relu.outputs[0].value] == [left, right]
    assert flow.only_reader(relu.outputs[0].value) is None
    assert flow.entering["left"] == flow.entering["right"] == [relu.outputs[0].value]
    assert flow.uses["left.weight"] == [left]
    assert flow.returned == {add.outputs[0].value, relu.outputs[0].value}


def test_a_value_that_is_also_returned_has_no_only_reader():
    class Returns(Net):
        def forward(self, x):
            y = self.first(x)
            return self.left(y), y

    flow = record(Returns().eval(), Batch.of(torch.randn(2, 3)))
    assert flow.only_reader(flow.steps[0].outputs[0].value) is None


def test_operations_that_are_no_modules_are_seen_with_their_arguments():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3)

        def forward(self, x):
            y = F.pad(self.conv(x), (1, 1))
            return F.max_pool2d(F.relu6(y), 2).mean((2, 3)).flatten(1)

    steps = record(Functional().eval(), Batch.of(torch.randn(1, 2, 8, 8))).steps
    assert [step.function for step in steps] == ["conv2d", "pad", "relu6", "max_pool2d", "mean", "flatten"]
    assert steps[1].argument(1, "pad") == (1, 1)
    assert steps[1].argument(2, "mode", "constant") == "constant"
    assert steps[4].argument(1, "dim") == (2, 3)
    assert steps[0].outputs[0].shape == (1, 3, 6, 6)


def test_the_model_has_no_hooks_afterwards():
    model = Net().eval()
    record(model, Batch.of(torch.randn(2, 3)))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
