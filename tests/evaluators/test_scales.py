"""Scales of least squared error against a dense search."""

import pytest
import torch
from bitfront.evaluators.quantizers import mse_scales, quantize_weight
from bitfront.formats import TensorFormat

BITS = range(2, 9)


def weight_format(bits):
    return TensorFormat("int", bits, "channel")


def squared_error(rows, scale, bits):
    """Of each row, in float64."""
    low, high = weight_format(bits).levels
    column = scale.double()[:, None]
    return (rows.double() - (rows.double() / column).round().clamp(low, high) * column).square().sum(1)


def dense(rows, bits, count=2500):
    """The least squared error of each row over many scales, from 1/1000 to twice the one that clips nothing."""
    unit = rows.abs().amax(1) / (2 ** (bits - 1) - 1)
    found = [squared_error(rows, unit * fraction, bits) for fraction in torch.logspace(-3, 0.31, count)]
    return torch.stack(found).amin(0)


def distributions():
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    uniform = torch.rand(4, 576, generator=generator)
    spike = normal(4, 576)
    spike[:, 0] = torch.tensor([20.0, -50.0, 1000.0, 8.0])
    return {
        "normal": normal(4, 576),
        "depthwise": normal(24, 9),
        "first layer": normal(8, 27),
        "wide": normal(1, 6000) * 0.02,
        "sparse": normal(4, 576) * (normal(4, 576) > 1.6),
        "uniform": uniform * 2 - 1,
        "one-sided": uniform,
        "laplace": torch.distributions.Laplace(0.0, 1.0).icdf(uniform.clamp(1e-4, 1 - 1e-4)),
        "student": normal(4, 1152) / normal(4, 1152, 3).square().mean(-1).sqrt(),
        "outlier": spike,
    }


DISTRIBUTIONS = distributions()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_against_a_dense_search(name, bits):
    rows = DISTRIBUTIONS[name]
    found = squared_error(rows, mse_scales(rows, weight_format(bits), 0), bits)
    limit = {6: 1.02, 7: 1.1, 8: 1.15}.get(bits, 1.05 if name == "sparse" else 1.01)
    assert bool((found <= limit * dense(rows, bits)).all()), (found / dense(rows, bits)).max()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_never_worse_than_the_scale_of_the_maximum(name, bits):
    rows = DISTRIBUTIONS[name]
    for high in (2 ** (bits - 1) - 1, 2 ** (bits - 1) - 0.5):
        plain = squared_error(rows, rows.abs().amax(1) / high, bits)
        found = squared_error(rows, mse_scales(rows, weight_format(bits), 0), bits)
        slack = 1.0001 if high == 2 ** (bits - 1) - 1 else 1.15
        assert bool((found <= slack * plain).all())


@pytest.mark.parametrize("bits", BITS)
def test_what_integers_can_hold_is_held_exactly(bits):
    """Codes times a power of two, as many levels as there are: no error is left."""
    generator = torch.Generator().manual_seed(bits)
    low, high = weight_format(bits).levels
    codes = torch.randint(low, high + 1, (6, 200), generator=generator)
    codes[:, 0], codes[:, 1] = high, low
    rows = codes.float() * 2.0 ** torch.arange(-3, 3)[:, None]
    made = quantize_weight(rows, weight_format(bits), mse_scales(rows, weight_format(bits), 0), 0)
    assert float((made.dequantize() - rows).norm() / rows.norm()) < 1e-6


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("constant", [0.3, -0.3, 1e-20, -1e20])
def test_constant_channels_are_exact(bits, constant):
    rows = torch.full((2, 16), constant)
    made = quantize_weight(rows, weight_format(bits), mse_scales(rows, weight_format(bits), 0), 0)
    torch.testing.assert_close(made.dequantize(), rows, rtol=1e-6, atol=0)


def test_a_channel_of_zeros_gets_one_and_disturbs_no_other():
    rows = torch.randn(3, 50)
    alone = mse_scales(rows, weight_format(4), 0)
    rows_with_zeros = torch.cat([rows, torch.zeros(1, 50)])
    scales = mse_scales(rows_with_zeros, weight_format(4), 0)
    assert scales[3] == 1
    torch.testing.assert_close(scales[:3], alone)
    assert quantize_weight(rows_with_zeros, weight_format(4), scales, 0).dequantize()[3].abs().max() == 0


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_scales_are_equivariant(bits):
    rows = DISTRIBUTIONS["normal"]
    scales = mse_scales(rows, weight_format(bits), 0)
    assert torch.equal(mse_scales(rows * 0.25, weight_format(bits), 0), scales * 0.25)  # exact in floating point
    third = mse_scales(rows / 3, weight_format(bits), 0)
    torch.testing.assert_close(
        squared_error(rows / 3, third, bits) * 9, squared_error(rows, scales, bits), rtol=2e-3, atol=0
    )


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_axis_and_type(axis, kind):
    weight = torch.randn(5, 7, 3, 3).to(kind)
    scales = mse_scales(weight, weight_format(4), axis)
    assert scales.dtype == torch.float32
    rows = weight.float().movedim(axis, 0).flatten(1)
    torch.testing.assert_close(scales, mse_scales(rows, weight_format(4), 0))
    assert scales.shape == (weight.shape[axis],)
    assert bool((scales > 0).all())


def test_channels_do_not_depend_on_their_neighbours():
    """Rows are searched in chunks; the chunk that a row falls into must not matter."""
    rows = torch.randn(300, 2000)
    scales = mse_scales(rows, weight_format(4), 0)
    for index in (0, 130, 131, 299):
        torch.testing.assert_close(mse_scales(rows[index : index + 1], weight_format(4), 0)[0], scales[index])


def test_no_gradient_and_no_change():
    weight = torch.nn.Parameter(torch.randn(3, 9))
    before = weight.detach().clone()
    assert not mse_scales(weight, weight_format(4), 0).requires_grad
    assert torch.equal(weight, before)
