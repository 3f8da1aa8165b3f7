"""Random formulas, mutation and crossover: valid, bounded, reproducible, led by weights."""

import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.proxies.formulas import (
    MAX_SIZE,
    PRIMITIVES,
    STRUCTURES,
    Formula,
    crossover,
    fault,
    mutate,
    random_formula,
)
from bitfront.proxies.formulas.validity import idle
from hypothesis import given, settings
from hypothesis import strategies as st

CASES = runpy.run_path(str(Path(__file__).parent / "formula_cases.py"))
INPUTS = CASES["statistics"]().names

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(5, MAX_SIZE)


def check(formula, size):
    assert fault(formula, INPUTS, size) is None
    assert not idle(formula, INPUTS)
    assert Formula.parse(str(formula), INPUTS) == formula


@settings(max_examples=200, deadline=None)
@given(seeds, st.sampled_from(STRUCTURES), sizes)
def test_random_formulas_fit(seed, structure, size):
    formula = random_formula(np.random.default_rng(seed), INPUTS, structure=structure, max_size=size)
    check(formula, size)
    assert formula == random_formula(np.random.default_rng(seed), INPUTS, structure=structure, max_size=size)
    if structure == "chain":
        assert all(len(node.arguments) <= 1 for node in formula.nodes)
        assert len(formula.inputs) == 1
    if structure == "tree":
        assert sum(len(node.arguments) == 2 for node in formula.nodes) == 1


@settings(max_examples=150, deadline=None)
@given(seeds, sizes)
def test_mutants_fit_and_differ(seed, size):
    generator = np.random.default_rng(seed)
    formula = random_formula(generator, INPUTS, max_size=size)
    text = str(formula)
    for _ in range(5):
        child = mutate(formula, generator, INPUTS, max_size=size)
        check(child, size)
        assert child != formula
    assert str(formula) == text


@settings(max_examples=150, deadline=None)
@given(seeds, sizes)
def test_children_fit_and_are_made_of_both_parents(seed, size):
    generator = np.random.default_rng(seed)
    one, other = (random_formula(generator, INPUTS, max_size=size) for _ in range(2))
    child = crossover(one, other, generator, INPUTS, max_size=size)
    check(child, size)
    assert {node.name for node in child.nodes} <= {node.name for node in (*one.nodes, *other.nodes)}


def test_every_structure_shares_and_reaches_every_operator_and_input():
    generator = np.random.default_rng(0)
    drawn = [random_formula(generator, INPUTS) for _ in range(1200)]
    names = Counter(node.name for formula in drawn for node in formula.nodes)
    assert set(names) == {*PRIMITIVES, *INPUTS}
    assert any("x1 = " in str(formula) for formula in drawn)
    assert len(set(drawn)) > 900


def test_mutation_changes_operators_inputs_and_size():
    generator = np.random.default_rng(0)
    formula = Formula.parse("mean(square(error) * gradient)")
    children = {str(mutate(formula, generator, INPUTS)) for _ in range(400)}
    assert {"mean(gradient * abs(error))", "mean(weight * square(error))", "mean(error * gradient)"} <= children
    assert {Formula.parse(child).size - formula.size for child in children} >= {-1, 0, 1, 2}
    assert len(children) > 150


def test_crossover_exchanges_parts():
    generator = np.random.default_rng(0)
    one, other = Formula.parse("mean(square(error) * weight)"), Formula.parse("bits * max(abs(gradient))")
    children = {str(crossover(one, other, generator, INPUTS)) for _ in range(200)}
    assert {
        "mean(abs(gradient) * square(error))",
        "mean(weight * square(bits))",
        "mean(gradient * square(error))",
    } <= children
    assert str(one) not in children
    assert all("mean(" in child for child in children)


def test_crossover_with_itself_may_give_the_parent():
    formula = Formula.parse("mean(error)")
    assert fault(crossover(formula, formula, np.random.default_rng(0), INPUTS), INPUTS) is None


def test_weights_lead_the_draws():
    generator = np.random.default_rng(0)
    weights = {"log_abs": 0.0, "square": 50.0, "gradient": 0.0, "mean": 0.0}
    formulas = [random_formula(generator, INPUTS, weights) for _ in range(200)]
    children = [mutate(formula, generator, INPUTS, weights) for formula in formulas]
    names = Counter(node.name for formula in (*formulas, *children) for node in formula.nodes)
    assert names["log_abs"] == names["gradient"] == names["mean"] == 0
    assert names["square"] > 3 * names["abs"]


def test_weights_that_choose_nothing_are_refused():
    nothing = dict.fromkeys(("error", "bits", "activation_bits"), 0.0)
    with pytest.raises(InvalidInput, match="the weights of error, bits, activation_bits are all 0"):
        random_formula(np.random.default_rng(0), INPUTS, nothing)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_weights_that_are_no_chances_are_refused(weight):
    with pytest.raises(InvalidInput, match=f"the weight of exp is {weight}; expected a finite number"):
        random_formula(np.random.default_rng(0), INPUTS, {"exp": weight})


def test_elements_and_numbers_per_site_have_the_same_chance():
    generator = np.random.default_rng(0)
    inputs = {"error": "format_tensors", **{f"f{index}": "format_scalars" for index in range(30)}}
    leaves = [name for _ in range(400) for name in random_formula(generator, inputs, structure="chain").inputs]
    assert 0.35 < leaves.count("error") / len(leaves) < 0.65


def test_without_a_format_no_formula():
    with pytest.raises(InvalidInput, match="no input of weight depends on the format"):
        random_formula(np.random.default_rng(0), {"weight": "tensors"})


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InvalidInput, match="1000 draws gave no valid formula of at most 0 nodes"):
        random_formula(np.random.default_rng(0), INPUTS, max_size=0)
    with pytest.raises(InvalidInput, match=r"1000 changes of mean\(error\) gave no valid formula of at most 0 nodes"):
        mutate(Formula.parse("mean(error)"), np.random.default_rng(0), INPUTS, max_size=0)
    with pytest.raises(InvalidInput, match=r"formula error: it gives a number per element"):
        crossover(Formula.parse("bits"), Formula.parse("error"), np.random.default_rng(0), INPUTS)


@pytest.mark.parametrize(
    ("text", "useless"),
    [
        ("mean(bits)", True),
        ("mean(error - error)", True),
        ("softmax(mean(error))", True),
        ("mean(error / error)", True),
        ("bits @ bits", True),
        ("mean(normalise(error)) + bits", True),
        ("sum(softmax(error))", True),
        ("max(softmax(error))", False),
        ("mean(error + error)", False),
        ("cosine(bits, error)", False),
        ("mean(error - weight)", False),
        ("unknown", True),
    ],
)
def test_operators_that_say_nothing(text, useless):
    assert idle(Formula.parse(text), INPUTS) == useless
