"""Which values are kept: against a prefix tree, and within a budget."""

from itertools import pairwise

import pytest
from bitfront.evaluators.replay import Costs, affordable_cuts, wanted_cuts
from hypothesis import given
from hypothesis import strategies as st

LENGTH = 7
WORDS = st.lists(st.tuples(*[st.integers(0, 2)] * LENGTH), min_size=1, max_size=12)
FREE = Costs([float(position) for position in range(LENGTH + 1)], [1] * (LENGTH + 1), [True] * (LENGTH + 1))


def agree(one, other):
    return next((position for position in range(LENGTH) if one[position] != other[position]), LENGTH)


def walk(words, costs, budget):
    """Operations run, and the most that was kept at a time; every start must be a true common prefix."""
    words = sorted(words)
    shared = [agree(*pair) for pair in pairwise(words)]
    kept, run, most = [], 0, 0
    for place, word in enumerate(words):
        while kept and place and kept[-1][0] > shared[place - 1]:
            kept.pop()
        begin, prefix = kept[-1] if kept else (0, ())
        assert word[:begin] == prefix
        held = sum(costs.bytes[position] for position, _ in kept)
        cuts = affordable_cuts(wanted_cuts(shared[place:], begin), costs, begin, budget - held)
        assert cuts == sorted(set(cuts))
        assert all(begin < cut <= LENGTH and costs.cuts[cut] for cut in cuts)
        run += LENGTH - begin
        kept += [(cut, word[:cut]) for cut in cuts]
        most = max(most, sum(costs.bytes[position] for position, _ in kept))
    return run, most


@given(WORDS)
def test_with_room_each_edge_of_the_prefix_tree_is_walked_once(words):
    edges = {word[: position + 1] for word in words for position in range(LENGTH)}
    assert walk(words, FREE, 10**9)[0] == len(edges)


@given(
    WORDS,
    st.lists(st.integers(0, 5), min_size=LENGTH + 1, max_size=LENGTH + 1),
    st.lists(st.booleans(), min_size=LENGTH + 1, max_size=LENGTH + 1),
    st.integers(0, 12),
)
def test_the_budget_is_kept_and_nothing_is_run_more_often_than_without(words, sizes, allowed, budget):
    run, most = walk(words, Costs(FREE.seconds, sizes, allowed), budget)
    assert most <= budget
    assert len({word[: position + 1] for word in words for position in range(LENGTH)}) <= run <= LENGTH * len(words)


def test_wanted_cuts():
    assert wanted_cuts([], 0) == {}
    assert wanted_cuts([3, 5, 3, 2, 4, 0, 6], 0) == {3: 2, 2: 1}  # 5 and 4 are for later runs to keep
    assert wanted_cuts([3, 5, 2], 2) == {3: 1}


def test_short_of_room_a_smaller_place_nearby_is_taken():
    costs = Costs([0.0, 1.0, 9.5, 10.0], [0, 9, 1, 9], [True] * 4)
    assert affordable_cuts({3: 1}, costs, 0, 9) == [3]
    assert affordable_cuts({3: 1}, costs, 0, 8) == [2]
    assert affordable_cuts({3: 1}, costs, 0, 0) == []
    assert affordable_cuts({1: 1, 3: 5}, costs, 0, 9) == [2]


def test_places_that_are_written_into_later_are_not_kept():
    costs = Costs([0.0, 1.0, 2.0, 3.0], [1] * 4, [True, True, False, True])
    assert affordable_cuts({2: 1}, costs, 0, 9) == [1]
    assert affordable_cuts({2: 1}, costs, 1, 9) == []


@pytest.mark.parametrize("position", range(4))
def test_below(position):
    costs = Costs([0.0] * 4, [1] * 4, [True, False, True, False])
    assert costs.below(position) == [0, 0, 2, 2][position]
