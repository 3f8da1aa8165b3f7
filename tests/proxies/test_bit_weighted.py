"""Scores times bits: the table ranks configurations as the sum of score x bits does."""

import math
import runpy
from pathlib import Path

import numpy as np
import pytest
from bitfront.errors import NonFiniteOutput
from bitfront.formats import Format
from bitfront.proxies.bit_weighted import bit_weighted, noise_bits, weighted_mean
from hypothesis import given
from hypothesis import strategies as st

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images = CASES["images"]


@given(st.integers(2, 8), st.integers(2, 8))
def test_noise_bits_are_those_of_one_quantizer_with_the_noise_of_both(weight, activation):
    bits = noise_bits(Format.parse(f"w{weight}a{activation}"))
    assert 4.0**-bits == pytest.approx(4.0**-weight + 4.0**-activation)
    assert bits < min(weight, activation)


def test_noise_bits_are_the_weights_where_activations_stay():
    assert [noise_bits(Format.parse(name)) for name in ("w2", "w4g32", "fp32")] == [2, 4, 32]


def test_sums_rank_configurations_as_importance_times_bits():
    _, space, _ = images("kl", ("w2", "w3", "w4", "w8", "fp32"))
    importance = np.array([3.0, 0.5])
    values = bit_weighted(space, importance, "some")
    assert np.all(values[:, space.formats.index("fp32")] == 0)
    bits = np.array([Format.parse(name).weight_bits for name in space.formats])
    sums, wanted = [], []
    for first in range(len(bits)):
        for second in range(len(bits)):
            sums.append(values[0, first] + values[1, second])
            wanted.append(importance[0] * bits[first] + importance[1] * bits[second])
    slope, offset = np.polyfit(wanted, sums, 1)
    assert slope < 0
    np.testing.assert_allclose(np.polyval([slope, offset], wanted), sums, atol=1e-12)


def test_formats_that_a_site_does_not_offer_are_nan():
    _, space, _ = images("kl", ("w4", "w4a8d", "fp32"))
    values = bit_weighted(space, np.ones(2), "some")
    assert np.array_equal(np.isnan(values), ~space.allowed)
    assert np.isnan(values).any()


def test_importances_that_are_not_finite_are_refused_by_name():
    _, space, _ = images("kl")
    with pytest.raises(NonFiniteOutput, match="proxy some: the score of site fc is inf"):
        bit_weighted(space, np.array([1.0, math.inf]), "some")


def test_sites_without_any_importance_score_zero():
    _, space, _ = images("kl")
    assert np.all(bit_weighted(space, np.zeros(2), "some") == 0)


def test_the_standard_error_is_that_of_the_mean():
    _, space, _ = images("kl", ("w4", "fp32"))
    draws = [np.array([1.0, 2.0]), np.array([3.0, 2.0]), np.array([2.0, 2.0])]
    values, error = weighted_mean(space, draws, "some")
    column = space.formats.index("w4")
    np.testing.assert_allclose(values[:, column], 0.5 * (1 - 4 / 32))
    np.testing.assert_allclose(error[:, column], [values[0, column] * 1 / math.sqrt(3) / 2, 0])
    assert weighted_mean(space, draws[:1], "some")[1] is None
