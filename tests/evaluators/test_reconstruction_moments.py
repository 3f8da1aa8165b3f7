"""Second moments: the quadratic form is the output error, for every kind of layer and every way to call it."""

from types import SimpleNamespace

import bitfront as bf
import pytest
import torch
from bitfront.errors import InvalidInput, NonFiniteOutput
from bitfront.evaluators.reconstruction import Blocks, second_moments
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

LAYERS = {
    "linear": (nn.Linear(5, 4), (3, 6, 5)),
    "hf_conv1d": (Conv1D(4, 5), (3, 6, 5)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2), (2, 4, 11)),
    "conv2d": (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 3, 7, 6)),
    "conv3d": (nn.Conv3d(2, 3, 2, dilation=(1, 2, 1)), (2, 2, 4, 5, 4)),
    "same": (nn.Conv2d(3, 4, (4, 3), padding="same", dilation=2), (2, 3, 7, 6)),
    "valid": (nn.Conv1d(3, 4, 3, padding="valid"), (2, 3, 7)),
    "same_circular": (nn.Conv1d(3, 4, 4, padding="same", dilation=1, padding_mode="circular"), (2, 3, 7)),
    "reflect": (nn.Conv2d(3, 4, 3, padding=(2, 1), padding_mode="reflect"), (2, 3, 7, 6)),
    "replicate": (nn.Conv1d(3, 4, 3, padding=2, padding_mode="replicate"), (2, 3, 7)),
    "grouped": (nn.Conv2d(4, 6, 3, padding=1, groups=2), (2, 4, 5, 5)),
    "depthwise": (nn.Conv2d(4, 8, 3, stride=2, groups=4), (2, 4, 7, 7)),
    "unbatched": (nn.Conv1d(4, 6, 3), (4, 11)),
    "transposed": (nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1), (2, 4, 5)),
    "transposed2d": (nn.ConvTranspose2d(4, 6, (3, 2), stride=(1, 3), dilation=(2, 1)), (2, 4, 5, 4)),
    "transposed3d": (nn.ConvTranspose3d(2, 3, 2, stride=2, padding=1), (2, 2, 3, 4, 3)),
    "transposed_groups": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=2, groups=2), (2, 4, 5, 4)),
}


class Wrapped(nn.Module):
    def __init__(self, layer, call=None):
        super().__init__()
        self.layer, self.call = layer, call or (lambda layer, x: layer(x))

    def forward(self, x):
        return self.call(self.layer, x)


def task_of(model, batches):
    return SimpleNamespace(model=model.eval(), calibration=[bf.task.Batch.of(x) for x in batches])


def moments(model, batches, **options):
    task = task_of(model, batches)
    space = bf.SearchSpace.from_model(model, batches[0], formats=["w4"])
    return space, {site.name: moment for site, moment in second_moments(task, space.sites, **options)}


def output_error(module, parameter, change, batches, run):
    """Sum of squared output differences, and the number of output positions, in float64 by running the model."""
    module = module.double()
    weight = module.get_parameter(parameter)
    total, count = 0.0, 0
    with torch.no_grad():
        for x in batches:
            before = run(x.double())
            weight += change
            difference = run(x.double()) - before
            weight -= change
            total += float(difference.square().sum())
            count += difference.numel()
    module.float()
    return total, count


def form(moment, change, axis):
    matrix = change.movedim(axis, 0).reshape(change.shape[axis], -1)
    blocks = moment.blocks.split(matrix)
    return float(torch.einsum("bce,bef,bcf->", blocks, moment.matrix.double(), blocks))


@pytest.mark.parametrize("kind", LAYERS)
def test_the_form_is_the_output_error_of_the_layer(kind):
    torch.manual_seed(0)
    layer, shape = LAYERS[kind]
    model = Wrapped(layer)
    batches = [torch.randn(shape) + 0.3 for _ in range(2)]
    space, found = moments(model, batches)
    (site,) = space.sites
    change = torch.randn(site.weight_shape, dtype=torch.float64)
    error, outputs = output_error(model, site.parameter, change, batches, model)
    groups = found["layer"].blocks.count if found["layer"].blocks.across else 1
    channels = site.weight_shape[site.channel_axis] * groups
    assert form(found["layer"], change, site.channel_axis) == pytest.approx(error * channels / outputs, rel=1e-5)


