"""Small networks and float64 references that the tests of the Fisher proxies share."""

import copy

import bitfront as bf
import numpy as np
import torch
from bitfront.evaluators import calibrate
from bitfront.formats import Format
from torch import nn


class Net(nn.Module):
    """Convolution, in-place ReLU, linear."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        return self.fc(self.relu(self.conv(x)).flatten(1))


class Tokens(nn.Module):
    """Embedding tied to the output head, with a linear layer between: logits for every position."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(torch.tanh(self.mix(self.embed(tokens))))


def images(quality, formats=("w4", "w4a8", "fp32"), samples=5, loss=None, labelled=True):
    torch.manual_seed(0)
    model = Net()
    data = [(torch.randn(samples, 1, 4, 4), torch.randint(0, 4, (samples,))) for _ in range(3)]
    if not labelled:
        data = [(inputs, None) for inputs, _ in data]
    return _made(model, data, quality, formats, loss)


def tokens(quality, formats=("w3", "w4"), samples=4):
    """Sequences of 6 positions, of which the last one of every second sample does not count."""
    torch.manual_seed(0)
    model = Tokens()
    data = [(torch.randint(0, 7, (samples, 6)), torch.randint(0, 7, (samples, 6))) for _ in range(3)]
    for _, targets in data:
        targets[::2, -1] = -100
    return _made(model, data, quality, formats, None)


def _made(model, data, quality, formats, loss):
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality=quality, loss=loss)
    space = bf.SearchSpace.from_model(model, data[0], formats=list(formats), ties="none")
    return task, space, calibrate(task, space)


def doubled(model):
    return copy.deepcopy(model).double()


def weight_error(task, space, calibration, site, name):
    """Q(W) - W in float64, by the calibration's own quantizer."""
    weight = task.model.get_parameter(site.parameter).detach()
    target = Format.parse(name).weight
    if target.is_wide:
        return torch.zeros_like(weight).double()
    return calibration.quantize(site, weight, target).dequantize().double() - weight.double()


def fingerprint(model):
    return {name: (tensor.clone(), tensor.data_ptr()) for name, tensor in model.state_dict().items()}


def unchanged(model, before):
    return all(
        torch.equal(before[name][0], tensor) and before[name][1] == tensor.data_ptr()
        for name, tensor in model.state_dict().items()
    )


def gradients(model, inputs, loss_of, positions=1):
    """Gradients of every sample's loss at each weight, in float64: {parameter: [samples, ...]}, times root positions.

    Args:
        model: in float64.
        inputs: one tensor [samples, ...].
        loss_of: (output [1, ...], sample) -> scalar.
        positions: a number, or one for each sample.
    """
    found = {name: [] for name, _ in model.named_parameters()}
    counts = np.broadcast_to(positions, len(inputs))
    for sample in range(len(inputs)):
        loss = loss_of(model(inputs[sample : sample + 1]), sample)
        for (name, _), gradient in zip(
            model.named_parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
        ):
            found[name].append(gradient * counts[sample] ** 0.5)
    return {name: torch.stack(each) for name, each in found.items()}
