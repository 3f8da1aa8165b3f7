"""Rooflines of matrix products: closed forms by hand, refusals."""

import numpy as np
import pytest
from bitfront.errors import InvalidInput, NotMeasured
from bitfront.hw_models import device
from bitfront.hw_models.gemm import GEMM_FORMATS, Gemms
from bitfront.hw_models.predictor import bounds_ms, roofline_ms
from bitfront.hw_models.predictor.features import TRAITS, features, groups


def products(rows):
    names, formats, m, n, k = zip(*rows, strict=True)
    return Gemms(np.array(names), np.array(formats), np.array(m), np.array(n), np.array(k))


def test_closed_forms():
    h100, a100 = device("nvidia-h100-sxm"), device("nvidia-a100-sxm-80gb")
    asked = products(
        [
            ("nvidia-h100-sxm", "bf16", 1, 4096, 8192),
            ("nvidia-a100-sxm-80gb", "int4_wo", 2, 4096, 4096),
            ("nvidia-h100-sxm", "fp8", 8192, 8192, 8192),
            ("nvidia-a100-sxm-80gb", "w8a8", 8192, 4096, 4096),
        ]
    )
    expected = [
        1e3 * (2 * 8192 + 2 * 4096 * 8192 + 2 * 4096) / (h100.bandwidth_gb_s * 1e9),
        1e3 * (2 * 2 * 4096 + 0.5 * 4096**2 + 2 * 2 * 4096) / (a100.bandwidth_gb_s * 1e9),
        1e3 * 2 * 8192**3 / (h100.peak_tera["fp8"] * 1e12),
        1e3 * 2 * 8192 * 4096**2 / (a100.peak_tera["int8"] * 1e12),
    ]
    np.testing.assert_allclose(roofline_ms(asked), expected, rtol=1e-12)
    np.testing.assert_allclose(np.maximum(*bounds_ms(asked)), roofline_ms(asked))


def test_every_kernel_format_has_traits():
    assert tuple(TRAITS) == GEMM_FORMATS


def test_rows_of_each_device_and_format():
    asked = products([("b", "bf16", 1, 1, 1), ("a", "fp8", 1, 1, 1), ("b", "bf16", 1, 1, 1), ("b", "fp8", 1, 1, 1)])
    found = {key: rows.tolist() for key, rows in groups(asked).items()}
    assert found == {("a", "fp8"): [1], ("b", "bf16"): [0, 2], ("b", "fp8"): [3]}


def test_features_are_numbers_and_see_the_alignment_of_m():
    rows = [("nvidia-t4", "fp16", m, 4096, 4096) for m in (16, 17)]
    found = features(products(rows), np.array([0.5, 0.5]), np.array([0.1, 0.2]))
    assert found[:, -2:].tolist() == [[0.5, 0.1], [0.5, 0.2]]
    assert np.isfinite(found).all()
    assert (found[0] != found[1]).sum() > 5


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        (("nvidia-a100-sxm-80gb", "fp8", 1, 64, 64), NotMeasured, "no fp8 arithmetic"),
        (("nvidia-t4", "int3", 1, 64, 64), InvalidInput, "unknown kernel format 'int3'"),
        (("nvidia-h9000", "bf16", 1, 64, 64), InvalidInput, "unknown device 'nvidia-h9000'"),
        (("nvidia-t4", "fp16", 0, 64, 64), InvalidInput, "below 1"),
    ],
)
def test_refused(row, error, message):
    with pytest.raises(error, match=message):
        roofline_ms(products([row]))
