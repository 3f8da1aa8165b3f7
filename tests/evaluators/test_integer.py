"""Integer quantizers, bit for bit: against a naive numpy reference and against onnxruntime."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.evaluators.quantizers import ActivationQuantizer, Range, WeightScale, activation_quantizer
from bitfront.evaluators.quantizers import quantize_weight as quantize
from bitfront.evaluators.quantizers.asymmetric_scales import range_scales
from bitfront.formats import TensorFormat
from hypothesis import given, settings
from hypothesis import strategies as st

finite = st.floats(-1e4, 1e4, width=32)


def weight_format(bits):
    return TensorFormat("int", bits, "channel")


def quantize_weight(weight, target, scale, axis):
    return quantize(weight, target, WeightScale(scale), axis)


def naive_codes(weight, scale, axis, bits):
    """Element by element, in float32 as the runtime does it: np.rint is half to even."""
    codes = np.zeros(weight.shape, dtype=np.int64)
    for index in np.ndindex(*weight.shape):
        ratio = np.float32(weight[index]) / np.float32(scale[index[axis]])
        codes[index] = min(max(int(np.rint(ratio)), -(2 ** (bits - 1))), 2 ** (bits - 1) - 1)
    return codes


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(("shape", "axis"), [((5, 7), 0), ((5, 7), 1), ((3, 4, 2, 2), 0), ((3, 4, 2), 1)])
def test_weight_codes_against_the_reference(bits, shape, axis):
    rng = np.random.default_rng(bits)
    weight = rng.normal(size=shape).astype(np.float32)
    scale = rng.uniform(0.05, 0.6, shape[axis]).astype(np.float32)
    made = quantize_weight(torch.from_numpy(weight), weight_format(bits), torch.from_numpy(scale), axis)
    codes = naive_codes(weight, scale, axis, bits)
    assert made.codes.dtype == torch.int8
    np.testing.assert_array_equal(made.codes.numpy(), codes)
    along = [-1 if i == axis else 1 for i in range(len(shape))]
    np.testing.assert_array_equal(made.dequantize().numpy(), codes.astype(np.float32) * scale.reshape(along))


def test_ties_go_to_the_even_code():
    weight = torch.tensor([[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5]])
    assert quantize_weight(weight, weight_format(4), torch.ones(1), 0).codes.tolist() == [[-2, -2, 0, 0, 2, 2, 4]]
    quantizer = ActivationQuantizer(1.0, 3, 8)
    assert quantizer.codes(weight).tolist() == [[1, 1, 3, 3, 5, 5, 7]]


@given(st.lists(finite, min_size=1, max_size=30), st.integers(2, 8), st.floats(2**-10, 2**10, width=32))
def test_weights_keep_what_a_quantizer_promises(values, bits, scale):
    target, weight, scales = weight_format(bits), torch.tensor([sorted(values)]), torch.tensor([scale])
    low, high = target.levels
    made = quantize_weight(weight, target, scales, 0)
    rounded = made.dequantize()
    inside = (weight >= low * scale) & (weight <= high * scale)
    error = (rounded.double() - weight.double()).abs()
    assert bool((error[inside] <= 0.5 * scale + 1e-6 * weight.abs()[inside]).all())
    assert bool((made.codes[weight > high * scale] == high).all())
    assert bool((made.codes[weight < low * scale] == low).all())
    assert bool((made.codes.int().diff() >= 0).all())  # monotone
    assert bool((rounded[weight == 0] == 0).all())
    again = quantize_weight(rounded, target, scales, 0)  # idempotent
    assert torch.equal(again.codes, made.codes)


def test_the_weight_itself_is_untouched():
    weight = torch.nn.Parameter(torch.randn(4, 5))
    before = weight.detach().clone()
    made = quantize_weight(weight, weight_format(4), torch.full((4,), 0.1), 0)
    assert torch.equal(weight, before)
    assert not made.dequantize().requires_grad


# activations -----------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(finite, finite, st.integers(2, 8), st.lists(finite, min_size=1, max_size=20))
def test_activations_keep_what_a_quantizer_promises(one, other, bits, values):
    low, high = sorted((one, other))
    quantizer = ActivationQuantizer.from_range(low, high, bits)
    value = torch.tensor(sorted([*values, low, high, 0.0]))
    rounded, codes = quantizer(value), quantizer.codes(value)
    top, scale = 2**bits - 1, quantizer.scale
    assert scale > 0
    assert np.float32(scale) == scale  # the runtime keeps float32
    assert 0 <= quantizer.zero_point <= top
    assert torch.equal(codes, codes.round())
    assert 0 <= float(codes.min()) <= float(codes.max()) <= top
    assert bool((codes.diff() >= 0).all())
    assert bool((rounded[value == 0] == 0).all())  # zero is exact: padding, ReLU
    # idempotent but for float32: another rounding moves a code by nothing
    assert torch.equal(quantizer.codes(rounded), codes)
    inside = (value >= min(low, 0)) & (value <= max(high, 0))
    error = (rounded.double() - value.double()).abs()[inside]
    # half a step, and at the ends of the range another half, because the zero-point is an integer
    assert bool((error <= scale * (1 + 1e-4)).all())
    middle = inside & (codes > 0) & (codes < top)
    assert bool(((rounded.double() - value.double()).abs()[middle] <= scale * (0.5 + 1e-4)).all())


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [(0.0, 255.0, 1.0, 0), (-128.0, 127.0, 1.0, 128), (2.0, 510.0, 2.0, 0), (-510.0, -3.0, 2.0, 255), (0, 0, 1.0, 0)],
)
def test_from_range_by_hand(low, high, scale, zero_point):
    assert ActivationQuantizer.from_range(low, high, 8) == ActivationQuantizer(scale, zero_point, 8)


def test_a_range_below_the_smallest_float_is_no_division_by_zero():
    for high in (1e-46, 1e-42):  # a scale of 0 in float32, and one with hardly a bit left
        quantizer = ActivationQuantizer.from_range(0.0, high, 8)
        assert quantizer.scale == 1
        assert quantizer(torch.tensor([0.0, high, 3.0])).tolist() == [0, 0, 3]


@settings(max_examples=200)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.floats(0, 2, width=32), st.integers(2, 8))
def test_static_dynamic_and_feature_ranges_have_one_rule(end, ratio, bits):
    """Scale and zero-point of a range, whoever asks; numpy does the arithmetic in float32, too."""
    other = np.float32(-end) * np.float32(ratio / 2)
    low, high = float(min(end, other, 0)), float(max(end, other, 0))
    target = TensorFormat("int", bits, "tensor", symmetric=False)
    one = ActivationQuantizer.from_range(low, high, bits)
    scale, zero_point = range_scales(torch.tensor([low]), torch.tensor([high]), target)
    assert (one.scale, one.zero_point) == (float(scale), int(zero_point))
    feature = replace(target, granularity="channel")
    channel = activation_quantizer(feature, Range(torch.tensor([low]), torch.tensor([high])))
    assert (one.scale, one.zero_point) == (*channel.scale, *channel.zero_point)
    with np.errstate(over="ignore"):
        width = np.float32(high) - np.float32(low)
    expected = width / np.float32(2**bits - 1)
    if np.isfinite(width) and expected >= np.finfo(np.float32).tiny:
        assert one.scale == expected
        assert one.zero_point == np.rint(np.float32(-low) / expected)
    symmetric = activation_quantizer(replace(feature, symmetric=True), Range(torch.tensor([low]), torch.tensor([high])))
    assert ActivationQuantizer.from_range(low, high, bits, symmetric=True).scale == symmetric.scale[0]


def test_random_ranges_have_one_rule():
    ends = torch.randn(2, 2000, generator=torch.Generator().manual_seed(0))
    low, high = ends.amin(0).clamp(max=0), ends.amax(0).clamp(min=0)
    scales, zero_points = range_scales(low, high, TensorFormat("int", 8, "tensor", symmetric=False))
    for *bounds, scale, zero_point in zip(*(each.tolist() for each in (low, high, scales, zero_points)), strict=True):
        assert ActivationQuantizer.from_range(*bounds, 8) == ActivationQuantizer(scale, int(zero_point), 8)


def test_a_range_as_wide_as_float32():
    """The width of the range is no float32, its scale is."""
    end = float(np.float32(3e38))
    quantizer = ActivationQuantizer.from_range(-end, end, 8)
    assert quantizer.scale == float(np.float32(2 * end / 255))
    assert quantizer.zero_point in (127, 128)
    value = torch.tensor([-end, -1e38, 0.0, 1e38])
    assert bool(((quantizer(value).double() - value.double()).abs() <= quantizer.scale).all())


@pytest.mark.parametrize("bounds", [(float("-inf"), 0.0), (0.0, float("inf")), (float("nan"), 1.0), (-1e39, 0.0)])
def test_a_range_that_is_not_finite(bounds):
    with pytest.raises(InvalidInput, match="not finite"):
        ActivationQuantizer.from_range(*bounds, 8)


def test_activation_of_another_type_comes_back_in_it():
    quantizer = ActivationQuantizer.from_range(-1, 1, 8)
    value = torch.linspace(-1.2, 1.2, 50)
    for kind in (torch.bfloat16, torch.float16, torch.float64):
        rounded = quantizer(value.to(kind))
        assert rounded.dtype == kind
        assert torch.equal(rounded, quantizer(value.to(kind).float()).to(kind))


def test_nan_stays_visible():
    assert ActivationQuantizer.from_range(-1, 1, 8)(torch.tensor([float("nan")])).isnan().all()


# against onnxruntime ---------------------------------------------------------------------------------------------


def qdq(value, scale, zero_point, kind, axis=None):
    """Codes (as int32) and values that onnxruntime's QuantizeLinear and DequantizeLinear give."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    helper, numbers = onnx.helper, onnx.TensorProto
    kinds = {"uint8": numbers.UINT8, "int8": numbers.INT8, "int4": numbers.INT4}
    options = {} if axis is None else {"axis": axis}
    scales = np.asarray(scale, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], **options),
            helper.make_node("Cast", ["q"], ["codes"], to=numbers.INT32),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], **options),
        ],
        "qdq",
        [helper.make_tensor_value_info("x", numbers.FLOAT, value.shape)],
        [helper.make_tensor_value_info("codes", numbers.INT32, value.shape),
         helper.make_tensor_value_info("y", numbers.FLOAT, value.shape)],
        [helper.make_tensor("scale", numbers.FLOAT, scales.shape, scales.ravel().tolist()),
         helper.make_tensor("zero", kinds[kind], scales.shape,
                            np.broadcast_to(zero_point, scales.shape).ravel().tolist())],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": value})


