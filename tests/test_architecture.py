"""Architectures as choices: conditions, ties, indices, digests, JSON."""

import json
from dataclasses import replace
from itertools import product

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.architecture import ArchitectureSpace, Choices, Dimension, Genome
from bitfront.errors import InvalidInput, UnknownFormat
from bitfront.search.records import space_arrays, space_of
from bitfront.space import Configuration
from hypothesis import given, settings
from hypothesis import strategies as st

KINDS = ("depth", "width", "expansion", "kernel", "resolution", "operator", "skip", "rank")
VALUES = ((0, 1), (1, 2, 3), (0.25, 0.5, 1.0), ("conv3", "skip"), (False, True), (7,))


@st.composite
def spaces(draw):
    """Up to six dimensions, conditions on earlier ones, ties among those of equal values."""
    dimensions = []
    for position in range(draw(st.integers(1, 6))):
        when = []
        for parent in dimensions:
            if len(when) < 2 and draw(st.integers(0, 3)) == 0:
                count = draw(st.integers(1, len(parent.values)))
                when.append((parent.name, parent.values[-count:]))
        kind, values = draw(st.sampled_from(KINDS)), draw(st.sampled_from(VALUES))
        dimensions.append(Dimension(f"d{position}", kind, values, tuple(when)))
    ties = []
    for values in {each.values for each in dimensions}:
        same = [each.name for each in dimensions if each.values == values]
        if len(same) > 1 and draw(st.booleans()):
            ties.append(tuple(same))
    return ArchitectureSpace(tuple(dimensions), tuple(ties))


def brute_force(space):
    """Every architecture, from the definition: all full assignments, filtered by conditions and ties."""
    found = set()
    for values in product(*(each.values for each in space.dimensions)):
        full = dict(zip((each.name for each in space.dimensions), values, strict=True))
        alive = {}
        for each in space.dimensions:
            if all(parent in alive and alive[parent] in allowed for parent, allowed in each.when):
                alive[each.name] = full[each.name]
        if all(len({alive[name] for name in tie if name in alive}) <= 1 for tie in space.ties):
            found.add(tuple(sorted(alive.items())))
    return found


@settings(max_examples=150, deadline=None)
@given(spaces())
def test_all_is_what_the_definition_says_each_once(space):
    listed = [each.pairs for each in space.all()]
    assert len(listed) == len(set(listed))
    assert set(listed) == brute_force(space)


@settings(max_examples=150, deadline=None)
@given(spaces(), st.integers(0, 2**32 - 1))
def test_samples_are_valid_and_indices_are_inverse(space, seed):
    found = space.sample(np.random.default_rng(seed))
    assert space.choices(found) == found  # complete, allowed, ties kept
    indices = space.indices(found)
    assert space.from_indices(indices) == found
    assert [index == -1 for index in indices] == [each.name not in found for each in space.dimensions]
    assert Choices.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert space.sample(np.random.default_rng(seed)).digest == found.digest


@settings(max_examples=100, deadline=None)
@given(spaces())
def test_largest_and_smallest_exist(space):
    every = set(space.all())
    assert {space.largest(), space.smallest()} <= every


@settings(max_examples=60, deadline=None)
@given(spaces())
def test_digests_tell_architectures_apart(space):
    every = list(space.all())
    assert len({each.digest for each in every}) == len(every)
    assert len({Genome(each).digest for each in every}) == len(every)


CHAIN = ArchitectureSpace(
    (
        Dimension("depth", "depth", (1, 2)),
        Dimension("first.kernel", "kernel", (3, 5)),
        Dimension("second.kernel", "kernel", (3, 5), when=(("depth", (2,)),)),
    ),
    ties=(("first.kernel", "second.kernel"),),
)


def test_a_dimension_beyond_the_depth_does_not_exist():
    found = CHAIN.choices({"depth": 1, "first.kernel": 5, "second.kernel": 3})
    assert found.to_dict() == {"depth": 1, "first.kernel": 5}
    assert len(list(CHAIN.all())) == 4


def test_a_tie_whose_first_dimension_does_not_exist_takes_the_next():
    space = ArchitectureSpace(
        (
            Dimension("on", "skip", (False, True)),
            Dimension("a", "kernel", (3, 5), when=(("on", (True,)),)),
            Dimension("b", "kernel", (3, 5)),
        ),
        ties=(("a", "b"),),
    )
    assert space.from_indices([0, -1, 1]).to_dict() == {"on": False, "b": 5}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"depth": 2, "first.kernel": 3}, "'second.kernel' needs one of"),
        ({"depth": 2, "first.kernel": 3, "second.kernel": 5}, "must share a value"),
        ({"depth": 3, "first.kernel": 3}, "is one of \\[1, 2\\], got 3"),
        ({"depht": 2, "first.kernel": 3}, "no dimension is called 'depht'"),
    ],
)
def test_what_does_not_fit_is_refused(values, told):
    with pytest.raises(InvalidInput, match=told):
        CHAIN.choices(values)


