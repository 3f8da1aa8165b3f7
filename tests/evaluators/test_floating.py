"""Rounding to narrower floats, against ml_dtypes."""

import ml_dtypes
import numpy as np
import pytest
import torch
from bitfront.errors import UnknownFormat
from bitfront.evaluators.quantizers import round_to_float
from bitfront.formats import TensorFormat

BF16, FP32 = TensorFormat("float", 16), TensorFormat("float", 32)


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


def test_unknown_width():
    with pytest.raises(UnknownFormat, match="no 8-bit floating-point format"):
        round_to_float(torch.ones(1), TensorFormat("float", 8))
