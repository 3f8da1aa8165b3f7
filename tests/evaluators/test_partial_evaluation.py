"""Evaluation in parts: to the bit what one evaluation of everything gives, and never taken for it."""

from itertools import pairwise

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.evaluators import FakeQuantEvaluator, Race, calibrate
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

SIZES = (3, 5, 1, 4, 5)
ENDS = np.cumsum(SIZES)


def _task(quality="kl", norm=False):
    torch.manual_seed(0)
    middle = nn.BatchNorm1d(12) if norm else nn.Identity()
    model = nn.Sequential(nn.Linear(6, 12), middle, nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 4))
    data = [torch.randn(size, 6) for size in SIZES]
    return bf.Task(model, calibration=[torch.randn(16, 6)], validation=data, holdout=data[:1], quality=quality)


@pytest.fixture(scope="module")
def evaluators():
    found = {}
    for norm in (False, True):
        task = _task(norm=norm)
        space = bf.SearchSpace.from_model(task.model, task.calibration[0], formats=["w2", "w3", "w8a8"])
        scales = calibrate(task, space)
        for replay in ("never", "always"):
            found[norm, replay] = FakeQuantEvaluator(task, space, scales, reestimate_batch_norm=norm, replay=replay)
    return found


def _configurations(space):
    names = space.names
    return [space.uniform("w2"), space.uniform("w3"), {**space.uniform("w3"), names[-1]: "w8a8"}]


@pytest.mark.parametrize("replay", ["never", "always"])
@pytest.mark.parametrize("norm", [False, True])
@settings(max_examples=15, deadline=None)
@given(stops=st.sets(st.integers(1, len(SIZES) - 1)))
def test_parts_merge_to_the_bit_into_the_whole(evaluators, norm, replay, stops):
    evaluator = evaluators[norm, replay]
    chosen = _configurations(evaluator.quantized.space)
    whole = [evaluators[norm, "never"].evaluate(each) for each in chosen]
    known = [None] * len(chosen)
    for stop in [*sorted(stops), None]:
        known = evaluator.evaluate_many(chosen, known=known, batches=stop)
        if stop is not None:
            assert {each.samples for each in known} == {ENDS[stop - 1]}
            assert {each.split for each in known} == {f"validation[:{ENDS[stop - 1]}]"}
            assert all(each.partial for each in known)
    for found, expected in zip(known, whole, strict=True):
        assert found.values == expected.values
        assert (found.value, found.low, found.high) == (expected.value, expected.low, expected.high)
        assert found.split == "validation"
        assert not found.partial


def test_only_the_missing_batches_are_run(evaluators):
    evaluator = evaluators[False, "never"]
    configuration = evaluator.quantized.space.uniform("w2")
    evaluator.references("validation")
    runs = []
    handle = evaluator.task.model[0].register_forward_hook(lambda module, given, output: runs.append(len(output)))
    known = None
    for first, last in pairwise([0, 2, 3, 5]):
        runs.clear()
        known = evaluator.evaluate(configuration, known=known, batches=last)
        assert runs == list(SIZES[first:last])
    runs.clear()
    assert evaluator.evaluate(configuration, known=known) == known
    smaller = evaluator.evaluate(configuration, known=known, batches=1)
    assert smaller.values == known.values[:3]
    assert evaluator.evaluate_many([configuration] * 3, known=[known] * 3) == [known] * 3
    handle.remove()
    assert not runs


def test_candidates_that_are_known_to_different_points_share_a_shard(evaluators):
    evaluator = evaluators[False, "always"]
    chosen = _configurations(evaluator.quantized.space)
    whole = [evaluator.evaluate(each) for each in chosen]
    known = [None, whole[1].beginning(3), whole[2].beginning(9)]
    found = evaluator.evaluate_many(chosen, known=known, batches=4)
    for each, expected in zip(found, whole, strict=True):
        assert each.values == expected.values[:13]
        assert each.split == "validation[:13]"


@pytest.mark.parametrize("replay", ["never", "always"])
def test_a_lost_race_is_a_part_and_can_be_finished(evaluators, replay):
    evaluator = evaluators[False, replay]
    worse, better = evaluator.quantized.space.uniform("w2"), evaluator.quantized.space.uniform("w3")
    rival = Race(tuple(value / 50 for value in evaluator.evaluate(better).values))
    lost, kept = evaluator.evaluate_many([worse, better], races=[rival, None])
    assert lost.partial
    assert lost.samples in ENDS[:-1]
    assert not kept.partial
    again = evaluator.evaluate(worse, race=rival, known=lost)
    assert again == lost
    assert evaluator.evaluate(worse, known=lost).values == evaluator.evaluate(worse).values


@pytest.mark.parametrize(
    ("known", "batches", "message"),
    [
        (None, 0, "batches=0; the validation data has 5, so give 1 to 5"),
        (None, 6, "batches=6"),
        (4, None, r"kl on validation\[:4\] \(4 samples\) cannot be continued as kl on validation"),
    ],
)
def test_what_cannot_be_continued_is_refused(evaluators, known, batches, message):
    evaluator = evaluators[False, "never"]
    configuration = evaluator.quantized.space.uniform("w2")
    before = None if known is None else evaluator.evaluate(configuration).beginning(known)
    with pytest.raises(InvalidInput, match=message) as caught:
        evaluator.evaluate(configuration, known=before, batches=batches)
    assert "\n" not in str(caught.value)


def test_a_part_of_another_split_or_metric_is_refused(evaluators):
    evaluator = evaluators[False, "never"]
    configuration = evaluator.quantized.space.uniform("w2")
    with pytest.raises(InvalidInput, match="cannot be continued as kl on holdout"):
        evaluator.evaluate(configuration, "holdout", known=evaluator.evaluate(configuration, batches=1))
    other = _task("relative_error")
    foreign = FakeQuantEvaluator(other, evaluator.quantized.space).evaluate(configuration, batches=1)
    with pytest.raises(InvalidInput, match="relative_error"):
        evaluator.evaluate(configuration, known=foreign)
    with pytest.raises(InvalidInput, match="0 known measurements for 1 configurations"):
        evaluator.evaluate_many([configuration], known=[])


def test_the_beginning_of_a_measurement_is_that_of_its_first_samples():
    values = np.random.default_rng(0).exponential(size=20)
    full = bf.evaluators.Measurement.of("kl", "validation", values, 4.0)
    part = full.beginning(5)
    assert part == bf.evaluators.Measurement.of("kl", "validation[:5]", values[:5], 1.0)
    assert part.beginning(3) == full.beginning(3)
    assert full.beginning(20) is full
    with pytest.raises(InvalidInput, match="at least 1 sample"):
        full.beginning(0)