@pytest.mark.parametrize(
    ("indices", "told"), [([0, 0], "2 indices for 3"), ([0, 2, 0], "out of range"), ([1, 0, -2], "out of range")]
)
def test_indices_that_do_not_fit_are_refused(indices, told):
    with pytest.raises(InvalidInput, match=told):
        CHAIN.from_indices(indices)


def test_an_existing_dimension_needs_an_index():
    with pytest.raises(InvalidInput, match="'depth' needs one of"):
        CHAIN.from_indices([-1, 0, 0])


def test_values_come_back_as_the_dimension_has_them():
    space = ArchitectureSpace((Dimension("share", "width", (0.5, 1.0)),))
    whole = space.choices({"share": 1})
    assert whole == space.choices({"share": 1.0})
    assert whole.digest == space.choices({"share": 1.0}).digest


@pytest.mark.parametrize("values", [(), (3, 3), (1, True), (1, 1.0), (float("nan"),), ((3,),)])
def test_dimensions_need_different_scalars(values):
    with pytest.raises(InvalidInput, match="'k'"):
        Dimension("k", "kernel", values)


@pytest.mark.parametrize(
    ("dimensions", "ties", "told"),
    [
        ([Dimension("a", "skip", (0, 1)), Dimension("a", "skip", (0, 1))], (), "two dimensions are called 'a'"),
        ([Dimension("a", "skip", (0, 1), when=(("b", (1,)),))], (), "earlier dimension"),
        ([Dimension("a", "skip", (0, 1)), Dimension("b", "skip", (0, 1), when=(("a", (2,)),))], (), "earlier dim"),
        ([Dimension("a", "skip", (0, 1)), Dimension("b", "kernel", (3, 5))], (("a", "b"),), "the same values"),
        ([Dimension("a", "skip", (0, 1))], (("a",),), "two or more"),
    ],
)
def test_spaces_that_contradict_themselves_are_refused(dimensions, ties, told):
    with pytest.raises(InvalidInput, match=told):
        ArchitectureSpace(tuple(dimensions), ties)


def test_choices_are_a_mapping_ordered_by_name_and_named_once():
    found = Choices((("b", 1), ("a", "x")))
    assert list(found) == ["a", "b"]
    assert found["b"] == 1
    assert len(found) == 2
    with pytest.raises(InvalidInput, match="twice: a"):
        Choices((("a", 1), ("a", "x")))


def test_a_genome_is_readable_json(tmp_path):
    genome = Genome(Choices.from_dict({"depth": 2}), Configuration.from_dict({"conv": "w4"}))
    genome.to_json(tmp_path / "best.json")
    assert json.loads((tmp_path / "best.json").read_text()) == {
        "architecture": {"depth": 2},
        "formats": {"conv": "w4"},
    }
    assert Genome.from_json(tmp_path / "best.json") == genome
    assert genome.digest != Genome(genome.choices).digest
    assert genome.digest != Genome(Choices(()), genome.configuration).digest


@pytest.mark.parametrize(
    ("content", "error", "told"),
    [
        ({"architecture": {}}, InvalidInput, "a genome is"),
        ({"architecture": {"a": [1]}, "formats": {}}, InvalidInput, "'a'"),
        ({"architecture": {}, "formats": {"conv": 4}}, InvalidInput, "'conv' needs the name of a format"),
        ({"architecture": {}, "formats": {"conv": "w99x"}}, UnknownFormat, "w99x"),
    ],
)
def test_what_is_no_genome_is_refused(content, error, told):
    with pytest.raises(error, match=told):
        Genome.from_dict(content)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="cannot read"):
        Genome.from_json(tmp_path / "missing.json")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(InvalidInput, match="is not JSON"):
        Genome.from_json(tmp_path / "text.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InvalidInput, match="one JSON object"):
        Genome.from_json(tmp_path / "list.json")


@pytest.fixture(scope="module")
def plain_space():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))
    return bf.SearchSpace.from_model(model, torch.zeros(2, 8), formats=["w4", "w8"])


def test_digests_of_spaces_without_an_architecture_did_not_change(plain_space):
    sites, ties = plain_space.sites, [tie.sites for tie in plain_space.ties]
    import hashlib

    content = repr((sites, plain_space.formats, ties, plain_space.fixed_bytes))
    assert plain_space.digest == hashlib.sha256(content.encode()).hexdigest()[:16]


def test_a_space_may_say_of_which_architecture_it_is(plain_space):
    one = replace(plain_space, architecture=CHAIN, choices=CHAIN.smallest())
    other = replace(plain_space, architecture=CHAIN, choices=CHAIN.largest())
    assert len({plain_space.digest, one.digest, other.digest}) == 3
    back = space_of(space_arrays(one))
    assert back == one
    assert back.digest == one.digest
    assert space_of(space_arrays(plain_space)) == plain_space
    with pytest.raises(InvalidInput, match="come together"):
        replace(plain_space, choices=CHAIN.largest())
    with pytest.raises(InvalidInput, match="no dimension"):
        replace(plain_space, architecture=CHAIN, choices=Choices((("width", 1),)))
