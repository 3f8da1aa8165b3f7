"""Activation quantizers of every format: properties, a naive reference, and torchao where it has them."""

import math

import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.evaluators.quantizers import (
    ActivationQuantizer,
    BlockScaledQuantizer,
    DynamicQuantizer,
    FloatQuantizer,
    FloatRounding,
    Range,
    activation_quantizer,
    elementwise,
    nearest,
)
from bitfront.formats import Format, activation_name
from hypothesis import given, settings
from hypothesis import strategies as st

NUMBERS = ["8", "4", "2", "e4m3", "e5m2", "e2m1"]
SPREADS = ["", "c", "d", "g32", "g128"]
NAMES = [
    *(f"a{number}{spread}" for number in NUMBERS for spread in SPREADS),
    *("a8s", "a4s", "a8cs", "a8dz", "a4dz", "a8g32z", "amxfp8", "amxfp6", "amxfp4", "anvfp4", "bf16", "fp16"),
]


def target_of(name):
    return Format.parse(name if name in ("bf16", "fp16") else f"w8{name}").activation


def example(features=160, seed=0):
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(3, 5, features, generator=generator) * torch.rand(features, generator=generator) * 3
    value[0, 0] = 0
    value[1, 2] = value[1, 2].abs()
    value[2, 3] *= 100
    return value


def range_of(value, target):
    flat = value.reshape(-1, value.shape[-1]).float()
    if target.granularity == "channel":
        return Range(flat.amin(0), flat.amax(0))
    return Range(flat.min(), flat.max())


def quantizer_of(name, value):
    target = target_of(name)
    return activation_quantizer(target, None if target.dynamic or target.is_wide else range_of(value, target))


@pytest.mark.parametrize("name", NAMES)
def test_what_every_quantizer_keeps(name):
    value = example()
    before = value.clone()
    quantizer = quantizer_of(name, value)
    rounded = quantizer(value)
    assert torch.equal(value, before)
    assert rounded.data_ptr() != value.data_ptr()
    assert (rounded.dtype, rounded.shape) == (value.dtype, value.shape)
    assert bool((rounded[value == 0] == 0).all())
    assert bool(rounded.isfinite().all())
    assert quantizer == quantizer_of(name, value)
    assert hash(quantizer) == hash(quantizer_of(name, value))
    torch.testing.assert_close(quantizer(rounded), rounded, rtol=1e-6, atol=0)  # the scale may move in its last bit


@pytest.mark.parametrize("name", NAMES)
def test_types_empty_tensors_and_gradients(name):
    value = example()
    quantizer = quantizer_of(name, value)
    for kind in (torch.bfloat16, torch.float16, torch.float64):
        rounded = quantizer(value.to(kind))
        assert rounded.dtype == kind
        assert torch.equal(rounded, quantizer(value.to(kind).float()).to(kind))
    assert quantizer(torch.empty(0, 160)).shape == (0, 160)
    assert quantizer(value.transpose(0, 1)).equal(quantizer(value).transpose(0, 1))
    assert not quantizer(value.requires_grad_()).requires_grad or name in ("bf16", "fp16")


@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_and_spoils_no_other_token(name):
    value = example()
    quantizer = quantizer_of(name, value)
    clean = quantizer(value)
    value[1, 1, 7] = math.nan
    rounded = quantizer(value)
    assert rounded[1, 1, 7].isnan()
    others = torch.ones(3, 5, dtype=torch.bool)
    others[1, 1] = False
    assert torch.equal(rounded[others], clean[others])


@pytest.mark.parametrize("name", ["a8", "a8s", "a4", "ae4m3", "ae2m1", "a8c", "a8cs", "ae4m3c"])
def test_static_scales_saturate_infinity(name):
    value = example()
    quantizer = quantizer_of(name, value)
    ends = torch.stack([torch.full((160,), -math.inf), torch.full((160,), math.inf)])
    assert torch.equal(quantizer(ends), quantizer(ends.clamp(-1e30, 1e30)))
    assert bool(quantizer(ends).isfinite().all())


@pytest.mark.parametrize("name", ["a8d", "a8dz", "ae4m3d", "a8g32"])
def test_dynamic_float32_scales_turn_infinity_into_nan(name):
    value = example()
    value[1, 1, 7] = math.inf
    spoilt = quantizer_of(name, value)(value)[1, 1, : target_of(name).group or None]
    assert bool(spoilt.isnan().all())


