"""Bias correction against the layers run on every sample, float and quantized, in float64."""

import copy

import pytest
import torch
from bitfront.errors import NonFiniteOutput
from bitfront.evaluators import Recipe, calibrate, prepared
from bitfront.evaluators.bias_correction import bias_shifts
from bitfront.formats import Format
from bitfront.space import SearchSpace
from bitfront.task import Task
from torch import nn

FORMATS = ["w2", "w3", "w4z", "w4a4", "w4a8d", "w8a8", "bf16"]

LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), [(4, 6), (4, 6), (2, 6)]),
    "tokens": (lambda: nn.Linear(6, 5, bias=False), [(2, 7, 6), (3, 4, 6), (2, 1, 6)]),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=2, dilation=2, bias=False), [(2, 4, 9), (3, 4, 7)]),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), [(2, 4, 9, 8), (3, 4, 5, 5), (1, 4, 9, 8)]),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2, padding_mode="reflect"), [(2, 4, 6, 6)]),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, bias=False), [(2, 4, 6, 6)]),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1), [(2, 4, 5, 5), (2, 4, 3, 4)]),
    "transposed_grouped": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), [(2, 4, 5, 5)]),
}


def task_of(model, shapes, seed=0, offset=0.7):
    """A task whose inputs have a mean that is not 0, without which there is hardly a shift."""
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.rand(shape, generator=generator) + offset for shape in shapes]
    return Task(model, calibration=batches, validation=batches[:1], holdout=batches[:1])


@pytest.mark.parametrize("name", LAYERS)
def test_the_mean_difference_of_the_layer_run_on_everything(name):
    torch.manual_seed(0)
    make, shapes = LAYERS[name]
    task = task_of(nn.Sequential(make()), shapes)
    space = SearchSpace.from_model(task.model, task.calibration[0], formats=FORMATS)
    calibration = calibrate(task, space)
    steps = []
    found = bias_shifts(task, space, calibration, steps.append)
    site = space.sites[0]
    assert {key[1] for key in found} == set(site.formats) - {"bf16"}
    assert steps == [1] * len(shapes)
    axis = 1 if site.kind.startswith("conv") else -1
    for format_name in set(site.formats) - {"bf16"}:
        target = Format.parse(format_name)
        exact, rounded = copy.deepcopy(task.model[0]).double(), copy.deepcopy(task.model[0]).double()
        rounded.weight.data = calibration.quantize(site, task.model[0].weight, target.weight).dequantize().double()
        differences = []
        for batch in task.calibration:
            value = batch.inputs[0]
            quantize = calibration.activation("0", target.activation) if target.activation else (lambda value: value)
            difference = exact(value.double()) - rounded(quantize(value).double())
            differences.append(difference.movedim(axis, 0).flatten(1))
        expected = torch.cat(differences, 1).mean(1)
        assert expected.abs().max() > 1e-5
        torch.testing.assert_close(found[site.name, format_name].double(), expected, rtol=1e-4, atol=3e-6)


def test_the_shift_makes_the_mean_output_that_of_the_float_layer():
    torch.manual_seed(0)
    task = task_of(nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 3)), [(4, 3, 8, 8)] * 2)
    space = SearchSpace.from_model(task.model, task.calibration[0], formats=["w2"])
    calibration = calibrate(task, space)
    shift = bias_shifts(task, space, calibration)["2", "w2"]
    inputs = torch.cat([task.model[1](task.model[0](batch.inputs[0])) for batch in task.calibration])
    wanted = task.model[2](inputs).mean((0, 2, 3))
    changed = copy.deepcopy(task.model[2])
    site = space.sites[1]
    changed.weight.data = calibration.quantize(site, changed.weight, Format.parse("w2").weight).dequantize()
    assert (changed(inputs).mean((0, 2, 3)) - wanted).abs().max() > 1e-2
    changed.bias.data += shift
    torch.testing.assert_close(changed(inputs).mean((0, 2, 3)), wanted, rtol=1e-5, atol=1e-5)


class Sentences(nn.Module):
    """Tokens with a mask, attention, and a head tied to the embedding."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.twice, self.head = nn.Linear(8, 8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids, attention_mask):
        x = self.embed(input_ids)
        x = x + self.attn(x, x, x, key_padding_mask=attention_mask == 0, need_weights=False)[0]
        return self.head(self.twice(torch.relu(self.twice(x))))


def sentences():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    batches = []
    for lengths in ([5, 2, 1], [3, 5, 4]):
        mask = (torch.arange(5) < torch.tensor(lengths)[:, None]).long()
        batches.append({"input_ids": torch.randint(11, (3, 5), generator=generator), "attention_mask": mask})
    task = Task(Sentences().eval(), calibration=batches, validation=batches[:1], holdout=batches[:1])
    return task, SearchSpace.from_model(task.model, task.calibration[0], formats=["w3", "w8"])


def test_hidden_tokens_do_not_count_and_every_call_does():
    task, space = sentences()
    calibration = calibrate(task, space)
    found = bias_shifts(task, space, calibration)
    assert {name for name, _ in found} == {"embed", "twice"}  # the tied head under the name of its embedding
    entered, masks = [], []
    handle = task.model.twice.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    with torch.no_grad():
        for batch in task.calibration:
            batch(task.model)
            masks += [batch.inputs["attention_mask"].bool()] * 2
    handle.remove()
    tokens = torch.cat([value[mask] for value, mask in zip(entered, masks, strict=True)]).double()
    site = next(site for site in space.sites if site.name == "twice")
    weight = calibration.quantize(site, task.model.twice.weight, Format.parse("w3").weight).dequantize()
    expected = tokens.mean(0) @ (task.model.twice.weight.double() - weight.double()).T
    torch.testing.assert_close(found["twice", "w3"].double(), expected, rtol=1e-4, atol=1e-6)


def test_the_model_is_left_as_it_was_and_validation_is_not_read():
    task, space = sentences()
    calibration = calibrate(task, space)
    before = task.digest()
    data = [parameter.data_ptr() for parameter in task.model.parameters()]
    task.validation = task.holdout = None
    bias_shifts(task, space, calibration)
    assert task.digest() == before
    assert [parameter.data_ptr() for parameter in task.model.parameters()] == data
    assert not any(module._forward_pre_hooks for module in task.model.modules())


def test_a_shift_that_is_not_finite_is_an_error():
    task = task_of(nn.Sequential(nn.Linear(4, 3)), [(2, 4)])
    space = SearchSpace.from_model(task.model, task.calibration[0], formats=["w4"])
    calibration = calibrate(task, space)
    task.calibration[0].inputs[0][0, 0] = float("inf")
    with pytest.raises(NonFiniteOutput, match="0 in w4"):
        bias_shifts(task, space, calibration)


def test_smoothed_layers_are_corrected_for_the_input_that_is_rounded():
    torch.manual_seed(0)
    task = task_of(nn.Sequential(nn.Linear(6, 5)), [(16, 6)])
    space = SearchSpace.from_model(task.model, task.calibration[0], formats=["w3"])
    recipe = Recipe(equalization="smoothquant", bias_correction=True)
    changed = prepared(task, space, recipe)
    calibration = calibrate(changed, space, recipe)
    layer = changed.model[0]
    weight = calibration.quantize(space.sites[0], layer.weight, Format.parse("w3").weight).dequantize()
    mean = (task.calibration[0].inputs[0] / layer.smoothing).mean(0)
    torch.testing.assert_close(calibration.biases["0", "w3"], mean @ (layer.weight - weight).T, rtol=1e-4, atol=1e-6)
