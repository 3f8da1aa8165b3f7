"""Quantized weights in every format: properties, and bit for bit against torchao, onnxruntime and the MX standard."""

import math

import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.evaluators.quantizers import WeightScale, choose_scales, quantize_weight
from bitfront.evaluators.quantizers.grid import NF4_VALUES
from bitfront.formats import Format, names, weight_name
from hypothesis import given, settings
from hypothesis import strategies as st

TARGETS = {weight_name(weight): weight for name in names() if not (weight := Format.parse(name).weight).is_wide}


def target_of(name):
    return Format.parse(name).weight


def made(weight, name, method="minmax", axis=0):
    target = target_of(name)
    return quantize_weight(weight, target, choose_scales(weight, target, axis, method), axis)


def example(shape=(6, 256), seed=0, spread=0.05):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator) * spread
    weight[0, :32] *= 30
    weight[1] = 0
    weight[2, 128:] = 0
    weight[3] = weight[3].abs()
    return weight


@pytest.mark.parametrize("method", ["minmax", "mse"])
@pytest.mark.parametrize("name", TARGETS)
def test_what_every_format_keeps(name, method):
    weight = example()
    before = weight.clone()
    quantized = made(weight, name, method)
    rounded = quantized.dequantize()
    assert torch.equal(weight, before)
    assert quantized.scale.shape == quantized.layout.scale_shape
    assert quantized.scale.dtype == rounded.dtype == torch.float32
    assert bool((quantized.scale > 0).all())
    assert bool((rounded[weight == 0] == 0).all())
    assert quantized.codes.shape == weight.shape
    # the codes of the rounded weight are the codes
    again = quantize_weight(rounded, quantized.target, quantized.scales, 0)
    assert torch.equal(again.dequantize(), rounded)
    if TARGETS[name].number == "int":
        assert torch.equal(again.codes, quantized.codes)


@pytest.mark.parametrize("name", TARGETS)
def test_least_squares_is_never_worse_than_the_largest_magnitude(name):
    weight = example(seed=1)
    errors = [float((made(weight, name, method).dequantize() - weight).square().sum()) for method in ("mse", "minmax")]
    assert errors[0] <= errors[1] * (1 + 1e-6)


@pytest.mark.parametrize("name", TARGETS)
def test_scales_are_numbers_of_their_type(name):
    for method in ("minmax", "mse"):
        scales = made(example(), name, method).scales
        kind = {"fp16": torch.float16, "e4m3": torch.float8_e4m3fn}.get(TARGETS[name].scale)
        if kind is not None:
            assert torch.equal(scales.scale.to(kind).float(), scales.scale)
        if TARGETS[name].scale == "e8m0":
            assert torch.equal(scales.scale.log2().round().exp2(), scales.scale)
        if scales.zero_point is not None:
            low, high = TARGETS[name].levels
            assert torch.equal(scales.zero_point.round().clamp(low, high), scales.zero_point)
        assert (scales.zero_point is None) == TARGETS[name].symmetric
        assert (scales.tensor_scale is None) == (TARGETS[name].scale != "e4m3")


@settings(max_examples=60)
@given(st.sampled_from(sorted(TARGETS)), st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40))
def test_rounding_is_monotone_and_within_half_a_step(name, values):
    target, weight = TARGETS[name], torch.tensor([sorted(values)])
    quantized = made(weight, name)
    rounded = quantized.dequantize()
    rows, back = quantized.layout.rows(weight), quantized.layout.rows(rounded)
    inside = min(weight.shape[1], rows.shape[1])
    assert bool((back[:, :inside].diff(dim=1)[rows[:, :inside].diff(dim=1) >= 0] >= -1e-6 * weight.abs().max()).all())
    # the widest step: of an integer 1 (and half of one for the zero-point), of a minifloat the top binade's; nf4 0.28
    factor = quantized.scales.factor.reshape(-1, 1)
    step = {"int": 1.0 if target.symmetric else 2.0, "codebook": 0.31}.get(
        target.number, 2.0 ** (math.floor(math.log2(target.largest)) - target.mantissa_bits)
    )
    clipped = {"e8m0": target.largest * 2**-target.mantissa_bits, "e4m3": target.largest / 8, "fp16": 0.1}
    slack = 0.5 * step + clipped.get(target.scale, 0.0) + 1e-3
    assert bool(((rows - back).abs() <= slack * factor + 1e-37).all())


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", ["w4", "w4z", "w8t", "we4m3", "nf4", "w4g32", "wmxfp4", "wnvfp4", "w4b128"])
def test_the_channel_axis_only_transposes(name, axis):
    weight = example((64, 64), seed=2)
    weight[5, 7] = 3.0
    plain = made(weight if axis == 0 else weight.t().contiguous(), name, "mse", axis)
    assert torch.equal(
        plain.dequantize() if axis == 0 else plain.dequantize().t(), made(weight, name, "mse").dequantize()
    )


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_of_other_types(kind):
    weight = example().to(kind)
    for name in ("w4", "w4g32z", "wmxfp8", "wnvfp4", "nf4"):
        assert torch.equal(made(weight, name).dequantize(), made(weight.float(), name).dequantize())


