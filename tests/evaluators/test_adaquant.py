"""AdaQuant against autograd in float64 on the data itself, in every format, with the scales that it learns."""

import pytest
import torch
from bitfront.evaluators.quantizers import Layout, choose_scales, quantize_weight
from bitfront.evaluators.reconstruction import AdaQuant, Blocks, LayerProblem, Moment, adaquant
from bitfront.formats import Format

FORMATS = ["w2", "w3", "w4", "w3t", "w3z", "w3tz", "w4g32", "w4g64z", "w3b128", "we4m3", "we2m1g32"]
FORMATS += ["wmxfp8", "wmxfp4", "wnvfp4", "nf4"]


def problem_of(name, channels, elements, rows, blocks=None, seed=0):
    """A layer with correlated inputs that are not centred, in one format; and the inputs [blocks, rows, elements]."""
    generator = torch.Generator().manual_seed(seed)
    blocks, target = blocks or Blocks(), Format.parse(name).weight
    weight = torch.randn(channels, elements, generator=generator)
    width = elements // blocks.count if blocks.across else elements
    mixing = torch.randn(blocks.count, width, width, generator=generator)
    inputs = torch.randn(blocks.count, rows, width, generator=generator) @ mixing + 0.5
    scales = choose_scales(weight, target, 0)
    return LayerProblem(weight, Layout.of(weight, target, 0), scales, Moment(inputs.mT @ inputs / rows, blocks)), inputs


def by_autograd(problem, inputs, method):
    """The published objective on the data itself: the lowest error of every channel that Adam meets, float64."""
    weight, data = problem.blocks[0].double(), inputs[0].double()
    low, high = problem.target.levels
    start = problem.scales.scale.double()[:, None]
    zero_start = torch.zeros_like(start) if problem.target.symmetric else problem.scales.zero_point.double()[:, None]
    shift, logarithm = torch.zeros_like(weight, requires_grad=True), torch.zeros_like(start, requires_grad=True)
    zero = zero_start.clone().requires_grad_(not problem.target.symmetric)
    rates = [method.rate, method.scale_rate, method.scale_rate * 2**problem.target.bits]
    adam = torch.optim.Adam([{"params": [p], "lr": r} for p, r in zip((shift, logarithm, zero), rates, strict=True)])
    best, first = torch.full((len(weight),), torch.inf), None
    for done in range(method.steps + 1):
        scale = start * logarithm.exp()
        point = zero + (zero.round().clamp(low, high) - zero).detach()
        ratio = (weight + shift * start) / scale
        clipped = torch.maximum(torch.minimum(ratio, high - point), low - point)
        rounded = (ratio.round() + point).clamp(low, high) - point
        value = scale * (clipped + (rounded - clipped).detach())
        error = ((value - weight) @ data.T).square().mean(1)
        first = error.detach() if first is None else first
        best = torch.minimum(best, error.detach())
        for group, rate in zip(adam.param_groups, rates, strict=True):
            group["lr"] = rate * (method.steps - done) / (method.steps + 1)
        adam.zero_grad()
        (error / first).sum().backward()
        adam.step()
    return best


@pytest.mark.parametrize("name", ["w3", "w3z"])
def test_the_published_objective_by_autograd(name):
    method = AdaQuant(steps=20)
    problem, inputs = problem_of(name, 6, 10, 80)
    expected = by_autograd(problem, inputs, method)
    (found,) = method([problem])
    torch.testing.assert_close(problem.errors(found).double(), expected.double(), rtol=1e-3, atol=0.0)
    assert bool((expected < 0.99 * problem.errors(problem.nearest)).any())


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_on_its_grid_and_never_worse_than_nearest(name):
    problem, inputs = problem_of(name, 16, 128, 60)
    (found,) = AdaQuant(steps=60)([problem])
    assert found.codes.dtype == problem.nearest.codes.dtype
    assert found.codes.shape == problem.weight.shape
    again = quantize_weight(found.dequantize(), found.target, found.scales, 0)
    torch.testing.assert_close(again.dequantize(), found.dequantize(), rtol=1e-5, atol=1e-6)

    def errors(weight):
        return ((weight - problem.weight).double() @ inputs[0].double().T).square().sum(1)

    near, reached = errors(problem.nearest.dequantize()), errors(found.dequantize())
    if problem.target.granularity in ("tensor", "block"):
        near, reached = near.sum(), reached.sum()
    assert bool((reached <= near * (1 + 1e-5)).all())
    assert float(reached.sum()) < 0.9 * float(near.sum())


