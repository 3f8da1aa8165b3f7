"""How a job names a formula of its own: by expression or by file."""

import json

import pytest
from bitfront.errors import InvalidInput
from bitfront.proxies import get_proxy
from bitfront.proxies.formulas import Formula
from bitfront.proxies.formulas.library import Entry, write_library
from bitfront.proxies.formulas.reference import reference, resolved

EXPRESSION = "mean(fisher * square(error))"


def entry(name, expression=EXPRESSION, orientation=1):
    return Entry(name, "evolved", expression, orientation, "one", "a test", {"networks": ["net"]}, {"rho": 0.5})


def test_other_names_stay_as_they_are():
    assert resolved("weight_mse") == "weight_mse"


def test_an_expression_is_put_into_its_own_form():
    assert resolved("formula: mean(square(error)*fisher)") == resolved(f"formula:{EXPRESSION}")
    proxy = get_proxy(f"formula:{EXPRESSION}")
    assert proxy.formula == Formula.parse(EXPRESSION)
    assert (proxy.name, proxy.orientation) == (resolved(f"formula:{EXPRESSION}"), 1)


def test_a_file_is_replaced_by_its_first_formula(tmp_path):
    write_library(tmp_path / "mine.json", [entry("best"), entry("next", "mean(error)")])
    assert resolved("formula:mine.json", tmp_path) == resolved(f"formula:{EXPRESSION}")
    assert get_proxy(f"formula:{tmp_path}/mine.json").formula == Formula.parse(EXPRESSION)


def test_what_is_better_the_larger_it_is_comes_with_a_minus(tmp_path):
    write_library(tmp_path / "mine.json", [entry("best", orientation=-1)])
    name = resolved("formula:mine.json", tmp_path)
    assert Formula.parse(name.removeprefix("formula:")) == Formula.parse(f"-{EXPRESSION}")
    named = "x1 = square(error); mean(x1 / exp(x1))"
    assert resolved(reference(named, -1)) == reference(named, -1) != reference(named, 1)


def test_what_is_no_formula_is_one_clear_line(tmp_path):
    (tmp_path / "empty.json").write_text(json.dumps({"version": 1, "formulas": []}))
    (tmp_path / "odd.json").write_text("[]")
    for name, message in (
        ("formula:nothing.json", "bitfront proxies evolve"),
        ("formula:empty.json", "holds no formula"),
        ("formula:odd.json", "no library"),
        ("formula:maen(error)", "mean"),
        ("formula:", "formula"),
    ):
        with pytest.raises(InvalidInput, match=message) as caught:
            resolved(name, tmp_path)
        assert "\n" not in str(caught.value)