@pytest.mark.parametrize("name", ["a8", "a8s", "a8c", "ae4m3", "anvfp4"])
def test_static_formats_need_a_finite_range(name):
    target = target_of(name)
    with pytest.raises(InvalidInput, match="static scales: give the range"):
        activation_quantizer(target)
    bad = torch.tensor([0.0, math.inf]) if target.granularity == "channel" else torch.tensor(math.inf)
    with pytest.raises(InvalidInput, match="not finite"):
        activation_quantizer(target, Range(torch.zeros_like(bad), bad))


@pytest.mark.parametrize("name", ["a8", "a8s", "a8c", "a8cs", "ae4m3", "ae2m1c", "anvfp4", "a8d", "a8dz", "amxfp4"])
def test_a_range_of_zeros_maps_zero_to_zero(name):
    value = torch.zeros(2, 32)
    assert torch.equal(quantizer_of(name, value)(value), value)


def test_features_must_match_the_calibration():
    quantizer = quantizer_of("a8c", example())
    with pytest.raises(InvalidInput, match=r"\(3, 8\) does not end in the 160 features"):
        quantizer(torch.ones(3, 8))
    with pytest.raises(InvalidInput, match="one range a feature"):
        activation_quantizer(target_of("a8c"), Range(torch.tensor(0.0), torch.tensor(1.0)))


def test_which_quantizer_a_format_gets():
    kinds = {"a8": ActivationQuantizer, "ae4m3": FloatQuantizer, "a8d": DynamicQuantizer, "amxfp4": DynamicQuantizer,
             "anvfp4": BlockScaledQuantizer, "bf16": FloatRounding}  # fmt: skip
    for name, kind in kinds.items():
        assert type(quantizer_of(name, example())) is kind


# naive references ------------------------------------------------------------------------------------------------


def naive(row, target):
    """One token or group, in float64 but for the scale, which is a float32."""
    row = row.double()
    if target.number == "int" and not target.symmetric:
        low, high = row.min().clamp(max=0), row.max().clamp(min=0)
        scale = ((high.float() - low.float()) / target.levels[1]).double()
        zero = (-low.float() / scale.float()).round().clamp(*target.levels).double()
    else:
        scale, zero = (row.abs().max().float() / target.largest).double(), torch.tensor(0.0)
    if scale == 0:
        return torch.zeros_like(row)
    ratio = (row.float() / scale.float()).double()
    if target.number == "int":
        return scale * ((ratio.round() + zero).clamp(*target.levels) - zero)
    return scale * nearest(ratio.float(), target).double()


@pytest.mark.parametrize("name", ["a8d", "a4d", "a2d", "a8dz", "a4dz", "a3dz", "ae4m3d", "ae2m1d", "a8g32", "a4g32z",
                                  "ae4m3g128"])  # fmt: skip
def test_dynamic_scales_against_a_loop_over_rows(name):
    value, target = example(256), target_of(name)
    size = target.group or 256
    expected = torch.stack([naive(row, target) for row in value.reshape(-1, size)]).reshape(value.shape)
    torch.testing.assert_close(quantizer_of(name, value)(value).double(), expected, rtol=2e-7, atol=0)


@pytest.mark.parametrize("name", ["a8c", "a8cs", "a4c", "ae4m3c", "ae2m1c"])
def test_one_scale_a_feature_against_a_loop_over_features(name):
    value, target = example(32), target_of(name)
    columns = value.reshape(-1, 32).t()
    expected = torch.stack([naive(column, target) for column in columns]).t().reshape(value.shape)
    torch.testing.assert_close(quantizer_of(name, value)(value).double(), expected, rtol=2e-7, atol=0)


@pytest.mark.parametrize("features", [1, 31, 40, 129])
@pytest.mark.parametrize("name", ["a8g32", "a8g128", "amxfp4", "anvfp4", "ae4m3g128"])
def test_a_last_group_that_is_not_full(name, features):
    value = example(features)
    quantizer = activation_quantizer(target_of(name), Range(value.min(), value.max()))
    size = target_of(name).group
    padded = torch.cat([value, torch.zeros(3, 5, -features % size)], -1)
    assert torch.equal(quantizer(value), quantizer(padded)[..., :features])


@settings(max_examples=100)
@given(st.sampled_from(["a8", "a8s", "a4", "ae4m3", "ae2m1"]), st.lists(st.floats(-50, 50, width=32), min_size=2))
def test_static_rounding_is_monotone_and_bounded(name, values):
    value = torch.tensor(sorted(values))
    quantizer = activation_quantizer(target_of(name), Range(torch.tensor(-3.0), torch.tensor(5.0)))
    rounded = quantizer(value)
    assert bool((rounded.diff() >= 0).all())
    largest = quantizer.scale * (128 if name == "a8s" else max(15, target_of(name).largest))
    assert bool((rounded.abs() <= largest * (1 + 1e-6)).all())


