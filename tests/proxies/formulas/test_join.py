"""Joined formulas: both parents whole, units that may meet, never too large and never idle."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from bitfront.proxies.formulas import Formula, fault, join, random_formula, scores
from bitfront.proxies.formulas.validity import idle
from hypothesis import given, settings
from hypothesis import strategies as st

CASES = runpy.run_path(str(Path(__file__).parent / "formula_cases.py"))
STATISTICS = CASES["statistics"]()
INPUTS = STATISTICS.names


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(5, 30))
def test_what_comes_out_fits(seed, size):
    generator = np.random.default_rng(seed)
    one, other = (random_formula(generator, INPUTS, max_size=min(size, 12)) for _ in range(2))
    child = join(one, other, generator, INPUTS, max_size=size)
    assert fault(child, INPUTS, size) is None
    assert not idle(child, INPUTS)
    if child != one:
        assert {one.root, other.root} <= set(child.nodes)


def test_products_take_the_branches_as_they_are_and_sums_relative_to_their_mean_size():
    one, other = Formula.parse("sum(square(error))"), Formula.parse("bits")
    found = {str(join(one, other, np.random.default_rng(seed), INPUTS)) for seed in range(60)}
    assert found == {
        str(Formula.parse(text))
        for text in (
            "sum(square(error)) * bits",
            "sum(square(error)) / bits",
            "relative(sum(square(error))) + relative(bits)",
            "maximum(relative(sum(square(error))), relative(bits))",
            "minimum(relative(sum(square(error))), relative(bits))",
        )
    }


def test_a_product_multiplies_the_tables():
    one, other = Formula.parse("sum(square(error))"), Formula.parse("bits")
    tables = [scores(each, STATISTICS) for each in (one, other)]
    product = scores(Formula.parse(f"({one}) * ({other})"), STATISTICS)
    np.testing.assert_allclose(product, tables[0] * tables[1])


@pytest.mark.parametrize("size", [3, 4])
def test_a_child_that_is_too_large_is_not_born(size):
    one, other = Formula.parse("sum(square(error))"), Formula.parse("bits")
    assert all(join(one, other, np.random.default_rng(seed), INPUTS, max_size=size) == one for seed in range(20))
