"""The front of fronts against brute force, its fitness of architectures, and what is measured next."""

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.allocation import hypervolume
from bitfront.search.joint import Scale, gaps, merge, picked, selected
from hypothesis import given, settings
from hypothesis import strategies as st


@st.composite
def fronts(draw):
    """A few fronts of small integers, so that ties and duplicates are common; some empty."""
    objectives = draw(st.integers(2, 3))
    value = st.integers(0, 5).map(float)
    rows = st.lists(st.lists(value, min_size=objectives, max_size=objectives), max_size=7)
    return [np.array(found).reshape(-1, objectives) for found in draw(st.lists(rows, min_size=1, max_size=4))]


def dominated(point, points):
    return any((other <= point).all() and (other < point).any() for other in points)


@settings(max_examples=100, deadline=None)
@given(fronts())
def test_merged_is_what_nothing_dominates(parts):
    union = np.concatenate(parts)
    wanted = {tuple(point) for point in union if not dominated(point, union)}
    found = merge(parts)
    assert {tuple(point) for point in found.values} == wanted
    assert len(found) == len(wanted)  # equal points once
    for member, row, values in zip(found.member, found.row, found.values, strict=True):
        assert (parts[member][row] == values).all()
    assert (np.diff(found.values[:, 1]) >= 0).all()
    assert found.share(len(parts)).sum() == len(found)


@settings(max_examples=60, deadline=None)
@given(fronts(), st.randoms())
def test_fronts_can_be_merged_in_any_order_and_one_by_one(parts, random):
    whole = {tuple(point) for point in merge(parts).values}
    shuffled = list(parts)
    random.shuffle(shuffled)
    step = shuffled[0][:0]
    for part in shuffled:
        step = merge([step, part]).values
    assert {tuple(point) for point in step} == whole


@settings(max_examples=100, deadline=None)
@given(fronts())
def test_an_architecture_without_gap_touches_the_merged_front(parts):
    found = merge(parts)
    extent = np.ptp(found.values, axis=0) if len(found) else np.ones(parts[0].shape[1])
    scale = np.where(extent > 0, extent, 1.0)
    for part, gap in zip(parts, gaps(parts, found.values), strict=True):
        if not len(found):
            assert gap == 0
        elif not len(part):
            assert gap == np.inf
        else:  # no point of the merged front is strictly better everywhere after the shift, and before it some is
            shifted = part - (gap + 1e-9) * scale
            assert any(not (found.values < point).all(axis=1).any() for point in shifted)
            if gap > 0:
                shifted = part - (gap - 1e-6) * scale
                assert all((found.values < point).all(axis=1).any() for point in shifted)


def test_members_of_the_merged_front_have_no_gap():
    parts = [np.array([[1.0, 3.0], [3.0, 1.0]]), np.array([[2.0, 2.0]]), np.array([[3.0, 3.0]])]
    found = merge(parts)
    assert found.share(3).tolist() == [2, 1, 0]
    assert gaps(parts, found.values).tolist() == [0.0, 0.0, 0.5]


@settings(max_examples=60, deadline=None)
@given(fronts(), st.integers(1, 4))
def test_picks_are_greedy_in_hypervolume(parts, count):
    candidates = np.concatenate(parts)
    measured = candidates[:1] + 1.0 if len(candidates) else np.zeros((0, parts[0].shape[1]))
    reference = np.full(parts[0].shape[1], 6.0)
    found = picked(candidates, measured, reference, count)
    assert len(found) == len(set(found)) <= count
    known = measured
    for index in found:
        gains = [hypervolume(np.vstack([known, each]), reference) for each in candidates]
        assert gains[index] == pytest.approx(max(gains))
        known = np.vstack([known, candidates[index]])
    if len(found) < min(count, len(candidates)):
        left = [hypervolume(np.vstack([known, each]), reference) for each in candidates]
        assert max(left, default=0.0) == pytest.approx(hypervolume(known, reference) if len(known) else 0.0)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([np.zeros((1, 2)), np.zeros((1, 3))], "objectives"),
        ([np.zeros((1, 1))], "at least two"),
        ([np.array([[np.nan, 1.0]])], "NaN"),
    ],
)
def test_fronts_that_do_not_fit_are_refused(parts, told):
    with pytest.raises(InvalidInput, match=told):
        merge(parts)


SCALE = Scale(0.1, 0.9, np.array([0.01]), np.array([1.0]))


def test_the_best_in_quality_are_selected_first_then_what_gains_most():
    values = np.array([[0.8, 0.1], [0.7, 0.12], [0.3, 0.5], [0.2, 0.8]])
    known = np.array([[0.9, 1.0], [0.1, 1.0]])
    free = np.ones(4, dtype=bool)
    gains = [SCALE.volume(np.vstack([known, row])) for row in values]
    assert selected(values, free, known, SCALE, 1, 0) == [int(np.argmax(gains))]
    assert selected(values, free, known, SCALE, 1, 1) == [3]
    assert set(selected(values, free, known, SCALE, 4, 2)) == {0, 1, 2, 3}
    assert selected(values, ~free, known, SCALE, 2, 0) == []


def test_points_far_in_price_fill_a_round_that_promises_nothing():
    values = np.array([[0.2, 0.2], [0.19, 0.21], [0.18, 0.9]])
    known = np.array([[0.1, 0.1]])  # dominates all
    free = np.array([False, True, True])
    assert selected(values, free, known, SCALE, 1, 0) == [2]
