"""Which blocks are found, and what a skipped one does."""

import torch
from bitfront import zoo
from bitfront.search.families.compression import Skip, compress
from torch import nn


def _names(family, kind):
    return [each.name for each in family.architecture.dimensions if each.kind == kind]


class _Layer(nn.Module):
    """Pre-norm residual layer that takes its input by name and returns a tuple."""

    def __init__(self, width=16):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 32)
        self.down = nn.Linear(32, width)

    def forward(self, *, hidden, scale):
        return hidden + scale * self.down(self.up(self.norm(hidden)).relu()), hidden.mean()


class _Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(_Layer() for _ in range(3))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        for layer in self.layers:
            x, _ = layer(hidden=x, scale=0.5)
        return self.head(x)


class _Residual(nn.Module):
    def __init__(self, outer):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        self.outer = outer

    def forward(self, x):
        return (x + self.body(x)).relu() if self.outer else self.body(x)


class _Named(nn.Module):
    """A residual block and one that is none, outside of any container."""

    def __init__(self):
        super().__init__()
        self.first = _Residual(True)
        self.plain = _Residual(False)

    def forward(self, x):
        return self.plain(self.first(x))


def test_the_blocks_of_a_residual_network_whose_shape_stays():
    torch.manual_seed(0)
    model = zoo.resnet.ResNet(blocks=2, width=8).eval()
    family = compress(model, torch.randn(2, 1, 8, 8), width=(), rank=())
    assert _names(family, "skip") == ["layer1.0.skip", "layer1.1.skip", "layer2.1.skip", "layer3.1.skip"]
    assert "shape" in family.left_out["layer2.0.skip"]


def test_a_skipped_block_passes_its_input_on():
    torch.manual_seed(0)
    model = zoo.resnet.ResNet(blocks=2, width=8).eval()
    x = torch.randn(2, 1, 8, 8)
    family = compress(model, x, width=(), rank=())
    built = family.build(family.architecture.choices({**family.architecture.largest(), "layer2.1.skip": True}))
    y = model.layer2[0](model.layer1(model.relu(model.bn1(model.conv1(x)))))
    expected = model.fc(model.pool(model.layer3(y)).flatten(1))
    torch.testing.assert_close(built(x), expected)
    assert type(built.layer2[1]) is nn.Identity


def test_inputs_by_name_and_outputs_in_a_tuple():
    torch.manual_seed(0)
    model, x = _Tower().eval(), torch.randn(2, 4, 16)
    family = compress(model, x, width=(), rank=())
    assert _names(family, "skip") == [f"layers.{place}.skip" for place in range(3)]
    values = {**family.architecture.largest(), "layers.0.skip": True, "layers.2.skip": True}
    built = family.build(family.architecture.choices(values))
    assert isinstance(built.layers[0], Skip)
    torch.testing.assert_close(built(x), model.head(model.layers[1](hidden=x, scale=0.5)[0]))


def test_residual_blocks_outside_of_containers_are_found_and_plain_ones_are_not():
    torch.manual_seed(0)
    family = compress(_Named(), torch.randn(2, 8), width=(), rank=())
    assert _names(family, "skip") == ["first.skip"]


def test_a_block_that_the_model_cannot_run_without_is_left_out():
    class Asks(_Tower):
        def forward(self, x):
            return super().forward(x) * self.layers[1].up.in_features

    family = compress(Asks(), torch.randn(2, 4, 16), width=(), rank=())
    assert _names(family, "skip") == ["layers.0.skip", "layers.2.skip"]
    assert "does not run without it" in family.left_out["layers.1.skip"]


def test_blocks_inside_blocks_exist_only_where_the_outer_one_stays():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = _Residual(True)
            self.body = nn.Linear(8, 8)

        def forward(self, x):
            return self.attention(x) + self.body(x)

    torch.manual_seed(0)
    model = nn.Sequential(Layer(), Layer(), nn.Linear(8, 3))
    family = compress(model, torch.randn(2, 8), width=(), rank=())
    by_name = family.architecture.by_name
    assert set(by_name) == {"0.skip", "0.attention.skip", "1.skip", "1.attention.skip"}
    assert by_name["1.attention.skip"].when == (("1.skip", (False,)),)
    assert family.architecture.choices({"0.skip": True, "1.skip": False, "1.attention.skip": True}).to_dict() == {
        "0.skip": True,
        "1.skip": False,
        "1.attention.skip": True,
    }
