"""Formulas as data: text and back, canonical form, errors that say where."""

import doctest

import pytest
from bitfront.errors import InvalidInput
from bitfront.proxies.formulas import Formula, Node, expression
from bitfront.proxies.formulas.primitives import COMMUTATIVE, PRIMITIVES
from hypothesis import given, settings
from hypothesis import strategies as st

INPUTS = ("weight", "gradient", "error", "bits", "x1")


def extended(children):
    """Operators over smaller expressions; the same one may stand twice."""
    names = {arity: sorted(name for name, each in PRIMITIVES.items() if each.arity == arity) for arity in (1, 2)}
    unary = st.builds(lambda name, one: Node.of(name, one), st.sampled_from(names[1]), children)
    binary = st.builds(lambda name, one, two: Node.of(name, one, two), st.sampled_from(names[2]), children, children)
    squared = st.builds(lambda name, one: Node.of(name, one, one), st.sampled_from(names[2]), children)
    return unary | binary | squared


formulas = st.recursive(st.sampled_from(INPUTS).map(Node), extended, max_leaves=12).map(Formula)


def test_examples_of_the_docstring():
    assert doctest.testmod(expression).failed == 0
    assert doctest.testmod(expression).attempted > 3


@given(formulas)
def test_text_round_trip(formula):
    again = Formula.parse(str(formula))
    assert again == formula == Formula.parse(str(formula), formula.inputs)
    assert eval(repr(formula), {"Formula": Formula}) == formula  # noqa: S307
    assert hash(again) == hash(formula)
    assert (again.digest, again.size, str(again)) == (formula.digest, formula.size, str(formula))


@given(formulas)
def test_nodes_stand_once_and_after_their_arguments(formula):
    seen = set()
    for node in formula.nodes:
        assert node not in seen
        assert seen.issuperset(node.arguments)
        seen.add(node)
    assert formula.nodes[-1] == formula.root
    assert formula.size == len(seen)
    assert set(formula.inputs) == {node.name for node in seen if node.is_input}


@given(st.sampled_from(sorted(COMMUTATIVE)), formulas, formulas)
def test_arguments_of_commutative_operators_are_sorted(name, one, two):
    assert Node.of(name, one.root, two.root) == Node.of(name, two.root, one.root)


@given(formulas, formulas)
def test_equal_digests_mean_equal_text(one, two):
    assert (one == two) == (str(one) == str(two)) == (one.digest == two.digest)


def test_the_order_of_other_operators_matters():
    assert Formula.parse("weight - error") != Formula.parse("error - weight")
    assert Formula.parse("weight @ error") != Formula.parse("error @ weight")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("mean((a*b)+c)", "mean(c + a * b)"),
        ("a - (b - c)", "a - (b - c)"),
        ("(a - b) - c", "a - b - c"),
        ("a / (b * c)", "a / (b * c)"),
        ("(a + b) * -c", "negate(c) * (a + b)"),
        ("-(-a)", "negate(negate(a))"),
        ("add(a, b)", "a + b"),
        ("a @ b @ c", "a @ b @ c"),
        (" mean ( a\n*b ) ", "mean(a * b)"),
        ("s = square(a); s * s", "x1 = square(a); x1 * x1"),
        ("square(a) + square(a)", "x1 = square(a); x1 + x1"),
        ("x1 = abs(x2); x1 / exp(x1)", "x1 = abs(x2); x1 / exp(x1)"),
        ("abs(x1) / exp(abs(x1))", "x2 = abs(x1); x2 / exp(x2)"),
    ],
)
def test_canonical_text(text, canonical):
    assert str(Formula.parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mean(gradent)", r"character 6 \('gradent'\): unknown input 'gradent'; did you mean 'gradient'\?"),
        ("meen(weight)", r"character 1 \('meen'\): unknown operator 'meen'; did you mean 'mean'\?"),
        ("mean(weight", r"character 12 \(the end\): expected '\)'"),
        ("mean(weight))", r"character 13 \('\)'\): expected an operator or the end"),
        ("mean(weight, error)", r"character 1 \('mean'\): mean takes 1 argument, got 2"),
        ("cosine(weight)", r"cosine takes 2 arguments, got 1"),
        ("weight +", r"character 9 \(the end\): expected an input"),
        ("2 * weight", r"character 1 \('2'\): expected an input"),
        ("", r"character 1 \(the end\)"),
        ("mean", r"mean is an operator; give its arguments"),
        ("mean = weight; mean", r"the name 'mean' is taken"),
        ("weight = bits; weight", r"the name 'weight' is taken"),
        ("a = bits", r"character 9 \(the end\): expected ';'"),
        ("a = bits; b", r"unknown input 'b'"),
        ("weight error", r"character 8 \('error'\): expected an operator or the end"),
        ("weight § error", r"character 8 \('§'\): expected an operator or the end"),
        ("(" * 60 + "weight" + ")" * 60, "nested more than 50 deep"),
        ("weight" + " + weight" * 1000, "characters; expected at most 4000"),
    ],
)
def test_errors_name_the_position_and_the_nearest_name(text, told):
    with pytest.raises(InvalidInput, match=told):
        Formula.parse(text, INPUTS)


tokens = st.sampled_from([*"+-*/@(),;=§ 1", *INPUTS, "mean", "cosine", "square", "a"])


@settings(max_examples=300)
@given(st.text(max_size=40) | st.lists(tokens, max_size=25).map(" ".join))
def test_any_text_is_a_formula_or_refused(text):
    try:
        formula, told = Formula.parse(text), ""
    except InvalidInput as cause:
        formula, told = None, str(cause)
    assert "character" in told or Formula.parse(str(formula)) == formula


def test_without_a_list_any_input_is_taken():
    assert Formula.parse("mean(whatever)").inputs == ("whatever",)


def test_parts_are_exchanged_wherever_they_occur():
    formula = Formula.parse("s = square(error); mean(s * weight) + max(s)")
    changed = formula.replaced({Formula.parse("square(error)").root: Node("bits")})
    assert changed == Formula.parse("mean(bits * weight) + max(bits)")
    assert formula.replaced({}) == formula


def test_deep_sharing_costs_neither_time_nor_text():
    node = Node("weight")
    for _ in range(200):
        node = Node.of("add", node, node)
    formula = Formula(Node.of("mean", node))
    assert formula.size == 202
    assert len(str(formula)) < 6000
    assert formula.digest == Formula(Node.of("mean", node)).digest
