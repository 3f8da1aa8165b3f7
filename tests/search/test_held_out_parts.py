"""The two parts of the held-out data."""

import numpy as np
import pytest
from bitfront.measurement import Measurement, difference
from bitfront.search.held_out_parts import LEAST, choosing, judging, parts
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(1, 500))
def test_every_sample_is_in_one_part_and_both_are_spread(samples):
    chooses, judges = parts(samples)
    assert sorted([*chooses, *judges]) == list(range(samples))
    assert len(chooses) == (samples // 2 if samples >= LEAST else 0)
    for pair in range(samples // 2 if samples >= LEAST else 0):
        assert np.isin([2 * pair, 2 * pair + 1], chooses).sum() == 1


def test_an_order_with_a_period_is_shared_out():
    """Of photographs taken in turn both parts see each."""
    for period in (2, 3, 4, 6):
        chooses, judges = parts(96)
        assert set(chooses % period) == set(judges % period) == set(range(period))


def test_measurements_of_the_parts_are_compared_in_pairs():
    generator = np.random.default_rng(0)
    one, other = (Measurement.of("kl", "holdout", generator.random(64), 2.0) for _ in range(2))
    chooses, judges = parts(64)
    assert choosing(one).value == pytest.approx(np.mean(np.array(one.values)[chooses]))
    assert judging(one).values == tuple(np.array(one.values)[judges])
    assert judging(one).seconds == pytest.approx(1.0)
    found = difference(judging(one), judging(other))
    assert found.value == pytest.approx(np.mean(np.array(one.values)[judges] - np.array(other.values)[judges]))


def test_few_samples_all_judge():
    few = Measurement.of("kl", "holdout", np.arange(LEAST - 1.0), 1.0)
    assert choosing(few) is None
    assert judging(few) is few