@pytest.mark.parametrize("bounds", [(-1.0, 3.0), (0.0, 6.0), (-0.7, 0.0), (0.1, 1e-3), (-1e4, 17.3)])
def test_activations_as_onnxruntime_rounds_them(bounds):
    low, high = sorted(bounds)
    quantizer = ActivationQuantizer.from_range(low, high, 8)
    rng = np.random.default_rng(0)
    ties = (np.arange(-260, 520) + 0.5) * quantizer.scale
    value = np.concatenate([rng.uniform(2 * low - 1, 2 * high + 1, 5000), ties, [low, high, 0.0]]).astype(np.float32)
    codes, rounded = qdq(value, quantizer.scale, quantizer.zero_point, "uint8")
    np.testing.assert_array_equal(quantizer.codes(torch.from_numpy(value)).numpy(), codes)
    np.testing.assert_array_equal(quantizer(torch.from_numpy(value)).numpy(), rounded)


def test_symmetric_activations_as_onnxruntime_rounds_them():
    quantizer = activation_quantizer(
        TensorFormat("int", 8, "tensor", True), Range(torch.tensor(-1.7), torch.tensor(3.1))
    )
    assert (quantizer.zero_point, quantizer.levels) == (0, (-128, 127))
    assert quantizer.scale == float(torch.tensor(3.1) / 127)
    rng = np.random.default_rng(0)
    value = np.concatenate([rng.uniform(-7, 7, 5000), (np.arange(-140, 140) + 0.5) * quantizer.scale])
    value = value.astype(np.float32)
    codes, rounded = qdq(value, quantizer.scale, 0, "int8")
    np.testing.assert_array_equal(quantizer.codes(torch.from_numpy(value)).numpy(), codes)
    np.testing.assert_array_equal(quantizer(torch.from_numpy(value)).numpy(), rounded)


@pytest.mark.parametrize(("bits", "kind"), [(8, "int8"), (4, "int4")])
@pytest.mark.parametrize("axis", [0, 1])
def test_weights_as_onnxruntime_rounds_them(bits, kind, axis):
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(6, 40)).astype(np.float32)
    scale = (np.abs(weight).max(1 - axis) / 2 ** (bits - 1) * rng.uniform(0.5, 1.1)).astype(np.float32)
    along = scale[:, None] if axis == 0 else scale[None]
    weight.flat[:80] = (np.round(weight / along).ravel()[:80] + 0.5) * np.broadcast_to(along, weight.shape).ravel()[:80]
    made = quantize_weight(torch.from_numpy(weight), weight_format(bits), torch.from_numpy(scale), axis)
    codes, rounded = qdq(weight, scale, 0, kind, axis)
    np.testing.assert_array_equal(made.codes.numpy(), codes)
    np.testing.assert_array_equal(made.dequantize().numpy(), rounded)
