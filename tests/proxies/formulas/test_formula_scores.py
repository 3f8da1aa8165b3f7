"""Scores of formulas: shapes, sharing of work, and formulas that are of no use."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.proxies.formulas import Formula, Memo, Scorer, Unusable, probe, random_formula, scores
from bitfront.proxies.formulas.values import Evaluation
from hypothesis import given, settings
from hypothesis import strategies as st

CASES = runpy.run_path(str(Path(__file__).parent / "formula_cases.py"))
FOUND = CASES["statistics"]()
naive_scores = CASES["naive_scores"]

seeds = st.integers(0, 2**32 - 1)


def parsed(text):
    return Formula.parse(text, FOUND.names)


def outcome(formula, memo=None):
    """The table, or why there is none."""
    try:
        return scores(formula, FOUND, memo)
    except Unusable as cause:
        return cause.reason


def test_a_table_of_sites_and_formats():
    table = scores(parsed("mean(square(error))"), FOUND)
    assert table.shape == FOUND.allowed.shape
    assert table.dtype == np.float64
    assert np.array_equal(np.isnan(table), ~FOUND.allowed)
    start, end = FOUND.offsets[2:4]
    expected = np.square(FOUND.format_tensors["error"][1, start:end].astype(np.float64)).mean()
    assert table[2, 1] == pytest.approx(expected)


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_random_formulas_are_finite_or_unusable(seed):
    found = outcome(random_formula(np.random.default_rng(seed), FOUND.names))
    if isinstance(found, str):
        assert "finite" in found or "one value" in found
    else:
        assert np.isfinite(found[FOUND.allowed]).all()
        assert np.isnan(found[~FOUND.allowed]).all()
        assert (np.nanmax(found, axis=1) > np.nanmin(found, axis=1)).any()


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([0, 2000, 1 << 20]))
def test_a_memo_changes_nothing(seed, budget):
    generator, memo = np.random.default_rng(seed), Memo(budget)
    formulas = [random_formula(generator, FOUND.names) for _ in range(8)]
    for formula in formulas * 2:
        with_memo, without = outcome(formula, memo), outcome(formula)
        assert isinstance(with_memo, str) == isinstance(without, str)
        assert with_memo == without if isinstance(without, str) else np.array_equal(with_memo, without, equal_nan=True)
        assert memo.bytes <= budget


def test_a_memo_computes_shared_parts_once(monkeypatch):
    computed = []
    plain = Evaluation._computed
    monkeypatch.setattr(
        Evaluation, "_computed", lambda self, node, values: computed.append(node.name) or plain(self, node, values)
    )
    memo = Memo(1 << 20)
    scores(parsed("mean(square(error) * gradient)"), FOUND, memo)
    assert sorted(computed) == ["error", "gradient", "mean", "multiply", "square"]
    computed.clear()
    scores(parsed("max(square(error) * gradient)"), FOUND, memo)
    assert computed == ["max"]
    computed.clear()
    scores(parsed("s = square(error); mean(s) + max(s)"), FOUND)
    assert computed.count("square") == 1


def test_a_memo_lets_the_least_recently_used_values_go():
    memo = Memo(3000)  # two values of `error` (three rows), or fewer
    first, second = parsed("mean(square(error))"), parsed("mean(abs(error))")
    scores(first, FOUND, memo)
    scores(second, FOUND, memo)
    assert memo.get(second.nodes[-2]) is not None
    assert memo.get(first.nodes[-2]) is None


def test_a_memo_belongs_to_one_network():
    memo = Memo(1000)
    scores(parsed("mean(error)"), FOUND, memo)
    with pytest.raises(InvalidInput, match="holds values of other statistics; use one memo"):
        scores(parsed("mean(error)"), CASES["statistics"](1), memo)


def test_what_does_not_depend_on_the_format_has_one_row():
    evaluation = Evaluation(FOUND, Memo(0))
    assert evaluation.value(parsed("mean(exp(weight))")).rows.shape == (1, 5)
    errors = evaluation.value(parsed("mean(error)"))
    assert errors.rows.shape == (3, 5)  # w4 and w4a8 agree
    assert errors.columns == (0, 1, 1, 2)
    assert len(evaluation.value(parsed("mean(error) * activation_bits")).rows) == 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mean(weight)", "does not depend on the format; use one of error, bits, activation_bits"),
        ("error * weight", "a number per element; aggregate it"),
        ("mean(error @ weight + weight)", "which do not belong to each other"),
        ("mean(eror)", "unknown input 'eror'; did you mean 'error'"),
        ("bits / bits", "every site has one value in all formats"),
        ("mean(weight) + sign(bits)", "every site has one value in all formats"),
        ("mean(square(square(square(exp(bits * macs)))) * error)", "its value is not finite at site layer"),
    ],
)
def test_unusable_formulas_say_why(text, reason):
    with pytest.raises(Unusable, match=reason) as caught:
        scores(Formula.parse(text), FOUND)
    assert reason in caught.value.reason
    assert isinstance(caught.value, InvalidInput)


def test_the_score_of_a_configuration_is_the_sum_over_the_sites():
    table = scores(parsed("frobenius(error) * macs"), FOUND)
    choice = np.array([0, 1, 2, 3, 1])
    changed = np.array([0, 1, 2, 1, 1])
    total, other = (table[np.arange(5), each].sum() for each in (choice, changed))
    assert other - total == pytest.approx(table[3, 1] - table[3, 3])


def test_values_that_are_not_offered_do_not_matter():
    error = FOUND.format_tensors["error"].copy()
    hidden = ~np.repeat(FOUND.allowed.T, FOUND.shapes.prod(axis=1), axis=1)
    error[hidden] = 1e30
    other = replace(FOUND, format_tensors={"error": error})
    for text in ("mean(relative(error))", "mean(sigmoid(relative(square(error)))) * bits", "log_abs(frobenius(error))"):
        formula = parsed(text)
        assert np.array_equal(scores(formula, FOUND), scores(formula, other), equal_nan=True)


def test_the_probe_is_the_corner_of_each_block():
    wide = CASES["statistics"](3)
    small = probe(wide)
    assert small.shapes.tolist() == [[4, 6], [1, 1], [3, 8], [4, 6], [2, 8]]
    start = wide.offsets[2]
    rows = wide.tensors["weight"][start : start + 27].reshape(3, 9)[:, :8]
    assert np.array_equal(small.tensors["weight"][small.offsets[2] : small.offsets[3]], rows.ravel())
    assert np.array_equal(small.format_scalars["bits"], wide.format_scalars["bits"])


def test_a_scorer_looks_at_the_probe_first():
    scorer = Scorer(FOUND)
    good, bad = parsed("mean(error)"), parsed("mean(weight) + sign(bits)")
    scorer.screen(good)
    with pytest.raises(Unusable, match="one value"):
        scorer.screen(bad)
    assert np.array_equal(scorer.scores(good), scores(good, FOUND), equal_nan=True)


@pytest.mark.parametrize("seed", range(40))
def test_random_formulas_agree_with_naive_ones(seed):
    """Of operators that do not make much of a rounding error."""
    unsteady = ("exp", "invert", "divide", "log", "log_abs", "power_of_half", "cosine", "sign")
    unsteady += ("softmax", "log_softmax", "normalise", "min_max", "unit", "macs")  # macs + error rounds error away
    weights = dict.fromkeys(unsteady, 0.0)
    formula = random_formula(np.random.default_rng(seed), FOUND.names, weights, max_size=10)
    exact = naive_scores(formula, FOUND)
    found = outcome(formula)
    if isinstance(found, str):
        assert "one value" in found
        assert np.all(np.nanmax(exact, axis=1) - np.nanmin(exact, axis=1) <= 1e-9 * np.nanmax(np.abs(exact), axis=1))
    else:
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)
