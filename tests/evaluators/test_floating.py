"""Rounding to narrower floats, against ml_dtypes."""

import ml_dtypes
import numpy as np
import pytest
import torch
from bitfront.errors import UnknownFormat
from bitfront.evaluators.quantizers import round_to_float
from bitfront.formats import Format

BF16, FP16, FP32 = (Format.parse(name).weight for name in ("bf16", "fp16", "fp32"))


def test_bf16_rounds_as_ml_dtypes_does():
    rng = np.random.default_rng(0)
    value = np.concatenate([rng.normal(size=5000), [0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, 1e-40, 3e38]])
    value = value.astype(np.float32)
    expected = value.astype(ml_dtypes.bfloat16).astype(np.float32)
    rounded = round_to_float(torch.from_numpy(value), BF16)
    np.testing.assert_array_equal(rounded.numpy(), expected)
    assert torch.equal(round_to_float(rounded, BF16), rounded)


def test_a_float_as_narrow_as_the_tensor_changes_nothing():
    for value in (torch.randn(5), torch.randn(5).half(), torch.randn(5).bfloat16()):
        assert round_to_float(value, FP32) is value
    assert round_to_float(torch.ones(3).half() * 1.001, BF16).dtype == torch.float16


def test_double_is_rounded_to_both():
    value = torch.tensor([1 + 2.0**-30], dtype=torch.float64)
    assert round_to_float(value, FP32).tolist() == [1.0]
    assert round_to_float(value, FP32).dtype == torch.float64


def test_fp16_rounds_as_numpy_does_and_overflows_to_infinity():
    value = np.concatenate([np.random.default_rng(0).normal(size=5000), [65504.0, 65519.0, 65520.0, 1e-8, -3e-5]])
    value = value.astype(np.float32)
    with np.errstate(over="ignore"):
        expected = value.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(round_to_float(torch.from_numpy(value), FP16).numpy(), expected)
    assert np.isinf(expected[5002])


def test_large_tensors_of_any_layout_are_rounded_in_parts():
    value = torch.randn(3, 70, 33, 40)
    for each in (
        value,
        value.to(memory_format=torch.channels_last),
        value.transpose(1, 3),
        value[:, ::2],
        value[:, 1:],
    ):
        rounded = round_to_float(each, BF16)
        assert torch.equal(rounded, each.bfloat16().float())


def test_the_gradient_of_a_cast_stays():
    value = torch.randn(5, requires_grad=True)
    round_to_float(value, BF16).sum().backward()
    assert value.grad.tolist() == [1.0] * 5


def test_a_minifloat_needs_a_scale():
    with pytest.raises(UnknownFormat, match="a 8-bit float needs a scale; floats without one: bf16, fp16, fp32"):
        round_to_float(torch.ones(1), Format.parse("fp8").weight)
