"""The law of a device's products: limits, derivatives, recovery."""

import math

import numpy as np
import pytest
from bitfront.errors import NotMeasured
from bitfront.hw_models import device
from bitfront.hw_models.gemm import Gemms
from bitfront.hw_models.law import PARAMETERS, SPREAD, START, fit, jacobian, log_ms, work
from hypothesis import given
from hypothesis import strategies as st

H100 = device("nvidia-h100-sxm")


def grid(form: str, rows: int = 400, seed: int = 0) -> Gemms:
    generator = np.random.default_rng(seed)
    m, n, k = (2 ** generator.integers(low, 14, rows) for low in (0, 5, 5))
    return Gemms(np.full(rows, H100.name), np.full(rows, form), m, n, k)


def naive(theta, m, n, k, weight, entering, peak, bandwidth):
    t0, e_c, e_b, corner, cache, rho, tau, alpha, k_h, n_h = (math.exp(value) for value in theta)
    moved = n * k * weight + m * k * entering + 2 * m * n
    compute = 2 * m * n * k / (e_c * peak * 1e9) * (1 + k_h / k) * (1 + n_h / n)
    cold = 1 / (1 + math.exp(-1.5 * math.log(moved / cache)))
    memory = moved / (bandwidth * 1e6) / e_b * (cold + (1 - cold) / rho)
    p = 1 + corner
    body = (compute**p + memory**p) ** (1 / p)
    return math.log(t0 + tau * k + alpha * m * k / (bandwidth * 1e6) + body)


@given(st.lists(st.floats(-2, 2), min_size=10, max_size=10), st.sampled_from(["bf16", "fp8", "int4_wo"]))
def test_agrees_with_the_formula_written_out(offsets, form):
    theta = START + SPREAD * np.array(offsets) / 2
    gemms = grid(form, 5)
    weight, entering, peak = {"bf16": (2, 2, 989.5), "fp8": (1, 1, 1979), "int4_wo": (0.5, 2, 989.5)}[form]
    expected = [
        naive(theta, int(m), int(n), int(k), weight, entering, peak, 3350)
        for m, n, k in zip(gemms.m, gemms.n, gemms.k, strict=True)
    ]
    np.testing.assert_allclose(log_ms(theta, work(gemms, H100)), expected, rtol=1e-9, atol=1e-9)


def test_becomes_the_roofline_when_nothing_is_lost():
    nothing = -60.0
    theta = np.array([nothing, 0, 0, math.log(1e3), 0, 0, nothing, nothing, nothing, nothing])
    demand = work(grid("bf16"), H100)
    roofline = np.log(np.maximum(demand.compute_ms, demand.memory_ms))
    np.testing.assert_allclose(log_ms(theta, demand), roofline, atol=1e-3)


def test_derivatives_are_those_of_finer_differences():
    demand = work(grid("fp8", 50), H100)
    fine = jacobian(START, demand, step=1e-6)
    np.testing.assert_allclose(jacobian(START, demand), fine, atol=1e-5)
    assert fine.shape == (50, len(PARAMETERS))


def test_a_fit_finds_the_law_that_made_the_times():
    truth = START + 0.5 * SPREAD * np.array([1, -1, 1, 0, 0, 0, 1, -1, 0, 1])
    demand = work(grid("fp8", 600), H100)
    found = fit(demand, log_ms(truth, demand))
    np.testing.assert_allclose(log_ms(found, demand), log_ms(truth, demand), atol=0.05)


def test_a_fit_survives_outliers():
    demand = work(grid("bf16", 600), H100)
    measured = log_ms(START, demand)
    measured[::20] += 3.0
    error = np.abs(log_ms(fit(demand, measured), demand) - log_ms(START, demand))
    assert np.median(error) < 0.05


def test_longer_products_never_take_less():
    for form in ("bf16", "nvfp4", "w8a8"):
        sheet = device("nvidia-b200")
        one = grid(form, 200)
        base = log_ms(START, work(one, sheet))
        for column in ("m", "n", "k"):
            sizes = {name: getattr(one, name) * (2 if name == column else 1) for name in ("m", "n", "k")}
            assert (log_ms(START, work(Gemms(one.device, one.format, **sizes), sheet)) >= base - 1e-12).all()


def test_refuses_arithmetic_that_the_device_lacks():
    with pytest.raises(NotMeasured, match="nvidia-h100-sxm has no fp4 arithmetic"):
        work(grid("nvfp4"), H100)
    with pytest.raises(NotMeasured, match="no kernel of products is called 'int3'"):
        work(grid("int3"), H100)