def test_an_unknown_choice_of_scales():
    with pytest.raises(InvalidInput, match="'max'; choose mse or minmax"):
        choose_scales(example(), target_of("w4"), 0, "max")


# zero-points and narrow scales -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "scale", "zero_point"),
    [([0.0, 15.0], 1.0, 0), ([-15.0, 0.0], 1.0, 15), ([2.0, 30.0], 2.0, 0), ([-1.0, 14.0], 1.0, 1), ([0.0, 0.0], 1, 0)],
)
def test_asymmetric_scales_by_hand(row, scale, zero_point):
    found = choose_scales(torch.tensor([row]), target_of("w4z"), 0, "minmax")
    assert (float(found.scale), float(found.zero_point)) == (scale, zero_point)


def test_fp16_scales_never_vanish_or_overflow():
    tiny, huge = torch.full((1, 32), 1e-12), torch.full((1, 32), 1e9)
    for method in ("minmax", "mse"):
        assert float(made(tiny, "w4g32", method).scale) == 2.0**-24
        assert float(made(huge, "w4g32", method).scale) == 65504.0
        assert bool(made(huge, "w4g32z", method).dequantize().isfinite().all())


def test_nvfp4_block_scales_never_vanish():
    weight = torch.cat([torch.full((1, 16), 1e-6), torch.full((1, 16), 1e3), torch.zeros(1, 16)], 1)
    for method in ("minmax", "mse"):
        assert made(weight, "wnvfp4", method).scale.tolist()[0][0] == 2.0**-6
        assert made(weight, "wnvfp4", method).scale.tolist()[0][2] == 1.0


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("elements", [9, 32, 300])
def test_asymmetric_least_squares_against_every_scale_and_zero_point(bits, elements):
    generator = torch.Generator().manual_seed(bits)
    weight = torch.randn(40, elements, generator=generator) + 0.5 * torch.randn(40, 1, generator=generator)
    low, high = target_of(f"w{bits}z").levels
    error = (made(weight, f"w{bits}z", "mse").dequantize() - weight).double().square().sum()
    rows = weight.double()
    unit = (rows.amax(1).clamp(min=0) - rows.amin(1).clamp(max=0)) / high
    best = torch.full((40,), torch.inf, dtype=torch.float64)
    for fraction in torch.linspace(0.3, 1.3, 150):
        ratio = (rows / (unit * fraction)[:, None]).round()
        for zero in range(high + 1):
            rounded = ((ratio + zero).clamp(low, high) - zero) * (unit * fraction)[:, None]
            best = torch.minimum(best, (rounded - rows).square().sum(1))
    assert float(error) <= {9: 1.1, 32: 1.03, 300: 1.005}[elements] * float(best.sum())


# the text of OCP MX, in float64 ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "emax"), [("wmxfp8", 8), ("wmxfp6", 2), ("wmxfp4", 2)])
def test_mx_scales_by_the_rule_of_section_6_3(name, emax):
    weight = example() * 2.0 ** torch.arange(-60, 60, 20)[:, None]
    found = made(weight, name)
    for block, scale in zip(weight.double().reshape(-1, 32), found.scale.flatten(), strict=True):
        largest = float(block.abs().max())
        assert float(scale) == (2.0 ** (math.floor(math.log2(largest)) - emax) if largest else 1.0)


