"""The elastic supernet: its sub-networks against a naive float64 reference, cutting, sorting, statistics."""

import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.search.families.elastic import (
    ElasticNet,
    ElasticShape,
    ElasticStage,
    recalibrated,
    resized,
    sort_channels,
)
from bitfront.search.families.elastic.importance import channel_order
from bitfront.search.families.elastic.layers import ElasticDepthwise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

SHAPE = ElasticShape(
    (
        ElasticStage(6, 1, depths=(1, 2, 3), kernels=(3, 5, 7), expansions=(1, 2, 4)),
        ElasticStage(8, 2, depths=(2, 3), kernels=(3, 5), expansions=(2, 3)),
    ),
    stem=6,
    head=10,
    resolutions=(7, 9, 12),
    channels=2,
    classes=4,
)


def shaken(shape=SHAPE, seed=0):
    """A supernet in which no weight, matrix or statistic is left at its initial value."""
    net = ElasticNet(shape, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=generator), alpha=0.05)
                if "running_var" in name:
                    value.abs_().add_(0.5)
    return net.eval()


def naive(net, choices, images):
    """The sub-network in float64, from the formulas; every convolution as loops over its window."""
    state = {name: value.double() for name, value in net.state_dict().items()}

    def norm(x, name, count):
        mean, var, weight, bias = (
            state[f"{name}.{part}"][:count, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + net.shape.eps) * weight + bias

    def convolved(x, weight, stride, depthwise):
        size = weight.shape[-1]
        padded = nn.functional.pad(x, (size // 2,) * 4)
        height, width = ((length + stride - 1) // stride for length in x.shape[-2:])
        total = 0.0
        for i in range(size):
            for j in range(size):
                window = padded[:, :, i : i + stride * height : stride, j : j + stride * width : stride]
                window = window[:, :, :height, :width]
                if depthwise:
                    total = total + window * weight[None, :, 0, i, j, None, None]
                else:
                    total = total + torch.einsum("bihw,oi->bohw", window, weight[:, :, i, j])
        return total

    def depthwise_kernel(name, kernels, kernel, hidden):
        weight = state[f"{name}.weight"][:hidden, 0]
        for large, small in zip(kernels[:0:-1], kernels[-2::-1], strict=True):
            if large > kernel:
                cut = (large - small) // 2
                matrix = state[f"{name}.matrices.{large}to{small}"]
                rows = [matrix @ one[cut : cut + small, cut : cut + small].flatten() for one in weight]
                weight = torch.stack(rows).view(hidden, small, small)
        return weight[:, None]

    x = norm(convolved(images.double(), state["stem.conv.weight"], net.shape.stem_stride, False), "stem.norm", None)
    x, inputs = x.clamp(min=0), net.shape.stem
    for s, stage in enumerate(net.shape.stages, start=1):
        for b in range(1, choices[f"stage{s}.depth"] + 1):
            key, stride = f"blocks.stage{s}_block{b}", stage.stride if b == 1 else 1
            hidden = inputs * choices[f"stage{s}.block{b}.expansion"]
            kernel = depthwise_kernel(f"{key}.depthwise", stage.kernels, choices[f"stage{s}.block{b}.kernel"], hidden)
            y = norm(convolved(x, state[f"{key}.expand.weight"][:hidden], 1, False), f"{key}.expand_norm", hidden)
            y = norm(convolved(y.clamp(min=0), kernel, stride, True), f"{key}.depthwise_norm", hidden).clamp(min=0)
            y = norm(convolved(y, state[f"{key}.project.weight"][:, :hidden], 1, False), f"{key}.project_norm", None)
            x = x + y if stride == 1 and inputs == stage.width else y
            inputs = stage.width
    x = norm(convolved(x, state["head.conv.weight"], 1, False), "head.norm", None).clamp(min=0).mean((2, 3))
    return x @ state["classifier.weight"].T + state["classifier.bias"]


def images(count=3, size=9, channels=2, seed=1):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(6))
def test_active_and_cut_sub_networks_equal_the_naive_reference(seed):
    net, space = shaken(seed=seed), SHAPE.architecture
    choices = [space.largest(), space.smallest()][seed] if seed < 2 else space.sample(np.random.default_rng(seed))
    inputs = resized(images(), choices["resolution"])
    with torch.no_grad():
        expected = naive(net, choices, inputs)
        torch.testing.assert_close(net.activate(choices)(inputs).double(), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(net.cut(choices)(inputs).double(), expected, atol=1e-5, rtol=1e-5)


@st.composite
def shapes(draw):
    def ascending(values, least=1):
        return tuple(sorted(draw(st.sets(st.sampled_from(values), min_size=least, max_size=3))))

    stages = tuple(
        ElasticStage(
            draw(st.sampled_from([4, 5])),
            draw(st.sampled_from([1, 2])),
            ascending([1, 2, 3]),
            ascending([1, 3, 5, 7]),
            ascending([1, 2, 3]),
        )
        for _ in range(draw(st.integers(1, 2)))
    )
    activation = draw(st.sampled_from(["relu", "relu6", "hardswish"]))
    return ElasticShape(stages, stem=4, head=6, resolutions=ascending([5, 6, 8]), activation=activation, classes=3)


@settings(max_examples=25, deadline=None)
@given(shapes(), st.integers(0, 2**31))
def test_a_cut_module_computes_what_the_active_sub_network_does(shape, seed):
    net = shaken(shape, seed % 7)
    choices = shape.architecture.sample(np.random.default_rng(seed))
    inputs = resized(images(channels=1), choices["resolution"])
    plain = net.cut(choices)
    with torch.no_grad():
        torch.testing.assert_close(plain(inputs), net.activate(choices)(inputs), atol=1e-5, rtol=1e-5)
        assert not plain.training
        torch.testing.assert_close(plain.train()(inputs), net.train()(inputs), atol=1e-4, rtol=1e-4)


def test_a_cut_module_is_plain_and_its_own():
    net = shaken()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    plain = net.cut(SHAPE.architecture.smallest())
    leaves = {type(module) for module in plain.modules() if not list(module.children())}
    assert leaves == {nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.AdaptiveAvgPool2d, nn.Linear}
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.fill_(7.0)
    plain.train()(images())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_layers_keep_their_names_in_all_sub_networks():
    net = shaken()
    space = SHAPE.architecture
    large, small = (dict(net.cut(choices).named_modules()) for choices in (space.largest(), space.smallest()))
    assert set(small) < set(large)
    assert isinstance(small["stage2.block1.depthwise.conv"], nn.Conv2d)


def test_a_block_beyond_the_depth_has_neither_kernel_nor_expansion():
    space = SHAPE.architecture
    small = space.smallest()
    assert small["stage1.depth"] == 1
    assert not {name for name in small if name.startswith(("stage1.block2", "stage1.block3"))}
    assert {"stage2.block2.kernel", "stage2.block2.expansion"} <= set(small)
    assert len(space.dimensions) == 1 + 2 + 2 * 6
    for seed in range(20):
        choices = space.sample(np.random.default_rng(seed))
        for stage in (1, 2):
            running = {b for b in (1, 2, 3) if f"stage{stage}.block{b}.kernel" in choices}
            assert running == set(range(1, choices[f"stage{stage}.depth"] + 1))
            assert running == {b for b in (1, 2, 3) if f"stage{stage}.block{b}.expansion" in choices}


def test_small_kernels_begin_as_centres_and_learn_by_their_matrices():
    layer = ElasticDepthwise(3, (3, 5, 7))
    nn.init.normal_(layer.weight)
    torch.testing.assert_close(layer.kernel(5, 2), layer.weight[:2, :, 1:-1, 1:-1])
    torch.testing.assert_close(layer.kernel(3, 3), layer.weight[:, :, 2:-2, 2:-2])
    torch.autograd.backward(layer.kernel(5, 3).sum())
    assert layer.matrices["7to5"].grad is not None
    assert layer.matrices["5to3"].grad is None
    with torch.no_grad():
        layer.matrices["7to5"].mul_(2.0)
    torch.testing.assert_close(layer.kernel(3, 3), 2 * layer.weight[:, :, 2:-2, 2:-2])


def test_training_a_narrow_sub_network_moves_the_statistics_of_its_channels_only():
    net = shaken().train()
    norm = net.blocks["stage1_block1"].expand_norm
    before = norm.running_mean.clone()
    net.activate(SHAPE.architecture.smallest())(images())
    assert (norm.running_mean[:6] != before[:6]).all()
    assert torch.equal(norm.running_mean[6:], before[6:])


def test_sorting_leaves_the_function_and_puts_important_channels_first():
    net, space = shaken(), SHAPE.architecture
    inputs = images()
    with torch.no_grad():
        before = net.activate(space.largest())(inputs)
        sort_channels(net)
        torch.testing.assert_close(net(inputs), before, atol=1e-5, rtol=1e-5)
    for block in net.blocks.values():
        importance = block.project.weight.abs().sum((0, 2, 3))
        assert (importance.diff() <= 0).all()


def test_sorting_keeps_the_function_of_expansions_that_are_open():
    net, space = shaken(), SHAPE.architecture
    values = dict(space.largest())
    opened = space.choices(values | {name: 2 for name in values if name.startswith("stage1") and "expansion" in name})
    smallest = space.choices(values | {name: 1 for name in values if name.startswith("stage1") and "expansion" in name})
    inputs = images()
    with torch.no_grad():
        before = [net.activate(choices)(inputs) for choices in (space.largest(), opened, smallest)]
        sort_channels(net, opened=2)
        after = [net.activate(choices)(inputs) for choices in (space.largest(), opened, smallest)]
    for one, other in zip(before[:2], after[:2], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before[2], after[2], atol=1e-3)


def test_order_of_channels_by_hand():
    shape = ElasticShape((ElasticStage(2, 1, (1,), (3,), (1, 2, 3)),), stem=2, head=2, resolutions=(4,))
    block = ElasticNet(shape).blocks["stage1_block1"]
    with torch.no_grad():
        block.project.weight.zero_()
        block.project.weight[0, :, 0, 0] = torch.tensor([1.0, -2.0, 3.0, 3.0, -5.0, 4.0])
        block.project.weight[1, :, 0, 0] = torch.tensor([0.0, 0.5, 0.0, 0.0, 0.0, -2.0])
    assert channel_order(block).tolist() == [5, 4, 2, 3, 1, 0]
    assert channel_order(block, 2).tolist() == [2, 3, 1, 0, 5, 4]
    assert channel_order(block, 3).tolist() == [1, 0, 2, 3, 5, 4]


def test_statistics_are_means_over_batches_of_each_batch():
    net, space = shaken(), SHAPE.architecture
    choices = space.smallest()
    batches = [images(5, 12, seed=seed) for seed in (1, 2, 3)]
    plain = recalibrated(net.cut(choices), batches, choices["resolution"])
    assert not plain.training
    with torch.no_grad():
        first = [plain.stem.conv(resized(batch, 7)) for batch in batches]
    torch.testing.assert_close(plain.stem.norm.running_mean, sum(y.mean((0, 2, 3)) for y in first) / 3)
    torch.testing.assert_close(plain.stem.norm.running_var, sum(y.var((0, 2, 3)) for y in first) / 3)


def test_with_own_statistics_a_sub_network_computes_what_it_does_in_training():
    net, choices = shaken().train(), SHAPE.architecture.smallest()
    batch = resized(images(256), choices["resolution"])
    with torch.no_grad():
        expected = net.activate(choices)(batch)
        plain = recalibrated(net.cut(choices), [batch])
        # the running variance is the unbiased one, a factor 256 * 2 * 2 / (256 * 2 * 2 - 1) in the last layers
        torch.testing.assert_close(plain(batch), expected, atol=5e-3, rtol=5e-3)
        assert not torch.allclose(net.cut(choices)(batch), expected, atol=0.1)


def test_resizing_is_linear_between_pixel_centres():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert resized(ramp, 8) is ramp
    assert resized(ramp, None) is ramp
    torch.testing.assert_close(resized(ramp, 4)[0, 0, 0], torch.tensor([0.5, 2.5, 4.5, 6.5]))
    torch.testing.assert_close(resized(ramp, 6)[0, 0, 2], torch.arange(6) * 8 / 6 + 8 / 12 - 0.5)


def test_width_multiplies_the_channels():
    half = SHAPE.scaled(0.5, divisor=2)
    assert (half.stem, half.head, [stage.width for stage in half.stages]) == (4, 4, [4, 4])
    assert SHAPE.scaled(1.0) is SHAPE
    assert SHAPE.scaled(0.01).stem == 8
    assert ElasticNet(half)(images()).shape == (3, 4)


@pytest.mark.parametrize(
    "change",
    [
        {"depths": (2, 1)},
        {"depths": (0, 1)},
        {"kernels": (2, 3)},
        {"kernels": ()},
        {"expansions": (2, 2)},
        {"width": 0},
        {"stride": 3},
    ],
)
def test_impossible_stages_are_refused(change):
    with pytest.raises(InvalidInput):
        ElasticStage(**({"width": 8, "stride": 1, "depths": (1,), "kernels": (3,), "expansions": (2,)} | change))


@pytest.mark.parametrize(
    "change", [{"stages": ()}, {"stem": 0}, {"resolutions": (9, 7)}, {"activation": "gelu"}, {"stem_stride": 4}]
)
def test_impossible_shapes_are_refused(change):
    with pytest.raises(InvalidInput):
        ElasticShape(**({"stages": SHAPE.stages, "stem": 6, "head": 6, "resolutions": (8,)} | change))


def test_refusals():
    net = shaken()
    with pytest.raises(InvalidInput, match="stage1"):
        net.activate({"resolution": 7})
    with pytest.raises(InvalidInput, match="one of"):
        net.cut(dict(SHAPE.architecture.largest()) | {"stage1.block1.kernel": 9})
    with pytest.raises(InvalidInput, match="calibration"):
        recalibrated(net.cut(SHAPE.architecture.largest()), [])
    with pytest.raises(InvalidInput, match="positive"):
        SHAPE.scaled(0.0)
