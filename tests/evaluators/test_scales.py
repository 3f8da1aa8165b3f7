"""Scales of least squared error against a dense search."""

import pytest
import torch
from bitfront.evaluators.quantizers import choose_scales, quantize_weight
from bitfront.evaluators.quantizers.scale_sweep import is_short, sweep_rows
from bitfront.formats import TensorFormat

BITS = range(2, 9)


def weight_format(bits):
    return TensorFormat("int", bits, "channel")


def mse_scales(weight, target, axis):
    return choose_scales(weight, target, axis, "mse").scale


def rounded(weight, bits):
    target = weight_format(bits)
    return quantize_weight(weight, target, choose_scales(weight, target, 0), 0).dequantize()


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
    assert float((rounded(rows, bits) - rows).norm() / rows.norm()) < 1e-6


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("constant", [0.3, -0.3, 1e-20, -1e20])
def test_constant_channels_are_exact(bits, constant):
    rows = torch.full((2, 16), constant)
    torch.testing.assert_close(rounded(rows, bits), rows, rtol=1e-6, atol=0)


def test_a_channel_of_zeros_gets_one_and_disturbs_no_other():
    rows = torch.randn(3, 50)
    alone = mse_scales(rows, weight_format(4), 0)
    rows_with_zeros = torch.cat([rows, torch.zeros(1, 50)])
    scales = mse_scales(rows_with_zeros, weight_format(4), 0)
    assert scales[3] == 1
    torch.testing.assert_close(scales[:3], alone)
    assert rounded(rows_with_zeros, 4)[3].abs().max() == 0


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


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
@pytest.mark.parametrize("elements", [2, 9, 25])
def test_short_rows_are_optimal_among_all_sets_of_codes(bits, elements):
    """Every set of codes that rounding can make stands between two neighbouring breakpoints |w| / (j - 1/2)."""
    target = weight_format(bits)
    rows = torch.randn(12, elements, generator=torch.Generator().manual_seed(bits))
    assert is_short(target, elements)
    steps = torch.arange(1, 2 ** (bits - 1) + 1) - 0.5
    points = (rows.abs().double()[:, :, None] / steps).flatten(1).sort(1).values
    found = squared_error(rows, mse_scales(rows, target, 0), bits)
    low, high = target.levels
    for row, ends, error in zip(rows.double(), points, found, strict=True):
        scales = torch.cat([(ends[1:] + ends[:-1]) / 2, ends[-1:] * 0.999999])[:, None]
        codes = (row / scales).round().clamp(low, high)
        fitted = ((codes * row).sum(1) / codes.square().sum(1).clamp(min=1))[:, None]
        best = (row - codes * fitted).square().sum(1).min()
        assert float(error) <= float(best) * (1 + 1e-4) + 1e-9


def test_long_rows_and_many_bits_are_searched():
    assert not is_short(weight_format(4), 4096)
    assert not is_short(weight_format(8), 9)
    assert not is_short(TensorFormat("float", 4, "channel", True, 0, 2, 1), 9)


@pytest.mark.parametrize("magnitude", [1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_the_sweep_does_not_leave_float32(magnitude):
    rows = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    scales = sweep_rows(rows * magnitude, weight_format(4))
    torch.testing.assert_close(scales / magnitude, sweep_rows(rows, weight_format(4)), rtol=1e-4, atol=0)


def test_the_sweep_in_parts_is_the_sweep():
    rows = torch.randn(700, 250, generator=torch.Generator().manual_seed(0))
    scales = sweep_rows(rows, weight_format(4))
    for index in (0, 520, 523, 699):
        assert torch.equal(sweep_rows(rows[index : index + 1], weight_format(4))[0], scales[index])


@pytest.mark.parametrize("bits", [7, 8])
def test_groups_of_many_bits_against_a_dense_search(bits):
    rows = torch.randn(60, 32, generator=torch.Generator().manual_seed(0))
    scales = mse_scales(rows, TensorFormat("int", bits, "group", group=32), 0)[:, 0]
    assert float(squared_error(rows, scales, bits).sum()) <= 1.2 * float(dense(rows, bits).sum())