def test_mx_scales_stay_within_e8m0():
    for value, scale in ((1e-44, 2.0**-127), (3e38, 2.0**125)):
        assert float(made(torch.full((1, 32), value), "wmxfp4").scale) == scale


# torchao ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mxfp8", "mxfp6", "mxfp4"])
def test_mx_as_torchao(kind):
    mx = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor")
    element = {"mxfp8": torch.float8_e4m3fn, "mxfp6": "fp6_e2m3", "mxfp4": torch.float4_e2m1fn_x2}[kind]
    weight = example(seed=5)
    theirs = mx.MXTensor.to_mx(weight, element, 32)
    ours = made(weight, f"w{kind}")
    used = ours.layout.rows(weight).abs().amax(1) > 0  # blocks of zeros get 1 here, the smallest scale there
    scales = 2.0 ** (theirs.scale.view(torch.uint8).float() - 127)
    assert torch.equal(ours.scale.flatten()[used], scales.flatten()[used])
    assert torch.equal(ours.dequantize(), theirs.dequantize(torch.float32))


def test_nvfp4_as_torchao():
    nvfp4 = pytest.importorskip("torchao.prototype.mx_formats.nvfp4_tensor")
    weight = example(seed=6)
    whole = nvfp4.per_tensor_amax_to_scale(weight.abs().max())
    scales, packed = nvfp4.nvfp4_quantize(weight, 16, whole)
    ours = made(weight, "wnvfp4")
    assert torch.equal(ours.scales.tensor_scale, whole)
    used = ours.layout.rows(weight).abs().amax(1) > 0  # blocks of zeros get 1 here, the smallest scale there
    assert torch.equal(ours.scale.flatten()[used], scales.float().flatten()[used])
    codes = torch.stack([packed & 15, packed >> 4], -1).reshape(weight.shape)
    assert torch.equal(ours.codes, codes)


def test_fp8_as_torchao():
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    for name, block in (("we4m3", (1, 256)), ("we4m3t", (6, 256)), ("we4m3g128", (1, 128)), ("we4m3b128", (128, 128))):
        weight = example((256, 256) if name.endswith("b128") else (6, 256), seed=7)
        weight[1] += 1e-3  # torchao divides by zero where all is zero
        weight[2] += 1e-3
        scale = primitives._choose_scale_float8(weight, list(block))
        ours = made(weight, name)
        assert torch.equal(ours.scale.reshape(scale.shape), scale)
        theirs = primitives._quantize_affine_float8(weight, scale)
        assert torch.equal(ours.codes, theirs.view(torch.uint8))
        assert torch.equal(ours.dequantize(), primitives._dequantize_affine_float8(theirs, scale))


def test_nf4_as_torchao():
    """Codes from the scaled weight; torchao also rounds the scales to 8 bits, which QLoRA leaves optional."""
    nf4_tensor = pytest.importorskip("torchao.quantization.quantize_.workflows.nf4.nf4_tensor")
    weight = example(seed=8)
    ours = made(weight, "nf4")
    absmax = nf4_tensor.get_block_absmax(weight.flatten(), 64)
    used = absmax > 0
    assert torch.equal(ours.scale.flatten()[used], absmax[used])
    ratio = (weight.reshape(-1, 64) / ours.scale.reshape(-1, 1)).flatten()
    theirs = nf4_tensor.NF4Tensor.quantize_tensor_nearest(ratio, torch.tensor(NF4_VALUES))
    assert torch.equal(ours.codes.flatten().long(), theirs)


