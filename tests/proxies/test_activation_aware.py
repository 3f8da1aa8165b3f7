"""Activation-aware error against the real output error, on inputs for which the two must agree."""

import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.evaluators import QuantizedModel, calibrate
from bitfront.formats import Format
from bitfront.proxies.activation_aware import ActivationAware
from torch import nn

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
tokens = CASES["tokens"]


def lone(*shape):
    """Samples of which only one element is not zero: no output sees two inputs, so nothing can be correlated."""
    generator = torch.Generator().manual_seed(1)
    value = torch.zeros(shape)
    flat = value.flatten(1)
    where = torch.randint(0, flat.shape[1], (len(value), 1), generator=generator)
    flat.scatter_(1, where, torch.randn(len(value), 1, generator=generator))
    return value


def made(layer, shape, formats):
    torch.manual_seed(0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    data = [lone(*shape) for _ in range(3)]
    task = bf.Task(layer, calibration=data[:1], validation=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(layer, data[0], formats=list(formats), ties="none")
    return task, space, calibrate(task, space)


@pytest.mark.parametrize(
    ("layer", "shape", "axis"),
    [
        (nn.Linear(6, 5), (12, 6), -1),
        (nn.Linear(6, 5), (4, 3, 6), -1),
        (nn.Conv1d(2, 3, 3, padding=1), (6, 2, 8), 1),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (8, 4, 6, 6), 1),
        (nn.Conv2d(4, 4, (1, 3), dilation=2, groups=4), (8, 4, 7, 7), 1),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (8, 4, 4, 4), 1),
    ],
)
def test_it_is_the_output_error_where_inputs_are_not_correlated(layer, shape, axis):
    task, space, calibration = made(nn.Sequential(layer), shape, ("w3", "w3a4", "fp32"))
    found = ActivationAware(batch=3).score(task, space, calibration, seed=0, advance=None)
    quantized = QuantizedModel(task.model, space, calibration)
    value = task.calibration[0].inputs[0]
    bias = layer.bias.detach().double().movedim(0, -1)

    def power(weight, x):
        """Mean squared output, bias taken off, summed over the channels."""
        plain = type(layer).forward
        saved, layer.weight.data = layer.weight.data, weight
        with torch.no_grad():
            output = plain(layer, x).double().movedim(axis, -1) - bias
        layer.weight.data = saved
        return float(output.square().sum(-1).mean())

    rounded = quantized.weight(space.sites[0], Format.parse("w3").weight)
    weights = power(rounded - layer.weight.detach(), value)
    activations = power(
        layer.weight.detach(), calibration.activation("0", Format.parse("w3a4").activation)(value) - value
    )
    assert weights > 0
    assert activations > 0
    wanted = {"w3": weights, "w3a4": weights + activations, "fp32": 0}
    for column, name in enumerate(space.formats):
        assert found.values[0, column] == pytest.approx(wanted[name], rel=1e-4)


def test_rows_of_an_embedding_count_as_often_as_they_are_looked_up():
    table = nn.Embedding(9, 4)
    torch.manual_seed(0)
    model = nn.Sequential(table)
    data = [torch.randint(0, 5, (6, 7)) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w3"], ties="none")
    calibration = calibrate(task, space)
    found = ActivationAware().score(task, space, calibration, seed=0, advance=None)
    rounded = QuantizedModel(model, space, calibration).weight(space.sites[0], Format.parse("w3").weight)
    wanted = (rounded - table.weight.detach())[data[0]].double().square().sum(-1).mean()
    assert found.values[0, 0] == pytest.approx(float(wanted), rel=1e-5)


def test_a_tied_table_is_looked_up_and_multiplied():
    task, space, calibration = tokens("kl")
    found = ActivationAware().score(task, space, calibration, seed=0, advance=None)
    batch = task.calibration[0].inputs[0]
    with torch.no_grad():
        hidden = torch.tanh(task.model.mix(task.model.embed(batch))).double().reshape(-1, 8)
    column = space.formats.index("w3")
    rounded = QuantizedModel(task.model, space, calibration).weight(space.sites[0], Format.parse("w3").weight)
    squares = (rounded - task.model.embed.weight.detach()).double().square()
    wanted = squares[batch].sum() + (squares @ hidden.square().T).sum()
    assert found.values[0, column] == pytest.approx(float(wanted) / (2 * batch.numel()), rel=1e-5)


def test_projections_of_an_attention_have_inputs_of_their_own():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    data = [torch.randn(3, 5, 8) for _ in range(3)]
    task = bf.Task(layer, calibration=data[:1], validation=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(layer, data[0], formats=["w3", "w8"], ties="none")
    calibration = calibrate(task, space)
    found = ActivationAware().score(task, space, calibration, seed=0, advance=None)
    row = next(index for index, site in enumerate(space.sites) if site.kind == "mha_in_proj")
    rounded = QuantizedModel(layer, space, calibration).weight(space.sites[row], Format.parse("w3").weight)
    squares = (rounded - layer.self_attn.in_proj_weight.detach()).double().square()
    wanted = (squares.sum(0) * data[0].double().square().mean((0, 1))).sum()
    assert found.values[row, 0] == pytest.approx(float(wanted), rel=1e-5)
    assert np.all(found.values[:, 0] > found.values[:, 1])


def test_settings_that_leave_no_data_are_refused():
    task, space, calibration = made(nn.Sequential(nn.Linear(6, 5)), (4, 6), ("w4",))
    with pytest.raises(InvalidInput, match="activation_aware needs samples and batch of at least 1, got 0, 8"):
        ActivationAware(samples=0).score(task, space, calibration, seed=0, advance=None)
