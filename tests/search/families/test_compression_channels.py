"""Channels that are cut: the network computes what the whole one does with these channels at zero."""

import copy

import pytest
import torch
from bitfront import zoo
from bitfront.search.families.compression import compress
from torch import nn

_PLAIN = {"skip": False, "rank": (), "recover": ()}


def _one(family, name, share):
    return family.build(family.architecture.choices({**family.architecture.largest(), name: share}))


def _widths(family):
    return [each.name for each in family.architecture.dimensions if each.kind == "width"]


class _Branches(nn.Module):
    """Two branches that are concatenated and flattened before a linear layer."""

    def __init__(self, depthwise):
        super().__init__()
        self.left = nn.Conv2d(3, 16, 3, padding=1)
        self.right = nn.Conv2d(3, 24, 1)
        self.norm = nn.BatchNorm2d(40)
        self.depthwise = nn.Conv2d(40, 40, 3, groups=40) if depthwise else nn.AvgPool2d(3, 1)
        self.head = nn.Linear(40 * 4, 5)

    def forward(self, x):
        y = torch.cat([self.left(x), self.right(x)], 1)
        return self.head(self.depthwise(self.norm(y).relu()).flatten(1))


class _Attention(nn.Module):
    """Attention whose number of heads is an attribute, in a residual layer."""

    def __init__(self, width=32, heads=4):
        super().__init__()
        self.num_heads, self.size = heads, width // heads
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x):
        q, k, v = (
            layer(x).view(*x.shape[:2], self.num_heads, self.size).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        mixed = (q @ k.transpose(-1, -2) / self.size**0.5).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


class _Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inputs = nn.Linear(6, 32)
        self.attention = _Attention()
        self.norm = nn.LayerNorm(32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        x = self.inputs(x)
        x = x + self.attention(x)
        return self.head(x + self.down(self.up(self.norm(x)).relu()))


class _Shuffled(nn.Module):
    """The channels of the first layer are reversed before the second reads them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1)

    def forward(self, x):
        return self.second(self.first(x).flip(1)).sum((2, 3))


def _trained_norms(model):
    """Running statistics and affine parameters that are not those of a fresh network."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return model.eval()


def test_channels_inside_a_block_are_those_with_the_smallest_weights():
    torch.manual_seed(0)
    model = _trained_norms(zoo.resnet.ResNet(blocks=1, width=16))
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        weak = [1, 3, 5, 7, 9, 11, 13, 15]
        model.layer1[0].conv1.weight[weak] *= 0.01
        model.layer1[0].conv2.weight[:, weak] *= 0.01
        model.layer1[0].bn1.weight[weak] *= 0.01
    built = _one(compress(model, x, **_PLAIN), "layer1.0.conv1.width", 0.5)
    zeroed = copy.deepcopy(model)
    with torch.no_grad():
        zeroed.layer1[0].conv2.weight[:, weak] = 0
    assert built.layer1[0].conv1.weight.shape == (8, 16, 3, 3)
    assert built.layer1[0].bn1.num_features == 8
    torch.testing.assert_close(built(x), zeroed(x), rtol=1e-4, atol=1e-5)


def test_a_residual_stream_is_cut_in_all_blocks_at_once():
    torch.manual_seed(0)
    model = _trained_norms(zoo.resnet.ResNet(blocks=2, width=16))
    family = compress(model, torch.randn(2, 1, 8, 8), **_PLAIN)
    built = _one(family, "conv1.width", 0.5)
    assert built.conv1.out_channels == built.layer1[0].conv1.in_channels == built.layer1[1].conv2.out_channels == 8
    assert built.layer2[0].downsample[0].in_channels == 8
    assert built.layer1[0].conv1.out_channels == 16  # its own group


@pytest.mark.parametrize("depthwise", [True, False])
def test_concatenated_and_flattened_channels(depthwise):
    """A depthwise convolution behind the concatenation makes one group of both branches, otherwise each is its own."""
    torch.manual_seed(0)
    model, x = _trained_norms(_Branches(depthwise)), torch.randn(2, 3, 4, 4)
    family = compress(model, x, **_PLAIN)
    assert _widths(family) == (["left.width"] if depthwise else ["left.width", "right.width"])
    built = family.build(family.architecture.smallest())
    counts = built.left.out_channels, built.right.out_channels
    assert sum(counts) == 24 if depthwise else counts == (8, 16)
    assert built.head.in_features == 4 * sum(counts) == 4 * built.norm.num_features
    zeroed = copy.deepcopy(model)
    with torch.no_grad():
        for name, conv, offset in (("left", model.left, 0), ("right", model.right, 16)):
            kept = getattr(built, name).weight.flatten(1)
            for channel, row in enumerate(conv.weight.flatten(1)):
                if not (kept == row).all(1).any():
                    begin = 4 * (offset + channel)
                    zeroed.head.weight[:, begin : begin + 4] = 0
    torch.testing.assert_close(built(x), zeroed(x), rtol=1e-4, atol=1e-5)


def test_attention_is_cut_by_whole_heads_and_their_count_follows():
    torch.manual_seed(0)
    model, x = _Transformer().eval(), torch.randn(2, 5, 6)
    family = compress(model, x, **_PLAIN)
    assert "attention.q.width" in _widths(family)
    built = _one(family, "attention.q.width", 0.5)
    assert (built.attention.num_heads, built.attention.q.out_features) == (2, 16)
    rows = {int((model.attention.v.weight == row).all(1).nonzero()) // 8 for row in built.attention.v.weight}
    assert len(rows) == 2
    zeroed = copy.deepcopy(model)
    with torch.no_grad():
        for head in set(range(4)) - rows:
            zeroed.attention.out.weight[:, 8 * head : 8 * head + 8] = 0
    torch.testing.assert_close(built(x), zeroed(x), rtol=1e-4, atol=1e-5)


def test_a_stream_through_layer_normalization():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 5)).eval()
    nn.init.normal_(model[1].weight)
    x = torch.randn(4, 6)
    built = _one(compress(model, x, **_PLAIN), "0.width", 0.5)
    assert built[1].normalized_shape == (16,)
    kept = [int((model[0].weight == row).all(1).nonzero()) for row in built[0].weight]
    y = nn.functional.layer_norm(model[0](x)[:, kept], (16,), model[1].weight[kept], model[1].bias[kept])
    torch.testing.assert_close(built(x), y.relu() @ model[3].weight[:, kept].T + model[3].bias)


def test_what_the_tracing_misreads_is_left_out():
    torch.manual_seed(0)
    family = compress(_Shuffled().eval(), torch.randn(2, 3, 4, 4), skip=False)
    assert _widths(family) == []
    assert "at zero" in family.left_out["first.width"]


def test_grouped_tied_and_output_channels_are_left_out():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 16, 1)
            self.grouped = nn.Conv2d(16, 16, 1, groups=4)
            self.wide = nn.Linear(16, 32)
            self.again = nn.Linear(32, 32)
            self.tied = nn.Linear(32, 32)
            self.tied.weight = self.again.weight
            self.head = nn.Linear(32, 24)

        def forward(self, x):
            y = self.wide(self.grouped(self.stem(x)).mean((2, 3)))
            return self.head(self.tied(self.again(y)))

    family = compress(Net().eval(), torch.randn(2, 3, 4, 4), skip=False)
    assert _widths(family) == []
    assert "grouped" in family.left_out["stem.width"]
    assert "shares its weight" in family.left_out["wide.width"]
    assert "output" in family.left_out["head.width"]
    assert family.left_out["again.rank"] == family.left_out["tied.rank"] == "another module has the same weight"


