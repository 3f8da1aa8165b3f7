"""Every operator against a naive one: one site, one format, one element at a time, in float64."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from bitfront.proxies.formulas import PRIMITIVES, Formula, scores
from bitfront.proxies.formulas.blockwise import AGGREGATES, NORMALISATIONS, Blocks, matrix_product
from bitfront.proxies.formulas.elementwise import BINARY, UNARY
from bitfront.proxies.formulas.primitives import named
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

CASES = runpy.run_path(str(Path(__file__).parent / "formula_cases.py"))
statistics, naive_scores = CASES["statistics"], CASES["naive_scores"]


def agrees(text):
    found = statistics()
    formula = Formula.parse(text, found.names)
    np.testing.assert_allclose(scores(formula, found), naive_scores(formula, found), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("operator", named("elementwise", "normalisation", "relative"))
@pytest.mark.parametrize("argument", ["error", "weight", "trace", "error @ weight"])
def test_unary_operators(operator, argument):
    agrees(f"mean(bits + bits * {operator}({argument}))")


@pytest.mark.parametrize("operator", named("aggregate"))
@pytest.mark.parametrize("argument", ["error", "gradient", "macs", "weight @ error"])
def test_aggregates(operator, argument):
    agrees(f"bits + bits * {operator}({argument})")


@pytest.mark.parametrize("operator", named("binary", "cosine", "matrix_product"))
@pytest.mark.parametrize(
    "pair", ["error, weight", "weight, gradient", "bits, error", "macs, trace", "weight @ error, bits", "bits, trace"]
)
def test_operators_of_two_arguments(operator, pair):
    one, other = pair.split(", ")
    symbols = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "matrix_product": "@"}
    joined = f"({one}) {symbols[operator]} ({other})" if operator in symbols else f"{operator}({one}, {other})"
    agrees(f"activation_bits * bits + mean({joined})")


@pytest.mark.parametrize(
    "text",
    [
        "sum(softmax(log_abs(gradient)) * sqrt(relu(weight))) * bits",
        "mean(square(gradient) * square(error)) * macs",
        "trace * frobenius(error) * frobenius(error)",
        "x = square(error); sum(x * gradient) / l1_norm(x + bits)",
        "max(relative(error * weight) @ gradient) + log(macs) * power_of_half(minimum(bits, activation_bits))",
        "mean(activation_bits * (error + bits))",
        "mean((weight @ error) @ (weight @ gradient))",
        "mean(bits @ weight) - mean(bits @ (error @ error))",
    ],
)
def test_whole_formulas(text):
    agrees(text)


def test_every_operator_is_named_and_has_a_naive_twin():
    naive = {*CASES["NAIVE_UNARY"], *CASES["NAIVE_BINARY"], *CASES["NAIVE_BLOCK"]}
    assert {*PRIMITIVES} == naive | {"relative", "cosine", "matrix_product"}


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(arrays(np.float32, 7, elements=finite), arrays(np.float32, 7, elements=finite))
def test_elementwise_operators_are_defined_for_every_finite_input(x, y):
    with np.errstate(all="ignore"):
        for function in UNARY.values():
            assert not np.isnan(function(x)).any()
            assert function(x).dtype == np.float32
        for function in BINARY.values():
            assert not np.isnan(function(x, y)).any()


@pytest.mark.parametrize("function", UNARY.values(), ids=UNARY)
def test_small_and_large_numbers_stay_finite_where_they_can(function):
    assert np.isfinite(function(np.array([0.0, 1e-30, -1e-30, 1e18, -1e18], dtype=np.float32))).all()


def test_an_estimate_from_a_block_is_that_of_the_whole_where_all_is_drawn():
    x = np.array([[1.0, -2.0, 3.0, 0.5]])
    blocks = Blocks(np.array([4]), np.array([4.0]))
    assert AGGREGATES["sum"](x, blocks)[0, 0] == pytest.approx(2.5)
    assert AGGREGATES["l1_norm"](x, blocks)[0, 0] == pytest.approx(6.5)
    assert AGGREGATES["frobenius"](x, blocks)[0, 0] == pytest.approx(np.linalg.norm(x))
    assert NORMALISATIONS["softmax"](x, blocks).sum() == pytest.approx(1.0)
    tenfold = Blocks(np.array([4]), np.array([40.0]))
    assert AGGREGATES["sum"](x, tenfold)[0, 0] == pytest.approx(25.0)
    assert AGGREGATES["sum"](NORMALISATIONS["softmax"](x, tenfold), tenfold)[0, 0] == pytest.approx(1.0)


def test_sums_of_many_small_numbers_run_in_float64():
    x = np.full((1, 200_000), 0.1, dtype=np.float32)
    x[0, 0] = 1e7
    total = Blocks(np.array([200_000]), np.array([2e5])).sum(x)[0, 0]
    assert total == pytest.approx(float(x.astype(np.float64).sum()), rel=1e-12)


def test_matrix_products_of_mixed_shapes():
    shapes = np.array([(2, 3), (1, 4), (2, 3)])
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 16)), generator.normal(size=(1, 16))
    found = matrix_product(x, y, shapes)
    assert found.shape == (2, 9)
    first = x[1, :6].reshape(2, 3) @ y[0, :6].reshape(2, 3).T
    last = x[1, 10:].reshape(2, 3) @ y[0, 10:].reshape(2, 3).T
    assert np.allclose(found[1], [*first.ravel(), x[1, 6:10] @ y[0, 6:10], *last.ravel()])