# torchao ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a8d", "a4d", "a8dz", "a4dz"])
def test_dynamic_integers_as_torchao(name):
    """With codes down to -127, as its int8 dynamic quantization has them, torchao's scales are ours.

    Its codes come from multiplying by the reciprocal of the scale: they may differ at ties.
    """
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    target, value = target_of(name), example()[1:].reshape(-1, 160)
    low, high = target.levels
    low = -high if target.symmetric else low
    mapping = primitives.MappingType.SYMMETRIC if target.symmetric else primitives.MappingType.ASYMMETRIC
    kind, block = torch.int8 if target.symmetric else torch.uint8, [1, 160]
    scale, zero = primitives.choose_qparams_affine(value, mapping, block, kind, low, high)
    if target.symmetric:
        zero = torch.zeros_like(zero)
    codes = primitives.quantize_affine(value, block, scale, zero, kind, low, high)
    theirs = primitives.dequantize_affine(codes, block, scale, zero, kind, low, high, output_dtype=torch.float32)
    ratio = value.double() / scale.double()[:, None]
    clear = ((ratio - ratio.floor()) - 0.5).abs() > 1e-5
    assert torch.equal(quantizer_of(name, value)(value)[clear], theirs[clear])
    assert float(clear.float().mean()) > 0.99


@pytest.mark.parametrize(("name", "block"), [("ae4m3d", 256), ("ae4m3g128", 128)])
def test_dynamic_fp8_as_torchao(name, block):
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    value = example(256)[1:].reshape(-1, 256)
    scale = primitives._choose_scale_float8(value, [1, block])
    codes = primitives._quantize_affine_float8(value, scale)
    assert torch.equal(quantizer_of(name, value)(value), primitives._dequantize_affine_float8(codes, scale))


def test_block_formats_as_torchao():
    mx = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor")
    nvfp4 = pytest.importorskip("torchao.prototype.mx_formats.nvfp4_tensor")
    value = example().reshape(-1, 160)
    for name, element in (("amxfp8", torch.float8_e4m3fn), ("amxfp6", "fp6_e2m3"), ("amxfp4", torch.float4_e2m1fn_x2)):
        theirs = mx.MXTensor.to_mx(value, element, 32).dequantize(torch.float32)
        assert torch.equal(quantizer_of(name, value)(value), theirs)
    whole = nvfp4.per_tensor_amax_to_scale(value.abs().max())
    scales, packed = nvfp4.nvfp4_quantize(value, 16, whole)
    codes = torch.stack([packed & 15, packed >> 4], -1).reshape(-1, 16).long()
    table = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    elements = table[codes & 7] * torch.where(codes > 7, -1.0, 1.0)
    theirs = elements * (scales.float().reshape(-1, 1) * whole)
    assert torch.equal(quantizer_of("anvfp4", value)(value), theirs.reshape(value.shape))


# large tensors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a8", "a8s", "a4", "ae4m3"])
def test_parts_make_up_the_whole(name, monkeypatch):
    """Cut into small parts, with any strides, the result is that of one element at a time."""
    value = example(64).reshape(3, 5, 8, 8)
    quantizer = quantizer_of(name, value)
    views = [value, value.to(memory_format=torch.channels_last), value.transpose(1, 3), value[:, ::2], value[..., 1:],
             value[:, :1].expand(-1, 4, -1, -1), value.bfloat16(), value.double().transpose(0, 1)]  # fmt: skip
    whole = [quantizer(each) for each in views]
    monkeypatch.setattr(elementwise, "_CHUNK", 7)
    for each, expected in zip(views, whole, strict=True):
        found = quantizer(each)
        assert torch.equal(found, expected)
        assert torch.equal(found, torch.stack([quantizer(one) for one in each.flatten()]).reshape(each.shape))
    channels_last = views[1]
    assert quantizer(channels_last).is_contiguous(memory_format=torch.channels_last)


def test_integers_give_no_negative_zero():
    """The runtime's code minus zero-point is an integer, which has one zero."""
    for name in ("a8", "a8s"):
        rounded = quantizer_of(name, example())(torch.tensor([-1e-9, -0.0, 0.0, 1e-9]))
        assert not bool(rounded.signbit().any())


def test_names_of_the_quantizers_here_are_names_of_the_grammar():
    for name in NAMES:
        target = target_of(name)
        if not target.is_wide:
            assert activation_name(target) == name
