"""The library of formulas: readable data that is checked when it is read."""

import json

import pytest
from bitfront.errors import InvalidInput
from bitfront.proxies.formulas import Entry, Formula, best_evolved, read_library, write_library
from bitfront.proxies.formulas.collect import INPUTS

NUMBERS = {"digits_resnet20": {"spearman_fixed": {"value": 0.8, "low": 0.7, "high": 0.9}}}


def entry(name="one", kind="evolved", **changes):
    given = {"expression": "mean(error)", "orientation": 1, "summary": "s", "source": "t"}
    return Entry(**{"name": name, "kind": kind, "found": NUMBERS, "held_out": NUMBERS, **given, **changes})


def test_what_is_shipped_can_be_collected_and_tells_its_assumptions():
    library = read_library()
    assert library["emq"].kind == "released"
    assert library["emq"].orientation == -1
    assert set(library["emq"].formula.inputs) == {"noise_bits", "virtual_gradient", "weight"}
    assert any("bits" in each for each in library["emq"].assumptions)
    for each in library.values():
        assert Formula.parse(each.expression, INPUTS) == each.formula
        assert each.found


def test_round_trip(tmp_path):
    entries = [entry("two", orientation=-1, assumptions=("a", "b")), entry("one")]
    write_library(tmp_path / "found.json", entries)
    found = read_library(tmp_path / "found.json")
    assert list(found) == ["two", "one"]
    assert list(found.values()) == entries
    assert best_evolved(found) == entries[0]
    assert best_evolved({"emq": read_library()["emq"]}) is None
    assert list(tmp_path.iterdir()) == [tmp_path / "found.json"]


def test_a_failed_write_leaves_the_old_library(tmp_path):
    path = tmp_path / "found.json"
    write_library(path, [entry()])
    with pytest.raises(ValueError, match="JSON"):
        write_library(path, [entry(held_out={"spearman": float("nan")})])
    assert list(read_library(path)) == ["one"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "guessed"}, "formula one: kind 'guessed'; expected one of released, evolved"),
        ({"orientation": 0}, "formula one: orientation 0; expected 1 or -1"),
        ({"held_out": {}}, "formula one: an evolved one says where it was found and its held-out numbers"),
        ({"found": {}}, "formula one: an evolved one says where it was found"),
        ({"expression": "mean(weight*error)"}, r"formula one: write .* in its own form: 'mean\(error \* weight\)'"),
        ({"expression": "meen(weight)"}, "unknown operator 'meen'"),
    ],
)
def test_entries_are_checked(changes, told):
    with pytest.raises(InvalidInput, match=told):
        entry(**changes)


def content(**changes):
    good = {"name": "a", "kind": "released", "expression": "bits", "orientation": 1, "summary": "s", "source": "t"}
    return json.dumps({"version": 1, "formulas": [{**good, **changes}]})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no library of formulas"),
        ("[]", 'expected {"version": 1'),
        ('{"version": 2, "formulas": []}', 'expected {"version": 1'),
        ('{"version": 1, "formulas": ["mean(error)"]}', "a formula of a library is an object with name, kind"),
        ('{"version": 1, "formulas": [{"name": "a"}]}', "lacks kind, expression, orientation, summary, source"),
        (content(orientaton=1), "has no 'orientaton'; did you mean 'orientation'"),
        (content()[:-2] + "," + content()[28:], "names a formula twice"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, text, told):
    path = tmp_path / "found.json"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=told):
        read_library(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"nowhere\.json is no library of formulas: .*No such file"):
        read_library(tmp_path / "nowhere.json")
