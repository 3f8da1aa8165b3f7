"""LSQ against the equations of the paper, and against the quantizers that later use what was learnt."""

import math

import pytest
import torch
from bitfront.evaluators.finetuning.learned_step import LearnedActivation, LearnedWeight, lsq
from bitfront.evaluators.quantizers import Range, activation_quantizer, choose_scales, quantize_weight
from bitfront.formats import Format
from hypothesis import given, settings
from hypothesis import strategies as st


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(
    st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20),
    st.floats(0.0625, 2, width=32),
    st.sampled_from([(-2, 1), (-8, 7), (0, 15), (-3, 12)]),
    st.floats(0.01, 1),
)
def test_equations_1_to_5(values, step, levels, g):
    low, high = levels
    v = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    s = torch.tensor(step, dtype=torch.float64, requires_grad=True)
    upstream = torch.arange(1.0, len(values) + 1, dtype=torch.float64)
    found = lsq(v, s, low, high, g)
    found.backward(upstream)
    expected_s = 0.0
    for index, value in enumerate(values):
        ratio = value / step
        assert float(found[index].detach()) == pytest.approx(round(min(max(ratio, low), high)) * step)
        if low < ratio < high:
            assert float(v.grad[index]) == pytest.approx(float(upstream[index]))
            slope = -ratio + round(ratio)
        elif ratio < low or ratio > high:
            assert float(v.grad[index]) == 0
            slope = low if ratio < low else high
        else:  # on the edge the derivative jumps
            return
        expected_s += float(upstream[index]) * slope * g
    assert float(s.grad) == pytest.approx(expected_s, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ["w2", "w3", "w4", "w8", "w4t", "w4z", "w4g32", "w3g64z", "w4b128"])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_weight_begins_as_calibrated_and_stays_what_its_scales_say(name, axis):
    target, weight = Format.parse(name).weight, drawn(128, 128)
    learned = LearnedWeight(weight, target, choose_scales(weight, target, axis), axis)
    for _ in range(2):
        wanted = quantize_weight(weight, target, learned.scales(), axis).dequantize()
        assert torch.equal(learned(weight).detach(), wanted)
        learned.log_ratio.data += 0.3 * drawn(*learned.log_ratio.shape, seed=1)
    if target.scale == "fp16":
        assert torch.equal(learned.scales().scale.half().float(), learned.scales().scale)
    assert bool((learned.scales().scale > 0).all())


def test_the_gradient_of_a_weight_and_of_its_steps():
    weight = drawn(4, 50).requires_grad_()
    target = Format.parse("w3").weight
    learned = LearnedWeight(weight.detach(), target, choose_scales(weight, target, 0), 0)
    learned(weight).sum().backward()
    ratio = (weight / learned.begin[:, None]).detach()
    inside = (ratio > -4) & (ratio < 3)
    assert torch.equal(weight.grad, inside.float())
    slope = torch.where(inside, ratio.round() - ratio, ratio.clamp(-4, 3)).sum(1)
    expected = slope * learned.begin / math.sqrt(50 * 3)  # by the chain rule d s / d log s = s
    torch.testing.assert_close(learned.log_ratio.grad, expected)


@pytest.mark.parametrize("name", ["w8a8", "w8a8s", "w4a4", "w8a2", "w8a8c", "w8a4cs"])
def test_an_activation_begins_as_calibrated_and_its_range_gives_the_step_back(name):
    target, value = Format.parse(name).activation, drawn(6, 5, 16) + 0.3
    low, high = value.aminmax() if target.granularity == "tensor" else value.reshape(-1, 16).aminmax(dim=0)
    learned = LearnedActivation(target, Range(low, high))
    assert torch.equal(learned(value).detach(), activation_quantizer(target, Range(low, high))(value))
    learned.log_ratio.data += 0.5 * drawn(*learned.log_ratio.shape, seed=1)
    again = LearnedActivation(target, learned.range())
    assert torch.equal(again.zero_point, learned.zero_point)
    torch.testing.assert_close(again.step, learned.step, rtol=1e-6, atol=0)
    torch.testing.assert_close(activation_quantizer(target, learned.range())(value), again(value), rtol=0, atol=0)


def test_the_gradient_of_an_activation_step():
    value = drawn(3, 10).requires_grad_()
    learned = LearnedActivation(Format.parse("w8a4").activation, Range(torch.tensor(-1.0), torch.tensor(1.5)))
    learned(value).sum().backward()
    step, zero = float(learned.begin), float(learned.zero_point)
    ratio = (value / step).detach()
    inside = (ratio > -zero) & (ratio < 15 - zero)
    assert torch.equal(value.grad, inside.float())
    slope = torch.where(inside, ratio.round() - ratio, ratio.clamp(-zero, 15 - zero)).sum()
    assert float(learned.log_ratio.grad) == pytest.approx(float(slope) * step / math.sqrt(10 * 15), rel=1e-4)


def test_zero_stays_zero():
    learned = LearnedActivation(Format.parse("w8a8").activation, Range(torch.tensor(0.2), torch.tensor(3.0)))
    assert float(learned(torch.zeros(1)).detach()) == 0
    empty = LearnedActivation(Format.parse("w8a8").activation, Range(torch.tensor(0.0), torch.tensor(0.0)))
    assert torch.isfinite(empty(drawn(4)).detach()).all()


@pytest.mark.parametrize("size", [1e-6, 3e5])
def test_fp16_steps_begin_as_calibrated_at_both_ends(size):
    """Scales of 1e-7 are subnormal fp16, and beyond 65504 there is none."""
    target, weight = Format.parse("w4g128").weight, size * drawn(16, 256)
    scales = choose_scales(weight, target, 0)
    learned = LearnedWeight(weight, target, scales, 0)
    assert torch.equal(learned.scales().scale, scales.scale)
    assert torch.equal(learned(weight).detach(), quantize_weight(weight, target, scales, 0).dequantize())
    for move in (-40.0, 40.0):
        learned.log_ratio.data.fill_(move)
        step = learned.scales().scale
        assert bool(((step > 0) & (step <= 65504)).all())


def test_steps_lie_where_the_weight_does():
    target, weight = Format.parse("w3g64z").weight, drawn(128, 128)
    learned = LearnedWeight(weight.to("meta"), target, choose_scales(weight, target, 0), 0)
    assert learned(weight.to("meta")).device.type == "meta"
    assert learned.log_ratio.device.type == "meta"
    found = Range(torch.tensor(-1.0), torch.tensor(1.5))
    entering = LearnedActivation(Format.parse("w8a8").activation, found, torch.device("meta"))
    assert entering(weight.to("meta")).device.type == "meta"
    assert entering.log_ratio.device.type == "meta"
