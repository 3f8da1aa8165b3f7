"""The Fisher-weighted output error against its definition, and against the loss itself at the last layer."""

import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.evaluators import Recipe, calibrate, prepared
from bitfront.formats import Format
from torch import nn
from torch.nn import functional

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))


def test_equals_squared_gradient_times_squared_output_error():
    task, space, calibration = CASES["images"]("loss", formats=("w4", "w4a8"))
    table = bf.sensitivity(task, space, "output_fisher", calibration=calibration).table
    model, batch = CASES["doubled"](task.model), task.calibration[0]
    for name in space.formats:
        found = {site.name: [] for site in space.sites}
        for sample in range(5):
            x = batch.inputs[0][sample : sample + 1].double()
            middle = model.conv(x)
            hidden = functional.relu(middle).flatten(1)
            output = model.fc(hidden)
            loss = functional.cross_entropy(output, batch.targets[sample : sample + 1])
            gradients = dict(zip(("conv", "fc"), torch.autograd.grad(loss, [middle, output]), strict=True))
            for site, entering, leaving in ((space.sites[0], x, middle), (space.sites[1], hidden, output)):
                error = CASES["weight_error"](task, space, calibration, site, name)
                weight = model.get_parameter(site.parameter) + error
                target = Format.parse(name).activation
                if target is not None:
                    entering = calibration.activation(site.name, target)(entering.detach().float()).double()
                layer = functional.conv2d if site.name == "conv" else functional.linear
                changed = layer(entering, weight, model.get_parameter(f"{site.name}.bias"))
                found[site.name].append(
                    0.5 * float((gradients[site.name] * (changed - leaving)).detach().square().sum())
                )
        wanted = {site: np.mean(each) for site, each in found.items()}
        assert table[name].to_dict() == pytest.approx(wanted, rel=1e-3)


def test_last_layer_of_a_regression_is_the_objective_itself():
    """With signs the squared gradient at the outputs is 1 / |y|^2 everywhere: half the squared relative error."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
    data = [torch.randn(4, 6) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w3", "w4a4"])
    calibration = calibrate(task, space)
    table = bf.sensitivity(task, space, "output_fisher", calibration=calibration).table
    from bitfront.evaluators import QuantizedModel

    quantized = QuantizedModel(model, space, calibration)
    with torch.no_grad():
        y = model(data[0]).double()
        for name in space.formats:
            with quantized.applied({"2": name}):
                error = model(data[0]).double() - y
            wanted = 0.5 * (error.square().sum(1) / y.square().sum(1)).mean()
            assert table.loc["2", name] == pytest.approx(float(wanted), rel=1e-4)


def test_corrected_biases_belong_to_the_format():
    """Bias correction takes the mean of the output error away; the score sees it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5))
    data = [torch.randn(32, 6) + 3 for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w3"])
    recipe = Recipe(bias_correction="empirical")
    task = prepared(task, space, recipe)
    corrected = calibrate(task, space, recipe)
    assert corrected.biases
    plain = type(corrected)(corrected.weights, corrected.codes, corrected.ranges, {})
    scores = [
        bf.sensitivity(task, space, "output_fisher", calibration=each).values[0, 0] for each in (plain, corrected)
    ]
    assert scores[1] < 0.7 * scores[0]


def test_attention_and_embeddings_are_run_in_their_formats():
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(9, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, tokens):
            x = self.embed(tokens)
            return self.attention(x, x, x, need_weights=False)[0]

    torch.manual_seed(0)
    model = Attend()
    data = [torch.randint(0, 9, (3, 5)) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w3", "w6"])
    table = bf.sensitivity(task, space, "output_fisher").table
    assert len(table) == 3
    assert np.all(table["w3"] > 10 * table["w6"])
    assert np.all(table["w6"] > 0)


def test_half_precision_does_not_hide_fine_formats():
    """In bfloat16 the outputs of a layer are rounded more coarsely than 8-bit weights move them."""
    task, space, calibration = CASES["images"]("loss", formats=("w8",))
    wanted = bf.sensitivity(task, space, "output_fisher", calibration=calibration).table["w8"]
    model = CASES["Net"]()
    model.load_state_dict(task.model.state_dict())
    data = [(batch.inputs[0].half(), batch.targets) for batch in task.calibration]
    half = bf.Task(model.half(), calibration=data, validation=data * 2, quality="loss")
    before = CASES["fingerprint"](model)
    found = bf.sensitivity(half, space, "output_fisher", calibration=calibration).table["w8"]
    np.testing.assert_allclose(found, wanted, rtol=0.3)
    assert CASES["unchanged"](model, before)
    assert all(parameter.dtype == torch.float16 for parameter in model.parameters())
