"""NAS-Bench-201: cells, networks, the family."""

import numpy as np
import pytest
import torch
from bitfront.architecture import Choices, Family
from bitfront.errors import InvalidInput
from bitfront.hw_models.architecture import OPERATIONS, parse_cell
from bitfront.search.families.nasbench201 import (
    CELL_SPACE,
    Nas201Network,
    NasBench201,
    NetworkSizes,
    cell_choices,
    cell_text,
)
from bitfront.search.families.nasbench201.network import Cell, Reduction
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

MIXED = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|"


def conv(block, value):
    """ReLU, convolution, normalization by the batch, written out."""
    _, layer, norm = block
    value = F.conv2d(value.clamp_min(0), layer.weight, layer.bias, layer.stride, layer.padding)
    mean, var = value.mean((0, 2, 3), keepdim=True), value.var((0, 2, 3), keepdim=True, correction=0)
    value = (value - mean) / (var + norm.eps).sqrt()
    return value if norm.weight is None else value * norm.weight[:, None, None] + norm.bias[:, None, None]


def pool(value):
    """3 x 3 means of the pixels that exist."""
    sums = F.conv2d(value.flatten(0, 1)[:, None], torch.ones(1, 1, 3, 3).to(value), padding=1)
    counts = F.conv2d(torch.ones(1, 1, *value.shape[2:]).to(value), torch.ones(1, 1, 3, 3).to(value), padding=1)
    return (sums / counts).reshape(value.shape)


@given(st.lists(st.integers(0, 4), min_size=6, max_size=6))
def test_a_cell_is_read_back_as_it_was_written(operations):
    choices = CELL_SPACE.from_indices(operations)
    assert parse_cell(cell_text(choices)) == tuple(operations)
    assert cell_choices(cell_text(choices)) == choices


def test_the_space_has_six_operators_and_15625_cells():
    assert [each.kind for each in CELL_SPACE.dimensions] == ["operator"] * 6
    assert len({cell_text(each) for each in CELL_SPACE.all()}) == 5**6


@pytest.mark.parametrize("affine", [True, False])
def test_a_cell_sums_its_edges(affine):
    torch.manual_seed(0)
    cell = Cell(parse_cell(MIXED), 4, affine).double().train()
    value = torch.randn(3, 4, 6, 5, dtype=torch.float64)
    edges = cell.edges
    first = conv(edges["node1_from0"], value)
    second = value + conv(edges["node2_from1"], first)
    wanted = pool(value) + conv(edges["node3_from2"], second)
    torch.testing.assert_close(cell(value), wanted)
    assert "node3_from1" not in edges
    assert (edges["node1_from0"][1].bias is None) == affine


def test_a_node_without_edges_is_zero():
    cell = Cell(parse_cell("|skip_connect~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|"), 4).eval()
    value = torch.randn(2, 4, 5, 5)
    assert torch.equal(cell(value), cell(torch.zeros_like(value)))
    empty = Cell([0] * 6, 4)
    assert torch.equal(empty(value), torch.zeros_like(value))


def test_a_reduction_halves_the_image_and_doubles_the_channels():
    torch.manual_seed(0)
    block = Reduction(4).double().train()
    value = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    means = value.reshape(3, 4, 3, 2, 3, 2).mean((3, 5))
    shortcut = torch.einsum("nchw,oc->nohw", means, block.shortcut[1].weight[:, :, 0, 0])
    torch.testing.assert_close(block(value), shortcut + conv(block.second, conv(block.first, value)))
    assert block(torch.randn(2, 4, 7, 7, dtype=torch.float64)).shape == (2, 8, 4, 4)


def test_the_network_has_the_sizes_asked_for():
    network = Nas201Network(parse_cell(MIXED), NetworkSizes(classes=7, channels=4, cells=2, inputs=1))
    widths = [each.edges["node1_from0"][1].out_channels for each in network.body if isinstance(each, Cell)]
    assert widths == [4, 4, 8, 8, 16, 16]
    assert [type(each).__name__ for each in network.body].count("Reduction") == 2
    assert network(torch.randn(2, 1, 16, 16)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "millions"),
    # the authors' counts for CIFAR-10, of networks of which all six edges run one operation
    [("nor_conv_3x3", 1.531546), ("nor_conv_1x1", 0.241306), ("skip_connect", 0.073306), ("none", 0.073306)],
)
def test_the_parameters_are_those_of_the_benchmark(name, millions):
    network = Nas201Network([OPERATIONS.index(name)] * 6)
    assert sum(each.numel() for each in network.parameters()) == round(millions * 1e6)


def test_wrong_sizes_are_refused():
    with pytest.raises(InvalidInput, match="6 operations"):
        Nas201Network([0] * 5)
    with pytest.raises(InvalidInput, match="6 operations"):
        Nas201Network([5, 0, 0, 0, 0, 0])
    with pytest.raises(InvalidInput, match="must be positive"):
        NasBench201(cells=0)


def test_the_family_builds_the_same_weights_every_time_and_leaves_the_generator_alone():
    family = NasBench201(channels=4, cells=1)
    assert isinstance(family, Family)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, two = family.build(cell_choices(MIXED)), family.build(cell_choices(MIXED))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not one.training
    assert family.resolution(cell_choices(MIXED)) is None
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name])
    other = NasBench201(channels=4, cells=1, seed=1).build(cell_choices(MIXED))
    assert not torch.equal(other.stem[0].weight, one.stem[0].weight)


def test_the_digest_says_what_build_depends_on():
    digests = [
        NasBench201(channels=4, cells=1).digest,
        NasBench201(channels=4, cells=1, seed=1).digest,
        NasBench201(channels=4, cells=2).digest,
        NasBench201(channels=4, cells=1, affine=False).digest,
    ]
    assert len(set(digests)) == 4
    assert NasBench201(channels=4, cells=1).digest == digests[0]


def test_choices_of_another_space_are_refused():
    with pytest.raises(InvalidInput, match="no dimension"):
        NasBench201(channels=4, cells=1).build(Choices.from_dict({"depth": 2}))


def test_a_network_can_be_traced_and_quantized():
    import bitfront as bf

    network = NasBench201(channels=4, cells=1).build(cell_choices(MIXED))
    images = torch.randn(2, 3, 16, 16)
    space = bf.SearchSpace.from_model(network, images, formats=["w4", "w8", "bf16"])
    layers = [name for name, each in network.named_modules() if isinstance(each, (torch.nn.Conv2d, torch.nn.Linear))]
    assert sorted(module for site in space.sites for module in site.modules) == sorted(layers)
    task = bf.Task(network, calibration=[images], validation=[images, images])
    measured = bf.evaluate(task, space.uniform("w4"))
    assert np.isfinite(measured.value)
