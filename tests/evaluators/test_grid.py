"""Elements and codes of every number format, against ml_dtypes, torch's casts and a naive float64 search."""

import itertools
import math

import ml_dtypes
import numpy as np
import pytest
import torch
from bitfront.evaluators.quantizers import codebook, decode, encode, nearest
from bitfront.evaluators.quantizers.grid import NF4_VALUES
from bitfront.formats import Format, TensorFormat
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

KNOWN = {
    (4, 3): ml_dtypes.float8_e4m3fn,
    (5, 2): ml_dtypes.float8_e5m2,
    (3, 4): ml_dtypes.float8_e3m4,
    (2, 3): ml_dtypes.float6_e2m3fn,
    (3, 2): ml_dtypes.float6_e3m2fn,
    (2, 1): ml_dtypes.float4_e2m1fn,
}
SPLITS = [(e, m) for e, m in itertools.product(range(1, 8), range(7)) if 3 <= 1 + e + m <= 8]
NF4 = Format.parse("nf4").weight
INTEGERS = [TensorFormat("int", bits, "tensor", symmetric) for bits in range(2, 9) for symmetric in (True, False)]


def minifloat(exponent, mantissa):
    return TensorFormat("float", 1 + exponent + mantissa, "tensor", True, 0, exponent, mantissa)


NARROW = [*(minifloat(*split) for split in SPLITS), NF4, *INTEGERS]


def label(target):
    return f"{target.number}-e{target.exponent_bits}m{target.mantissa_bits}-{target.bits}-{target.symmetric}"


def elements_of(exponent, mantissa):
    """Every finite magnitude, in float64 and without bit tricks."""
    bias = 2 ** (exponent - 1) - 1
    found = []
    for e, m in itertools.product(range(2**exponent), range(2**mantissa)):
        found.append(2.0 ** (1 - bias) * m / 2**mantissa if e == 0 else 2.0 ** (e - bias) * (1 + m / 2**mantissa))
    if (exponent, mantissa) == (4, 3):
        found = found[:-1]
    elif (exponent, mantissa) in ((5, 2), (3, 4)):
        found = found[: -(2**mantissa)]
    return np.array(found)


def interesting(target, count=4000):
    """Random values of all sizes, every element, every middle between two, and what lies next to them."""
    rng = np.random.default_rng(target.bits)
    values = codebook(target).numpy().astype(np.float64) if target.number != "int" else np.arange(-300.0, 300.0)
    values = np.unique(values[np.isfinite(values)])
    middles = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    spread = rng.normal(size=count) * 2.0 ** rng.uniform(-12, 10, count) * target.largest / 2**8
    around = [np.nextafter(middles, np.float32(np.inf)), np.nextafter(middles, np.float32(-np.inf))]
    found = np.concatenate([spread.astype(np.float32), values.astype(np.float32), middles, *around])
    return np.clip(found, -np.float32(target.largest), np.float32(target.largest))


@pytest.mark.parametrize("split", KNOWN)
def test_every_code_means_what_ml_dtypes_says(split):
    target, kind = minifloat(*split), KNOWN[split]
    codes = np.arange(2**target.bits, dtype=np.uint8)
    expected = codes.view(kind).astype(np.float32)
    given_ = decode(torch.from_numpy(codes), target).numpy()
    np.testing.assert_array_equal(given_[np.isfinite(expected)], expected[np.isfinite(expected)])
    assert np.isnan(given_[~np.isfinite(expected)]).all()
    finite = torch.from_numpy(codes[np.isfinite(expected)])
    assert torch.equal(encode(decode(finite, target), target), finite)
    assert target.largest == float(ml_dtypes.finfo(kind).max)


@pytest.mark.parametrize("split", KNOWN)
def test_rounding_is_that_of_ml_dtypes(split):
    target, kind = minifloat(*split), KNOWN[split]
    value = interesting(target)
    expected = value.astype(kind)
    rounded = nearest(torch.from_numpy(value), target)
    np.testing.assert_array_equal(rounded.numpy(), expected.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(rounded.numpy()), np.signbit(expected.astype(np.float32)))
    np.testing.assert_array_equal(encode(rounded, target).numpy(), expected.view(np.uint8))


@pytest.mark.parametrize(("split", "kind"), [((4, 3), torch.float8_e4m3fn), ((5, 2), torch.float8_e5m2)])
def test_rounding_is_that_of_torch(split, kind):
    target = minifloat(*split)
    value = torch.from_numpy(interesting(target))
    assert torch.equal(nearest(value, target), value.to(kind).float())
    assert torch.equal(encode(nearest(value, target), target), value.to(kind).view(torch.uint8))