def test_a_transposed_convolution_whose_caller_chooses_the_output_size():
    torch.manual_seed(0)
    layer = nn.ConvTranspose1d(3, 4, 3, stride=3)
    model = Wrapped(layer, lambda layer, x: layer(x, output_size=[17]))
    x = torch.randn(2, 3, 5)
    _, found = moments(model, [x])
    change = torch.randn(3, 4, 3, dtype=torch.float64)
    error, outputs = output_error(model, "layer.weight", change, [x], model)
    assert form(found["layer"], change, 1) == pytest.approx(error * 4 / outputs, rel=1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention(batch_first):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
    call = lambda layer, x: layer(x, value=x[:, :3] * 2, key=x[:, :3] + 1, need_weights=False)[0]  # noqa: E731
    if not batch_first:
        call = lambda layer, x: layer(x, x[:3] + 1, x[:3] * 2)[0]  # noqa: E731
    model = Wrapped(attention, call)
    x = torch.randn(5, 4, 8)
    _, found = moments(model, [x])
    keys = x[:, :3] if batch_first else x[:3]
    rows = [each.reshape(-1, 8).double() for each in (x, keys + 1, keys * 2)]
    expected = torch.stack([each.T @ each for each in rows]) / sum(len(each) for each in rows)
    assert found["layer.in_proj"].blocks == Blocks(3)
    torch.testing.assert_close(found["layer.in_proj"].matrix.double(), expected, rtol=1e-5, atol=1e-6)
    change = torch.randn(8, 8, dtype=torch.float64)
    error, outputs = output_error(model, "layer.out_proj.weight", change, [x], model)
    assert form(found["layer.out_proj"], change, 0) == pytest.approx(error * 8 / outputs, rel=1e-5)


def test_attention_with_separate_projections():
    torch.manual_seed(0)
    model = Wrapped(nn.MultiheadAttention(8, 2, kdim=5, vdim=3), lambda layer, x: layer(x, x[..., :5], x[..., :3])[0])
    x = torch.randn(5, 4, 8)
    _, found = moments(model, [x])
    for name, width in (("q", 8), ("k", 5), ("v", 3)):
        rows = x[..., :width].reshape(-1, width).double()
        expected = (rows.T @ rows / len(rows))[None]
        torch.testing.assert_close(found[f"layer.{name}_proj"].matrix.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_module_called_twice_and_a_shared_weight_add_up():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(F.relu(self.first(F.relu(self.first(x)))))

    torch.manual_seed(0)
    model, x = Net(), torch.randn(9, 4)
    _, found = moments(model, [x])
    with torch.no_grad():
        second = F.relu(model.first(x))
        rows = torch.cat([x, second, F.relu(model.first(second))]).double()
    torch.testing.assert_close(found["first"].matrix[0].double(), rows.T @ rows / 27, rtol=1e-5, atol=1e-6)


def test_a_table_that_is_also_the_head_counts_its_look_ups():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
            self.head.weight = self.table.weight

        def forward(self, tokens):
            return self.head(torch.tanh(self.table(tokens)))

    torch.manual_seed(0)
    model, tokens = Tied(), torch.randint(0, 10, (3, 5))
    _, found = moments(model, [tokens])
    with torch.no_grad():
        rows = torch.tanh(model.table(tokens)).reshape(-1, 4).double()
    expected = (rows.T @ rows + 15 / 10 * torch.eye(4)) / 30
    torch.testing.assert_close(found["table"].matrix[0].double(), expected, rtol=1e-5, atol=1e-6)


def test_one_weight_in_different_groups_is_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.plain, self.grouped = nn.Conv1d(2, 4, 3), nn.Conv1d(4, 4, 3, groups=2)
            self.grouped.weight = self.plain.weight

        def forward(self, x):
            return self.grouped(self.plain(x))

    with pytest.raises(InvalidInput, match=r"the modules of site plain .* multiply one weight in different groups"):
        moments(Net(), [torch.randn(2, 2, 9)])


def test_a_sample_of_the_rows_stands_for_all():
    torch.manual_seed(0)
    model, batches = Wrapped(nn.Linear(3, 2)), [torch.randn(400, 3), torch.randn(100, 3)]
    rows = torch.cat(batches).double()
    expected = rows.T @ rows / 500
    samples = [moments(model, batches, rows=40, seed=seed)[1]["layer"].matrix[0].double() for seed in range(200)]
    spread = torch.stack(samples).std(0) / len(samples) ** 0.5
    assert bool((spread > 0).all())
    assert bool(((torch.stack(samples).mean(0) - expected).abs() < 4 * spread).all())
    assert torch.equal(moments(model, batches, rows=40, seed=3)[1]["layer"].matrix[0].double(), samples[3])
    whole = moments(model, batches, rows=2000)[1]["layer"].matrix[0].double()
    torch.testing.assert_close(whole, expected, rtol=1e-5, atol=1e-6)


def test_little_memory_means_more_passes_and_the_same_moments():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    runs = []
    model.register_forward_hook(lambda *_: runs.append(1))
    batches = [torch.randn(6, 4), torch.randn(6, 4)]
    _, once = moments(model, batches)
    assert len(runs) == 1 + 2  # the trace of the space, then one pass
    _, often = moments(model, batches, memory=2 * 4 * 16)
    assert len(runs) == 3 + 1 + 4
    assert all(torch.equal(once[name].matrix, often[name].matrix) for name in once)
    assert not any(module._forward_hooks for module in model)


def test_infinite_activations_name_the_layer():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    space = bf.SearchSpace.from_model(model, torch.randn(2, 4), formats=["w4"])
    with torch.no_grad():
        model[0].bias.fill_(float("inf"))
    with pytest.raises(NonFiniteOutput, match="the activation that enters 1 is NaN or infinite"):
        list(second_moments(task_of(model, [torch.randn(2, 4)]), space.sites))
    assert not any(module._forward_hooks for module in model)


@pytest.mark.parametrize("blocks", [Blocks(), Blocks(3), Blocks(2, across=True)])
def test_blocks_split_and_join(blocks):
    matrix = torch.arange(6 * 8.0).reshape(6, 8)
    split = blocks.split(matrix)
    assert split.shape[0] == blocks.count
    assert torch.equal(blocks.join(split), matrix)
    assert torch.equal(blocks.by_channel(split.sum(2)), matrix.sum(1))
