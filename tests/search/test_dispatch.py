"""Dispatch against simulated workers: every work gets one outcome, whatever the workers do."""

from datetime import timedelta
from itertools import pairwise

import pytest
from bitfront.errors import BitfrontError, InvalidInput
from bitfront.measurement import Measurement
from bitfront.search.dispatch import Dispatch
from bitfront.search.shards import Limits
from bitfront.search.stored_outcomes import keep
from bitfront.search.work import Outcome, Work
from bitfront.space import Configuration
from bitfront.store import Store
from hypothesis import given, settings
from hypothesis import strategies as st

SECONDS = 0.5


def works(count):
    return [Work(Configuration.from_dict({f"fc{index}": "w4"})) for index in range(count)]


def measured(work):
    return Outcome(work, Measurement("kl", "validation", 1.0, 1.0, 1.0, SECONDS, 10))


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def dispatch_of(workers=2, **limits):
    commits, clock = [], Clock()
    found = Dispatch(
        workers, lambda batch: list(range(len(batch)))[::-1], lambda work: 10, commits.append, Limits(**limits), clock
    )
    return found, commits, clock


def kill_all(dispatch, cause):
    while shard := dispatch.take():
        dispatch.died(shard.key, cause)


def serve(dispatch, shard, seconds=SECONDS):
    dispatch.answer(shard.key, [measured(work) for work in shard.works], seconds * len(shard.works))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(0, 40), workers=st.integers(1, 4), size=st.none() | st.integers(1, 7))
def test_every_work_gets_one_outcome_in_order(data, count, workers, size):
    """Workers answer in any order; some works kill theirs for ever, some shards die once for no reason."""
    dispatch, commits, clock = dispatch_of(workers, size=size)
    batch = works(count)
    killers = {index for index in range(count) if data.draw(st.integers(0, 9)) == 0} if count else set()
    killers = set(sorted(killers)[:2])
    dispatch.begin(batch)
    in_hand, accidents = [], 3
    while not dispatch.complete:
        while len(in_hand) < workers and (shard := dispatch.take()):
            in_hand.append(shard)
        shard = in_hand.pop(data.draw(st.integers(0, len(in_hand) - 1)))
        clock.now += SECONDS
        if killers & set(shard.indices):
            dispatch.died(shard.key, "killed")
        elif accidents and data.draw(st.integers(0, 9)) == 0:
            accidents -= 1
            dispatch.died(shard.key, "preempted")
        else:
            serve(dispatch, shard)
    assert dispatch.take() is None
    assert [outcome.work for outcome in dispatch.outcomes] == batch
    assert sorted(id(outcome.work) for outcome in commits) == sorted(map(id, batch))
    failed = {index for index, outcome in enumerate(dispatch.outcomes) if outcome.measurement is None}
    assert killers <= failed
    assert len(failed - killers) <= 1  # two accidents on one candidate alone cannot be told from its fault
    assert dispatch.totals.quarantined == len(failed)


def test_shards_fill_the_seconds_and_shrink_towards_the_end():
    dispatch, _, _ = dispatch_of(workers=2)
    dispatch.begin(works(64))
    taken = []
    while shard := dispatch.take():
        taken.append(len(shard.works))
        serve(dispatch, shard)
    assert taken[0] == 1  # nothing was timed yet
    assert max(taken) == 8  # 4 s of 0.5 s each
    assert taken[-1] <= 2  # 1 s, or what is left
    assert all(one >= other for one, other in pairwise(taken[1:-1]))
    assert sum(taken) == 64


def test_long_evaluations_come_one_by_one_and_a_size_of_ones_own_is_kept():
    dispatch, _, _ = dispatch_of()
    dispatch.begin(works(6))
    for _ in range(6):
        shard = dispatch.take()
        assert len(shard.works) == 1
        serve(dispatch, shard, seconds=30)
    assert dispatch.complete
    dispatch, _, _ = dispatch_of(size=4)
    dispatch.begin(works(10))
    assert [len(dispatch.take().works) for _ in range(3)] == [4, 4, 2]


def test_works_are_handed_out_in_the_order_that_shares_most():
    dispatch, _, _ = dispatch_of(size=3)
    dispatch.begin(works(6))
    assert [dispatch.take().indices for _ in range(2)] == [(5, 4, 3), (2, 1, 0)]