@pytest.mark.parametrize("split", SPLITS)
def test_minifloats_against_a_search_in_float64(split):
    target, magnitudes = minifloat(*split), elements_of(*split)
    assert float(magnitudes.max()) == target.largest
    value = interesting(target, 500)
    distance = np.abs(np.abs(value.astype(np.float64))[:, None] - magnitudes)
    order = np.argsort(distance, axis=1, kind="stable")[:, :2]
    near, other = order[:, 0], order[:, 1]
    rows = np.arange(len(value))
    tied = distance[rows, near] == distance[rows, other]
    even = np.where(other % 2 == 0, other, near) if split[1] else np.maximum(near, other)
    # without mantissa bits 0 and 1 of the lowest step are still an even and an odd multiple of it
    even = np.where((np.minimum(near, other) == 0) & (split[1] == 0), 0, even)
    expected = magnitudes[np.where(tied, even, near)] * np.sign(value)
    np.testing.assert_array_equal(nearest(torch.from_numpy(value), target).numpy(), expected.astype(np.float32))


def test_ties_without_mantissa_bits_go_up_but_for_half_of_the_smallest_element():
    target = minifloat(3, 0)  # 0, 1/4, 1/2, 1, 2, ...
    value = torch.tensor([0.125, 0.375, 0.75, 1.5, 3.0])
    assert nearest(torch.cat([value, -value]), target).tolist() == [0, 0.5, 1, 2, 4, 0, -0.5, -1, -2, -4]


@pytest.mark.parametrize("target", NARROW, ids=label)
def test_saturation_nan_and_zero(target):
    low = -target.largest if target.symmetric else 0.0
    if target.number == "int":
        low, _ = target.levels
    value = torch.tensor([math.inf, -math.inf, 1e30, -1e30, math.nan, 0.0, -0.0])
    rounded = nearest(value, target)
    assert rounded[:4].tolist() == [target.largest, low, target.largest, low]
    assert rounded[4].isnan()
    assert rounded[5:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("target", NARROW, ids=label)
def test_elements_stay_where_they_are_and_come_back_from_their_codes(target):
    zero_point = 0.0 if target.symmetric else float(target.levels[1] // 3)
    if target.number == "int":
        low, high = target.levels
        elements = torch.arange(low, high + 1).float() - zero_point
    else:
        elements = codebook(target)[codebook(target).isfinite()]
    assert torch.equal(nearest(elements, target, zero_point), elements)
    codes = encode(elements, target, zero_point)
    assert codes.dtype == (torch.int8 if target.number == "int" and target.symmetric else torch.uint8)
    assert torch.equal(decode(codes, target, zero_point), elements)
    assert len(codes.unique()) == len(codes)


@given(st.sampled_from(NARROW), st.lists(st.floats(-1e5, 1e5, width=32), min_size=2, max_size=20))
def test_rounding_is_monotone_idempotent_and_near(target, values):
    value = torch.tensor(sorted(values))
    before = value.clone()
    rounded = nearest(value, target)
    assert torch.equal(value, before)
    assert bool((rounded.diff() >= 0).all())
    assert torch.equal(nearest(rounded, target), rounded)
    assert bool((rounded.abs() <= (target.largest + 1)).all())
    assert torch.equal(rounded == 0, rounded.abs() == 0)
    if target.symmetric and target.number == "float":
        assert torch.equal(nearest(-value, target), -rounded)


def test_nf4_values_are_the_quantiles_of_qlora():
    """Appendix E of QLoRA: eight quantiles below zero, seven above, both ends at 0.9677083, scaled to 1."""
    below = norm.ppf(np.linspace(0.9677083, 0.5, 9)[:-1])
    above = norm.ppf(np.linspace(0.9677083, 0.5, 8)[:-1])
    values = np.sort(np.concatenate([-above, [0.0], below]))
    np.testing.assert_allclose(np.array(NF4_VALUES), np.sort(values) / np.abs(values).max(), atol=2e-7)


def test_nf4_rounds_as_torchao_with_the_same_table():
    """torchao keeps four decimals of the values, bitsandbytes and this package all of them."""
    nf4_tensor = pytest.importorskip("torchao.quantization.quantize_.workflows.nf4.nf4_tensor")
    table = nf4_tensor.NF4Tensor.from_tensor(torch.ones(1, 64), 64, 1).nf4.float()
    torch.testing.assert_close(torch.tensor(NF4_VALUES), table, rtol=0, atol=5.1e-5)
    value = torch.from_numpy(interesting(NF4))
    distance = (value.double()[:, None] - torch.tensor(NF4_VALUES).double()).abs()
    codes = encode(nearest(value, NF4), NF4)
    clear = (distance.sort(1).values[:, 1] - distance.amin(1)) > 1e-7  # the middles are rounded to float32
    assert torch.equal(codes[clear].long(), distance.argmin(1)[clear])
    assert torch.equal(
        codes[clear].long(), nf4_tensor.NF4Tensor.quantize_tensor_nearest(value, torch.tensor(NF4_VALUES))[clear]
    )
    assert float(clear.float().mean()) > 0.9