@pytest.mark.parametrize("name", ["w3", "w3t", "w4g32", "w3b128", "we4m3", "nf4"])
def test_scales_are_learned_and_stay_representable(name):
    problem, _ = problem_of(name, 16, 128, 60)
    (found,) = AdaQuant(steps=30)([problem])
    assert found.scale.shape == problem.scales.scale.shape
    assert not torch.equal(found.scale, problem.scales.scale)
    assert bool((found.scale > 0).all())
    if problem.target.scale == "fp16":
        assert torch.equal(found.scale.half().float(), found.scale)
    assert not found.scale.requires_grad


@pytest.mark.parametrize("name", ["wmxfp8", "wmxfp4", "wnvfp4"])
def test_scales_of_block_formats_stay(name):
    problem, _ = problem_of(name, 16, 128, 60)
    (found,) = AdaQuant(steps=30)([problem])
    assert torch.equal(found.scale, problem.scales.scale)
    assert found.scales.tensor_scale is problem.scales.tensor_scale
    assert not torch.equal(found.codes, problem.nearest.codes)


@pytest.mark.parametrize("name", ["w2z", "w4z", "w4g64z"])
def test_zero_points_are_codes(name):
    changed = False
    for seed in range(3):
        problem, _ = problem_of(name, 16, 128, 60, seed=seed)
        zero = AdaQuant(steps=60, scale_rate=0.02)([problem])[0].scales.zero_point
        low, high = problem.target.levels
        assert torch.equal(zero, zero.round().clamp(low, high))
        changed = changed or not torch.equal(zero, problem.scales.zero_point)
    assert changed


@pytest.mark.parametrize("blocks", [Blocks(3), Blocks(2, across=True)])
def test_blocks(blocks):
    problem, inputs = problem_of("w3", 6, 16, 50, blocks)
    (found,) = AdaQuant()([problem])
    difference = problem.split(found.dequantize()) - problem.blocks
    expected = blocks.by_channel((difference.double() @ inputs.double().mT).square().mean(2))
    torch.testing.assert_close(problem.errors(found).double(), expected, rtol=1e-4, atol=1e-6)
    assert float(expected.sum()) < 0.8 * float(problem.errors(problem.nearest).sum())


def test_weights_move_by_more_than_a_level():
    problem, _ = problem_of("w4", 16, 64, 60)
    (found,) = AdaQuant(rate=0.05)([problem])
    ratio = problem.blocks[0] / problem.layout.expand(found.scale)
    inside = (ratio > -8) & (ratio < 7)  # the others are clipped
    assert float((found.codes - ratio)[inside].abs().max()) > 1  # beyond both neighbours, where AdaRound does not go


def test_no_data_leaves_nearest():
    problem, _ = problem_of("w3", 8, 16, 40)
    silent = LayerProblem(problem.weight, problem.layout, problem.scales, Moment(torch.zeros(1, 16, 16), Blocks()))
    (found,) = AdaQuant()([silent])
    assert torch.equal(found.codes, problem.nearest.codes)
    assert torch.equal(found.scale, problem.scales.scale)


@pytest.mark.parametrize(("size", "rate"), [(1.5e-7, 0.1), (1.2e5, 0.002)])
def test_fp16_scales_stay_positive_and_finite(size, rate):
    """At 2^-24 the next smaller fp16 is 0, above 65504 the next is infinity."""
    problem, _ = problem_of("w4g32", 8, 64, 60)
    weight = size * problem.weight
    scales = choose_scales(weight, problem.target, 0)
    scaled = LayerProblem(weight, problem.layout, scales, problem.moment)
    seen = []
    method = AdaQuant(steps=60, scale_rate=rate)
    with pytest.MonkeyPatch.context() as patch:
        offer = adaquant._Best.offer
        patch.setattr(adaquant._Best, "offer", lambda best, *given: (seen.append(given), offer(best, *given))[1])
        (found,) = method([scaled])
    for errors, _, tried in seen:
        assert bool(torch.isfinite(errors).all())
        assert bool(((tried.scale > 0) & (tried.scale <= 65504)).all())
    assert len(seen) == 61
    assert float(scaled.errors(found).sum()) <= float(scaled.errors(scaled.nearest).sum())
