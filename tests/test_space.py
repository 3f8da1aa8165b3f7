"""Configuration and SearchSpace as values: equality, digests, JSON, choices, uniform configurations."""

import json
import pickle

import bitfront as bf
import numpy as np
import pytest
from bitfront.errors import InvalidInput, UnknownFormat
from bitfront.formats import names
from bitfront.space import match_sites
from hypothesis import given
from hypothesis import strategies as st


def site(name, formats=("w4", "w8", "bf16"), kind="linear", shape=(4, 3)):
    return bf.Site(name, kind, shape, 12, tuple(formats), f"{name}.weight", (name,))


def space_of(*sites, formats=("w4", "w8", "bf16"), ties=()):
    return bf.SearchSpace(list(sites), tuple(formats), list(ties))


configurations = st.dictionaries(st.text(min_size=1, max_size=8), st.sampled_from(list(names())), max_size=6)


@given(configurations, st.randoms())
def test_order_of_insertion_does_not_matter(formats, random):
    shuffled = list(formats.items())
    random.shuffle(shuffled)
    one, other = bf.Configuration.from_dict(formats), bf.Configuration.from_dict(dict(shuffled))
    assert one == other
    assert hash(one) == hash(other)
    assert one.digest == other.digest
    assert list(one) == sorted(formats)
    assert dict(one) == one.to_dict() == formats


@given(configurations, configurations)
def test_digest_tells_configurations_apart(first, second):
    one, other = bf.Configuration.from_dict(first), bf.Configuration.from_dict(second)
    assert (one.digest == other.digest) == (first == second) == (one == other)


@given(configurations)
def test_json_round_trip(tmp_path_factory, formats):
    path = tmp_path_factory.mktemp("configuration") / "best.json"
    made = bf.Configuration.from_dict(formats)
    made.to_json(path)
    assert bf.Configuration.from_json(path) == made
    assert json.loads(path.read_text()) == formats


def test_a_configuration_is_a_mapping_a_key_and_travels():
    made = bf.Configuration.from_dict({"fc": "w4", "conv": "w8"})
    assert made["fc"] == "w4"
    assert "nothing" not in made
    assert made.get("nothing") is None
    assert len(made) == 2
    assert {made: 1}[bf.Configuration.from_dict({"conv": "w8", "fc": "w4"})] == 1
    assert pickle.loads(pickle.dumps(made)) == made
    assert made != {"fc": "w4", "conv": "w8"}
    with pytest.raises(KeyError):
        made["nothing"]


def test_the_digest_is_fixed_for_good():
    """Stored results are found by it."""
    assert (
        bf.Configuration.from_dict({"b": "w4", "a": "bf16"}).digest == "843cbacad28bf150"
    )  # of [["a","bf16"],["b","w4"]]


def test_errors_of_configurations(tmp_path):
    with pytest.raises(UnknownFormat, match="w44"):
        bf.Configuration.from_dict({"fc": "w44"})
    with pytest.raises(UnknownFormat):
        bf.Configuration.from_dict({"fc": ["w4"]})
    with pytest.raises(InvalidInput, match="names sites twice: fc"):
        bf.Configuration((("fc", "w4"), ("fc", "w8")))
    with pytest.raises(InvalidInput, match="no configuration file"):
        bf.Configuration.from_json(tmp_path / "missing.json")
    with pytest.raises(InvalidInput, match="cannot read"):
        bf.Configuration.from_json(tmp_path)


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'"w4"', b'{"fc": 4}', b'{"fc": ["w4"]}', b'{"fc": "w44"}', b"\xff\xfe"]
)
def test_a_broken_configuration_file_is_one_line(tmp_path, content):
    path = tmp_path / "best.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        bf.Configuration.from_json(path)
    assert "\n" not in str(caught.value)


