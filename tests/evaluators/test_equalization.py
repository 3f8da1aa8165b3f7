"""``prepared``: another model that computes the same; the caller's own is not touched."""

import copy
import pickle

import pytest
import torch
from bitfront import zoo
from bitfront.errors import UnsupportedModel
from bitfront.evaluators import QuantizedModel, Recipe, calibrate, prepared
from bitfront.space import SearchSpace
from bitfront.task import Batch, Task
from bitfront.zoo.char_gpt import ALPHABET, CharGPT
from bitfront.zoo.resnet import ResNet
from torch import nn
from torch.utils import _pytree

RECIPES = [
    Recipe(equalization="cross_layer"),
    Recipe(equalization="smoothquant"),
    Recipe(bias_correction=True),
    Recipe(equalization="cross_layer", bias_correction=True),
]


class Net(nn.Module):
    """Convolutions, one transposed and grouped, a normalization, attention, and a head tied to an embedding."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.conv, self.norm = nn.Conv1d(8, 8, 3, padding=1, bias=False), nn.BatchNorm1d(8)
        self.up = nn.ConvTranspose1d(8, 8, 3, padding=1, groups=2, bias=False)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True, bias=False)
        self.fc = nn.Linear(8, 8, bias=False)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        y = self.up(torch.relu(self.norm(self.conv(x.mT)))).mT
        y = y + self.attn(y, y, y, need_weights=False)[0]
        return {"logits": self.head(torch.tanh(self.fc(y)))}


def make(model=None, formats=("w4", "w8")):
    torch.manual_seed(0)
    model = (model or Net()).eval()
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(11, (3, 6), generator=generator) for _ in range(3)]
    task = Task(
        model, calibration=batches[:1], validation=batches[1:2], holdout=batches[2:], quality="relative_error", name="n"
    )
    return task, SearchSpace.from_model(model, batches[0], formats=list(formats))


def floats(batch, model):
    with torch.no_grad():
        return [leaf for leaf in _pytree.tree_leaves(batch(model)) if leaf.is_floating_point()]


def test_nothing_to_do_gives_the_task_itself():
    task, space = make()
    assert prepared(task, space, Recipe()) is task
    assert prepared(task, space, Recipe(weights="gptq", batch_norm=True)) is task


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_callers_model_is_not_touched_and_the_data_is_shared(recipe):
    task, space = make()
    before, twin = task.digest("calibration"), pickle.dumps(task.model)
    changed = prepared(task, space, recipe)
    assert changed.model is not task.model
    assert task.digest("calibration") == before
    assert pickle.dumps(task.model) == twin
    for split in ("calibration", "validation", "holdout"):
        assert all(a is b for a, b in zip(changed.split(split), task.split(split), strict=True))
    assert (changed.loss, changed.quality, changed.name) == (task.loss, task.quality, task.name)
    own = {parameter.data_ptr() for parameter in task.model.parameters()}
    assert not own & {parameter.data_ptr() for parameter in changed.model.parameters()}
    assert changed.digest() != task.digest()


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_space_holds_for_the_prepared_model(recipe):
    task, space = make()
    changed = prepared(task, space, recipe)
    for wanted, given in zip(floats(task.holdout[0], task.model), floats(task.holdout[0], changed.model), strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-5)
    for site in space.sites:
        assert tuple(changed.model.get_parameter(site.parameter).shape) == site.weight_shape
        for path in site.modules:
            assert type(changed.model.get_submodule(path)) is type(task.model.get_submodule(path))
    assert changed.model.head.weight is changed.model.embed.weight
    assert set(dict(task.model.named_parameters())) - set(dict(changed.model.named_parameters())) <= {
        "norm.weight",
        "norm.bias",
    }
    quantized = QuantizedModel(changed.model, space, calibrate(changed, space, recipe))
    float_error, rounded = [], floats(task.holdout[0], changed.model)
    with quantized.applied(space.uniform("w8")) as model:
        float_error = [
            float((found - wanted).norm() / wanted.norm())
            for found, wanted in zip(floats(task.holdout[0], model), rounded, strict=True)
        ]
    assert 0 < max(float_error) < 0.1
    again = pickle.loads(pickle.dumps(copy.deepcopy(changed.model)))
    assert all(
        torch.equal(a, b)
        for a, b in zip(floats(task.holdout[0], again), floats(task.holdout[0], changed.model), strict=True)
    )


def test_layers_get_a_bias_of_zeros_where_they_have_none():
    task, space = make()
    changed = prepared(task, space, Recipe(bias_correction=True))
    for name, channels in (("conv", 8), ("up", 8), ("fc", 8), ("head", 11)):
        bias = changed.model.get_submodule(name).bias
        assert isinstance(bias, nn.Parameter)
        assert torch.equal(bias, torch.zeros(channels))
        assert task.model.get_submodule(name).bias is None
    assert changed.model.attn.in_proj_bias is None
    wanted, given = (floats(task.holdout[0], model)[0] for model in (task.model, changed.model))
    assert torch.equal(wanted, given)


def test_only_calibration_data_is_read():
    task, space = make()
    reference = [prepared(task, space, recipe).digest() for recipe in RECIPES]
    other = Task(
        task.model,
        calibration=task.calibration,
        validation=[Batch.of(torch.zeros(2, 6, dtype=torch.long))],
        holdout=[Batch.of(torch.ones(1, 6, dtype=torch.long))],
        quality="relative_error",
        name="n",
    )
    assert [prepared(other, space, recipe).digest() for recipe in RECIPES] == reference


def test_formats_do_not_matter_for_what_is_done():
    task, space = make()
    finer = SearchSpace.from_model(task.model, task.calibration[0], formats=["w2", "bf16"])
    for recipe in RECIPES:
        assert prepared(task, space, recipe).digest() == prepared(task, finer, recipe).digest()


def test_a_layer_that_is_read_out_of_sight_is_an_error():
    class Sneaky(nn.Module):
        """Its first output is also read by code that torch functions do not show."""

        def __init__(self):
            super().__init__()
            self.embed, self.a, self.b = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, tokens):
            y = self.a(self.embed(tokens))
            with torch._C.DisableTorchFunction():
                copied = y * 3
            return self.b(torch.relu(y)) + copied

    task, space = make(Sneaky())
    with pytest.raises(UnsupportedModel, match="cross_layer changes what Sneaky computes"):
        prepared(task, space, Recipe(equalization="cross_layer"))


def test_a_model_that_cannot_be_copied_is_an_error():
    class Locked(Net):
        def __deepcopy__(self, memo):
            raise TypeError("cannot pickle a lock")

    task, space = make(Locked())
    with pytest.raises(UnsupportedModel, match=r"Locked cannot be copied .*equalization='none'"):
        prepared(task, space, Recipe(equalization="smoothquant"))


def resnet():
    model = ResNet(blocks=2, width=8)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model, [torch.randn(3, 1, 16, 16) for _ in range(3)]


def char_gpt():
    model = CharGPT(width=32, layers=2)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model, [torch.randint(len(ALPHABET), (2, 16)) for _ in range(3)]


def published(name):
    entry = zoo.load(name, calibration=2, validation=2, holdout=2)
    return entry.model, [entry.calibration[0], entry.validation[0], entry.holdout[0]]


@pytest.mark.parametrize("name", ["resnet", "char_gpt", "minilm_l6", "efficientnet_lite0"])
def test_zoo_models_stay_what_they_are(name):
    torch.manual_seed(0)
    model, batches = {"resnet": resnet, "char_gpt": char_gpt}.get(name, lambda: published(name))()
    task = Task(model.eval(), calibration=batches[:1], validation=batches[1:2], holdout=batches[2:])
    space = SearchSpace.from_model(model, batches[0], formats=["w4"])
    wanted = floats(task.holdout[0], task.model)
    before = task.digest()
    for recipe in RECIPES:
        changed = prepared(task, space, recipe)
        for expected, given in zip(wanted, floats(task.holdout[0], changed.model), strict=True):
            assert float((given - expected).norm() / expected.norm()) < 1e-4
    assert task.digest() == before
