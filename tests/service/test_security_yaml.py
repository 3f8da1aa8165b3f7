"""Documents from strangers: what is plain data comes through as YAML and JSON say, all else is refused with a place."""

import json
import time

import pytest
import yaml
from bitfront.errors import InvalidInput
from bitfront.service.safe_yaml import Bounds, check, load
from hypothesis import given
from hypothesis import strategies as st

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
_PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(-1e300, 1e300), _TEXT),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(_TEXT, _PLAIN, max_size=5))
def test_json_comes_through(content):
    assert load(json.dumps(content)) == content


@given(st.dictionaries(st.text("abcxyz", min_size=1), st.integers(-9, 9) | st.lists(st.booleans()), max_size=5))
def test_yaml_comes_through(content):
    assert load(yaml.safe_dump(content, default_flow_style=False)) == (content or {})


def test_a_billion_laughs():
    lines = ["a0: &a0 [" + ", ".join(["lol"] * 10) + "]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 10)]
    started = time.perf_counter()
    with pytest.raises(InvalidInput, match=r"line \d+, column \d+: more than 20000 values, aliases counted"):
        load("\n".join(lines))
    assert time.perf_counter() - started < 5


REFUSED = {
    "deep flow": ("[" * 100 + "]" * 100, "line 1, column 21: nested deeper than 20"),
    "deep block": ("\n".join(" " * n + "a:" for n in range(40)), "nested deeper than 20"),
    "deep JSON": ('{"a":' * 100_000, "nested"),
    "anchors": ("\n".join(f"k{n}: &k{n} 1" for n in range(200)), "more than 100 anchors"),
    "holds itself": ("a: &a [*a]", "line 1, column 8: the anchor 'a' holds itself"),
    "merges itself": ("a: &a {<<: *a}", "holds itself"),
    "unknown alias": ("a: *b", "line 1, column 4"),
    "object": ("a: !!python/object/apply:os.system ['true']", "line 1, column 4: the tag .*python.* is not allowed"),
    "own tag": ("a: !x 1", "the tag '!x' is not allowed"),
    "binary": ("a: !!binary aGk=", "not allowed"),
    "twice": ("a: 1\nb: 2\na: 3\n", "line 3, column 1: the key 'a' is given twice .first in line 1."),
    "twice in JSON": ('{"a": 1, "a": 2}', "'a' is given twice"),
    "key": ("1: 2", "line 1, column 1: the key '1' is no text"),
    "on is a boolean": ("on: 2", "the key 'on' is no text"),
    "list as key": ("? [a]\n: 1", "a key is no text"),
    "infinite": ("a: .inf", "line 1, column 4: a number is infinite"),
    "not a number": ('{"a": NaN}', "a number is infinite or not a number"),
    "65 bits": (f"a: {2**64}", "beyond 64 bits"),
    "5000 digits": ('{"a": ' + "9" * 5000 + "}", "digits"),
    "base 60": ("a: 1" + ":59" * 100_000, "a number of more than 60 characters"),
    "NUL": ('a: "\\0"', "NUL"),
    "surrogate": ('a: "\\ud800"', "surrogate"),
    "control": ("a: \x01", "character 0x1"),
    "two documents": ("a: 1\n---\nb: 2", "another document"),
    "unclosed": ("a: [1\n", "is not YAML in line 2, column 1"),
    "long": ("a: " + "x" * 1_000_000, "longer than 1000000 bytes"),
}


@pytest.mark.parametrize(("text", "told"), REFUSED.values(), ids=REFUSED)
def test_refused(text, told):
    started = time.perf_counter()
    with pytest.raises(InvalidInput, match=told) as caught:
        load(text)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - started < 5


def test_dates_and_surrogate_pairs_stay_texts():
    assert load("a: 2026-01-31\nb: 12:30:00\n")["a"] == "2026-01-31"
    assert load('{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}
    assert load("base: &b {x: 1}\nmine: {<<: *b, y: 2}")["mine"] == {"x": 1, "y": 2}


def test_plain_data_is_held_to_the_same_bounds():
    check({"a": [1, "b", None]}, Bounds(), "it")
    deep: list = []
    for _ in range(30):
        deep = [deep]
    for content, told in ((deep, "deeper"), ([0] * 30_000, "more than"), ({"a": {1}}, "type set"), (["\0"], "NUL")):
        with pytest.raises(InvalidInput, match=told):
            check(content, Bounds(), "it")


def test_a_job_file_is_read_within_the_bounds(tmp_path):
    from bitfront.service import read_job

    file = tmp_path / "job.yaml"
    file.write_text("model: {zoo: char_gpt}\nmodel: {zoo: minilm_l6}\n")
    with pytest.raises(InvalidInput, match=r"job\.yaml cannot be used in line 2, column 1: the key 'model'"):
        read_job(file)