def test_choice_and_configuration_are_inverse():
    space = space_of(site("a"), site("b", ["w4", "bf16"]), site("c"))
    for choice in ([0, 0, 0], [2, 2, 1], [1, 0, 2]):
        configuration = space.configuration(choice)
        np.testing.assert_array_equal(space.choice(configuration), choice)
        assert configuration.to_dict() == {name: space.formats[i] for name, i in zip("abc", choice, strict=True)}
    assert space.choice({"c": "w8", "a": "w4", "b": "w4"}).tolist() == [0, 0, 1]
    with pytest.raises(ValueError):
        space.configuration([0, 0])


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"a": "w4", "b": "w4"}, "unknown sites: none; missing: c$"),
        ({"a": "w4", "b": "w4", "c": "w4", "d": "w4"}, "unknown sites: d; missing: none"),
        ({"a": "w4", "b": "w8", "c": "w4"}, r"site b \(linear\) does not offer 'w8'; it offers w4, bf16"),
        ({"a": "w4", "b": "w4", "c": "w8"}, "sites a, c must share a format .read one tensor"),
    ],
)
def test_errors_of_choice(configuration, message):
    space = space_of(site("a"), site("b", ["w4", "bf16"]), site("c"), ties=[bf.Tie(("a", "c"), "read one tensor")])
    with pytest.raises(InvalidInput, match=message):
        space.choice(configuration)


def test_many_missing_sites_stay_one_short_line():
    space = space_of(*(site(f"s{index}") for index in range(200)))
    with pytest.raises(InvalidInput, match="missing: s0, s1, s2, s3, s4 and 195 more") as caught:
        space.choice({})
    assert len(str(caught.value)) < 200


def test_allowed_ties_and_elements():
    space = space_of(site("a", shape=(2, 3, 5)), site("b", ["bf16"]), site("c"), ties=[bf.Tie(("a", "c"), "asked for")])
    assert space.names == ["a", "b", "c"]
    assert space.allowed.tolist() == [[True] * 3, [False, False, True], [True] * 3]
    assert space.tie_indices == [(0, 2)]
    assert [each.elements for each in space.sites] == [30, 12, 12]


def test_digest_of_a_space():
    one = space_of(site("a"), site("b"))
    assert one.digest == space_of(site("a"), site("b")).digest
    others = [
        space_of(site("a")),
        space_of(site("a"), site("b", shape=(4, 4))),
        space_of(site("a"), site("b"), formats=("w4", "bf16")),
        space_of(site("a"), site("b"), ties=[bf.Tie(("a", "b"), "")]),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize(
    ("asked", "offered", "taken"),
    [
        ("w8a8", ["w4", "w8", "bf16"], "w8"),  # the same weight bits
        ("w4a8", ["w2", "w8", "bf16"], "w8"),  # else the coarsest finer one
        ("w8a8", ["w2", "w4"], "w4"),  # else the finest
        ("w8a8", ["w4", "w8a8", "w8"], "w8a8"),
    ],
)
def test_uniform_rule(asked, offered, taken):
    formats = ["w2", "w4a8", "w4", "w8a8", "w8", "bf16"]
    space = space_of(site("a", formats), site("e", offered), formats=formats)
    assert space.uniform(asked).to_dict() == {"a": asked, "e": taken}


def test_uniform_keeps_ties():
    """A linear layer tied to an embedding: uniform w8a8 must not break the tie."""
    formats = ("w4", "w8a8", "w8")
    tied = space_of(
        site("embed", ["w4", "w8"], "embedding"),
        site("head", formats),
        site("fc", formats),
        formats=formats,
        ties=[bf.Tie(("embed", "head"), "asked for")],
    )
    assert tied.uniform("w8a8").to_dict() == {"embed": "w8", "head": "w8", "fc": "w8a8"}
    for configuration in tied.uniforms().values():
        tied.choice(configuration)


def test_uniforms_and_their_error():
    space = space_of(site("a"), site("b", ["w4", "bf16"]))
    assert {name: made.to_dict() for name, made in space.uniforms().items()} == {
        "w4": {"a": "w4", "b": "w4"},
        "w8": {"a": "w8", "b": "bf16"},
        "bf16": {"a": "bf16", "b": "bf16"},
    }
    with pytest.raises(InvalidInput, match=r"'w2' is not in this space \(w4, w8, bf16\)"):
        space.uniform("w2")


def test_match_sites():
    sites = ["layer1.conv1", "layer1.conv2", "layer2.conv1", "head"]
    assert match_sites(sites, ["layer1.*", "head"], "exclude") == {"layer1.conv1", "layer1.conv2", "head"}
    assert match_sites(sites, ["*.conv?"], "exclude") == set(sites[:3])
    assert match_sites(sites, [], "exclude") == set()
    with pytest.raises(InvalidInput, match=r"exclude: 'layer3\.conv1' matches no site; nearest site names: layer2"):
        match_sites(sites, ["head", "layer3.conv1"], "exclude")
    with pytest.raises(InvalidInput, match="nearest site names: layer1"):
        match_sites(sites, ["zzz*"], "ties")