INTEGERS = [
    f"w{bits}{spread}{zero}" for bits in (2, 3, 4, 8) for spread in ("", "t", "g32", "g128") for zero in ("", "z")
]


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_as_torchao(name):
    """The same min-max scales (ours of groups are then rounded to fp16), zero-points and codes.

    torchao multiplies by the rounded reciprocal of the scale, ONNX and this package divide: codes may differ where the
    ratio is a tie but for rounding, and nowhere else.
    """
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    target, weight = target_of(name), example(seed=9)
    weight[1] += 1e-3
    weight[2] += 1e-3
    low, high = target.levels
    block = {"channel": [1, 256], "tensor": [6, 256], "group": [1, target.group]}[target.granularity]
    mapping = primitives.MappingType.SYMMETRIC if target.symmetric else primitives.MappingType.ASYMMETRIC
    kind = torch.int8 if target.symmetric else torch.uint8
    scale, zero = primitives.choose_qparams_affine(
        weight, mapping, block, kind, -high if target.symmetric else low, high, zero_point_dtype=torch.int32
    )
    ours = made(weight, name)
    if target.scale == "fp32":
        assert torch.equal(ours.scale.flatten(), scale.flatten())
        if not target.symmetric:
            assert torch.equal(ours.scales.zero_point.flatten(), zero.flatten().float())
    else:
        assert torch.equal(ours.scale.flatten(), scale.half().float().flatten())
    zero = torch.zeros_like(scale).int() if target.symmetric else ours.scales.zero_point.reshape(scale.shape).int()
    theirs = primitives.quantize_affine(weight, block, ours.scale.reshape(scale.shape), zero, kind, low, high)
    ratio = ours.layout.matrix(weight).double() / ours.layout.expand(ours.scale).double()
    clear = ((ratio - ratio.floor()) - 0.5).abs() > 1e-5
    assert torch.equal(ours.codes[clear], theirs[clear])
    assert float(clear.float().mean()) > 0.99
    back = primitives.dequantize_affine(
        ours.codes, block, ours.scale.reshape(scale.shape), zero, kind, low, high, output_dtype=torch.float32
    )
    assert torch.equal(ours.dequantize(), back)


# onnxruntime -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"), [("w4g32", "INT4"), ("w4g32z", "UINT4"), ("w8g32", "INT8"), ("w8g32z", "UINT8")]
)
def test_groups_as_onnxruntime_unpacks_them(name, kind):
    """Blocked DequantizeLinear (opset 21) on our codes gives our weight."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    helper, numbers = onnx.helper, onnx.TensorProto
    ours = made(example(seed=10), name, "mse")
    scale, number = ours.scale.numpy(), getattr(numbers, kind)
    zero = np.zeros_like(scale) if ours.target.symmetric else ours.scales.zero_point.numpy()
    codes, zero = ours.codes.numpy().astype(np.int32), zero.astype(np.int32)
    graph = helper.make_graph(
        [helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["y"], axis=1, block_size=32)],
        "blocked",
        [],
        [helper.make_tensor_value_info("y", numbers.FLOAT, codes.shape)],
        [
            helper.make_tensor("codes", number, codes.shape, codes.flatten().tolist()),
            helper.make_tensor("scale", numbers.FLOAT, scale.shape, scale.flatten().tolist()),
            helper.make_tensor("zero", number, zero.shape, zero.flatten().tolist()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {})[0], ours.dequantize().numpy())


def test_given_scales_are_kept():
    scales = WeightScale(torch.tensor([0.5, 2.0]))
    quantized = quantize_weight(torch.tensor([[0.26, 9.0], [0.9, -3.1]]), target_of("w3"), scales, 0)
    assert quantized.codes.tolist() == [[1, 3], [0, -2]]
    assert quantized.dequantize().tolist() == [[0.5, 1.5], [0.0, -4.0]]


@pytest.mark.parametrize("name", ["w4", "w4t", "w3g32z", "w4b128", "we4m3", "wnvfp4", "wmxfp4", "nf4"])
@pytest.mark.parametrize("axis", [0, 1])
def test_large_weights_are_taken_in_blocks_of_rows(name, axis, monkeypatch):
    target = Format.parse(name).weight
    weight = torch.randn(96, 192, generator=torch.Generator().manual_seed(0))
    scales = choose_scales(weight, target, axis, "minmax")
    whole = quantize_weight(weight, target, scales, axis)
    expected = whole.dequantize()
    monkeypatch.setattr("bitfront.evaluators.quantizers.weight._BLOCK", 500)
    made = quantize_weight(weight, target, scales, axis)
    assert torch.equal(made.codes, whole.codes)
    assert torch.equal(made.dequantize(), expected)