def test_a_killer_is_found_by_bisection():
    dispatch, commits, _ = dispatch_of(size=16)
    batch = works(16)
    dispatch.begin(batch)
    deaths = 0
    while not dispatch.complete:
        shard = dispatch.take()
        if 5 in shard.indices:
            deaths += 1
            dispatch.died(shard.key, "Segmentation fault")
        else:
            serve(dispatch, shard)
    assert deaths == 6  # shards of 16, 8, 4, 2, 1 and once more alone
    assert [index for index, outcome in enumerate(dispatch.outcomes) if outcome.measurement is None] == [5]
    assert dispatch.outcomes[5].failure == "given up after the deaths of 2 workers: Segmentation fault"
    assert len(commits) == 16


def test_when_everything_dies_it_is_an_error():
    dispatch, _, _ = dispatch_of()
    dispatch.begin(works(30))
    with pytest.raises(BitfrontError, match=r"12 workers died .* \(no memory\); mend the cause") as caught:
        kill_all(dispatch, "no memory")
    assert "\n" not in str(caught.value)


def test_limits_are_multiples_of_the_median_and_a_stuck_candidate_is_given_up():
    dispatch, _, clock = dispatch_of(size=1, least=3, patience=20, unknown=100)
    dispatch.begin(works(4))
    first = dispatch.take()
    assert first.limit == 100
    serve(dispatch, first)
    stuck = dispatch.take()
    dispatch.started(stuck.key)
    assert stuck.limit == pytest.approx(20 * SECONDS)
    clock.now += stuck.limit
    dispatch.died(stuck.key, "exit code 1")
    for _ in range(2):
        serve(dispatch, dispatch.take())
    again = dispatch.take()
    assert again.indices == stuck.indices
    dispatch.started(again.key)
    clock.now += again.limit
    dispatch.died(again.key, "exit code 1")
    assert dispatch.complete
    failure = dispatch.outcomes[stuck.indices[0]].failure
    assert failure == "given up after the deaths of 2 workers: no answer within 10 s, its worker was ended"


def test_an_overdue_shard_is_given_to_an_idle_worker_and_the_first_answer_counts():
    dispatch, commits, clock = dispatch_of(size=1)
    dispatch.begin(works(3))
    serve(dispatch, dispatch.take())
    slow, other = dispatch.take(), dispatch.take()
    serve(dispatch, other)
    clock.now += 100
    assert dispatch.take() is None  # the worker is still being started
    dispatch.started(slow.key)
    clock.now += 3 * SECONDS + 5.1
    again = dispatch.take()
    assert again.indices == slow.indices
    assert dispatch.take() is None  # once is enough
    serve(dispatch, again)
    assert dispatch.complete
    assert len(commits) == 3
    assert dispatch.works(slow.key)
    serve(dispatch, slow)
    assert len(commits) == 3
    dispatch.begin(works(2))
    assert dispatch.works(slow.key) == ()


def test_the_death_of_one_of_two_workers_on_a_shard_costs_nothing():
    dispatch, _, clock = dispatch_of(size=1)
    dispatch.begin(works(2))
    serve(dispatch, dispatch.take())
    slow = dispatch.take()
    dispatch.started(slow.key)
    clock.now += 100
    again = dispatch.take()
    dispatch.died(slow.key, "killed")
    assert dispatch.take() is None
    serve(dispatch, again)
    assert dispatch.complete


@pytest.mark.parametrize("wrong", [{"size": 0}, {"shortest": 0}, {"shortest": 5}, {"patience": 0}, {"least": -1}])
def test_bad_limits_are_refused(wrong):
    with pytest.raises(InvalidInput) as caught:
        Limits(**wrong)
    assert "\n" not in str(caught.value)


def test_outcomes_are_kept_and_a_restart_knows_what_failed(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/store.db")
    dispatch, _, _ = dispatch_of(size=1)
    killer, infinite, fine = batch = works(3)
    dispatch.begin(batch)
    serve(dispatch, dispatch.take())
    dispatch.answer(dispatch.take().key, [Outcome(infinite, None, failure="NaN at fc1")], 1.0)
    kill_all(dispatch, "Segmentation fault")
    for outcome in dispatch.outcomes:
        keep(store, "ctx", outcome)
    assert set(store.evaluations("ctx", "validation")) == {fine.configuration.digest}
    failures = store.failures("ctx", "validation")
    assert set(failures) == {killer.configuration, infinite.configuration}
    assert "Segmentation fault" in failures[killer.configuration]
    assert store.failures("ctx", "validation", timedelta(0)) == {infinite.configuration: "NaN at fc1"}
