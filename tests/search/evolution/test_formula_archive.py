"""The archive of fitness against size, and the choice from it."""

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.evolution import Archive, Fitness, Record
from bitfront.search.evolution.archive import standard_error
from hypothesis import given
from hypothesis import strategies as st


def record(size, value, text="f", folds=()):
    fitness = None if value is None else Fitness(value, 1, (value,), (tuple(folds),))
    return Record(f"{text}{size}{value}", f"{text}{size}", size, "s", fitness, "", 0.0)


points = st.lists(st.tuples(st.integers(1, 8), st.sampled_from([0.1, 0.2, 0.3, 0.4, None]), st.sampled_from("abc")))


@given(points, st.randoms(use_true_random=False), st.integers(0, 30))
def test_it_holds_what_no_smaller_one_equals_in_any_order_and_in_any_parts(found, random, cut):
    records = [record(*each) for each in found]
    whole = Archive().with_(records)
    usable = [each for each in records if each.fitness]
    for each in whole:
        better = [other for other in usable if other.size <= each.size and other.value >= each.value]
        assert all((other.size, other.value) == (each.size, each.value) for other in better)
    front = {(each.size, each.value) for each in whole}
    for each in usable:
        assert any(size <= each.size and value >= each.value for size, value in front)
    random.shuffle(records)
    assert Archive().with_(records[:cut]).with_(records[cut:]) == whole


def test_the_smallest_within_one_standard_error_is_chosen():
    folds = [0.7, 0.9, 0.7, 0.9]
    error = np.std(folds, ddof=1) / 2
    best = record(9, 0.8, folds=folds)
    assert standard_error(best) == pytest.approx(error)
    near, far = record(4, 0.8 - 0.9 * error), record(2, 0.8 - 1.1 * error)
    assert Archive().with_([best, near, far]).chosen() == near
    assert Archive().with_([best, far]).chosen() == best
    assert Archive().with_([record(9, 0.8), record(4, 0.79)]).chosen().size == 9  # without folds nothing is known


def test_an_empty_archive_says_what_to_do():
    with pytest.raises(InvalidInput, match="more time or more formulas"):
        Archive().with_([record(3, None)]).chosen()