def test_counts_are_rounded_and_equal_shares_offered_once():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 5)).eval()
    family = compress(model, torch.randn(2, 6), width=(0.4, 0.5, 0.75, 0.9, 1.0), **_PLAIN)
    counts = {
        share: _one(family, "0.width", share)[0].out_features for share in family.architecture.by_name["0.width"].values
    }
    assert counts == {0.5: 8, 0.9: 16, 1.0: 20}
    assert family.architecture.by_name["2.width"].values == (0.5, 1.0)


@pytest.mark.parametrize("importance", ["activation", "taylor"])
def test_importance_from_data_keeps_the_channels_that_carry_something(importance):
    """Large weights on inputs that are always zero are worth nothing; only data can tell."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    with torch.no_grad():
        model[0].weight[:8] *= 100
        model[0].bias[:8] = -1e4  # never active
    batches = [
        (torch.randn(64, 4), torch.randint(3, (64,), generator=torch.Generator().manual_seed(k))) for k in range(2)
    ]
    arguments = {"calibration": batches, "loss": nn.functional.cross_entropy, **_PLAIN}
    x = batches[0][0]
    built = _one(compress(model, x, importance=importance, **arguments), "0.width", 0.5)
    torch.testing.assert_close(built(x), model(x))
    assert (_one(compress(model, x, **arguments), "0.width", 0.5)(x) - model(x)).abs().max() > 0.01


def test_activation_scores_against_a_loop():
    from bitfront.search.families.compression.importance import activation_scores
    from bitfront.search.families.compression.moments import input_moments
    from bitfront.search.families.compression.pruning import Member
    from bitfront.task import Batch

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 2))
    x = torch.randn(3, 3, 5, 5)
    moments = input_moments(model, [Batch.of(x)], ["1"])
    member = Member("1", "prune_conv_in_channels", (0, 1, 2, 3), (3, 2, 1, 0), -1)
    patches = nn.functional.unfold(model[0](x), 2).movedim(1, -1).flatten(0, 1).double().detach()
    weight = model[1].weight.detach().double().flatten(2)
    energy = [
        sum(float(weight[:, c, k].square().sum() * patches[:, 4 * c + k].square().mean()) for k in range(4))
        for c in range(4)
    ]  # fmt: skip
    expected = torch.tensor(energy[::-1], dtype=torch.float64) / sum(energy)
    torch.testing.assert_close(activation_scores(model, 4, [member], moments), expected)
