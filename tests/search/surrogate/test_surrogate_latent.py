"""The latent scale: a rising map and its inverse, with and without saturation, for any excess."""

import math

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.measurement import Measurement
from bitfront.search.surrogate import Latent
from hypothesis import given
from hypothesis import strategies as st


def measured(value, width=0.0):
    return Measurement("error", "validation", value, value - width, value + width, 0.0, 10)


@given(
    st.floats(-5, 5),
    st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=8),
    st.sampled_from([math.inf, 1.1, 2.0]),
)
def test_inverse_undoes_forward_and_order_is_kept(float_quality, excesses, factor):
    quality = float_quality + np.array(excesses)
    scale = Latent(float_quality, 0.0, factor * max(excesses))
    latent = scale.forward(quality)
    assert scale.inverse(latent) == pytest.approx(quality, rel=1e-6, abs=1e-6)
    assert (np.diff(latent[np.argsort(quality)]) >= 0).all()


def test_log_slope_is_the_derivative_of_the_latent_by_the_log_of_the_excess():
    scale, quality, step = Latent(0.5, 0.1, 3.0), np.array([0.6, 1.5, 3.0]), 1e-6
    excess = quality - 0.5 + 0.1
    rise = scale.forward(0.4 + excess * math.exp(step)) - scale.forward(0.4 + excess * math.exp(-step))
    assert scale.log_slope(quality) == pytest.approx(np.log(rise / (2 * step)), rel=1e-5)
    assert Latent(0.5).log_slope(quality) == pytest.approx(np.zeros(3))


def test_no_offset_where_every_excess_is_clear_of_its_error():
    assert Latent.of(0.2, [measured(0.5, 0.05), measured(0.9, 0.1)]).offset == 0


def test_an_excess_at_or_below_zero_is_lifted_to_its_standard_error():
    scale = Latent.of(0.3, [measured(0.25, 0.0392), measured(0.3, 0.04), measured(0.7, 0.04)])
    lowest = 0.25 - 0.3 + scale.offset
    assert lowest == pytest.approx(0.02, rel=1e-3)
    latent = scale.forward(np.array([0.25, 0.3, 0.7]))
    assert np.isfinite(latent).all()
    assert (np.diff(latent) > 0).all()
    assert scale.inverse(latent) == pytest.approx([0.25, 0.3, 0.7])


def test_equal_qualities_without_intervals_still_have_a_scale():
    scale = Latent.of(0.3, [measured(0.3), measured(0.3)])
    assert np.isfinite(scale.forward(np.array([0.3, 0.4]))).all()


def test_saturating_scales_hold_what_was_measured():
    scale = Latent(0.1)
    for each in scale.saturating(np.array([0.2, 2.1]))[1:]:
        assert each.ceiling > 2.0
        assert each.inverse(np.array([500.0]))[0] == pytest.approx(0.1 + each.ceiling)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(InvalidInput, match="leave failed configurations out"):
        Latent.of(0.0, [measured(value)])
