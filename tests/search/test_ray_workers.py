"""Real Ray workers that are killed, get stuck, raise; and the same results on every executor."""

import ctypes
import json
import os
import signal
import time
import uuid
from dataclasses import asdict

import bitfront as bf
import pytest
import torch
from bitfront.errors import BitfrontError, InvalidInput
from bitfront.evaluators import Race, calibrate
from bitfront.search.dispatch import Dispatch
from bitfront.search.executor import EvaluatorRecipe, LocalExecutor, attempt
from bitfront.search.ray_cluster import ray_cluster
from bitfront.search.ray_executor import RayExecutor
from bitfront.search.ray_shards import Feed, _last_line
from bitfront.search.shards import Limits
from bitfront.search.wire import decode_works, encode_works
from bitfront.search.work import Work
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

FORMATS = ["w2", "w3", "w4", "w8"]


@pytest.fixture(scope="module")
def cluster():
    """One for all tests, because it takes seconds to start."""
    with ray_cluster(cpus=4):
        yield


def task_of(quality="kl"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 4))
    data = [torch.randn(4, 6) for _ in range(6)]
    return bf.Task(model, calibration=data[:2], validation=data[2:5], holdout=data[5:], quality=quality)


def recipe_of(task):
    space = bf.SearchSpace.from_model(task.model, task.calibration[0], formats=FORMATS)
    return EvaluatorRecipe(task, space, calibrate(task, space))


def configurations(space, count):
    made = []
    for index in range(count):
        digits = [(index // 4**position) % 4 for position in range(len(space.sites))]
        made.append(bf.Configuration.from_dict(dict(zip(space.names, (FORMATS[d] for d in digits), strict=True))))
    return made


def drive(executor, recipe, works, rounds=1):
    """The outcomes of rounds of the same work, and what was committed."""
    commits, sent = [], []

    def search():
        for _ in range(rounds):
            outcomes = yield works
            sent[:] = outcomes

    executor.drive(search(), recipe, commits.append)
    return sent, commits


class Trap:
    """A metric that does something to its worker when it meets the output of one configuration."""

    __name__ = "trap"

    def __init__(self, wanted, kind, marker=None):
        self.wanted, self.kind, self.marker = wanted, kind, marker

    def __call__(self, outputs, targets):
        values = outputs.double().square().mean(1)
        if self.wanted is not None and abs(float(values.sum()) - self.wanted) < 1e-9 and self._armed():
            if self.kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.kind == "raise":
                raise RuntimeError("no memory for this one")
            else:  # never comes back, and never lets another thread of Python run
                ctypes.PyDLL(None).sleep(1000)
        return values

    def _armed(self):
        """Always, or only until the marker exists."""
        if self.marker is None:
            return True
        if os.path.exists(self.marker):
            return False
        open(self.marker, "w").close()
        return True


def trapped(recipe, victim, kind, marker=None):
    """The recipe with a metric that is sprung by the first batch of one configuration."""
    plain = EvaluatorRecipe(task_of(Trap(None, "")), recipe.space, recipe.calibration)
    first = plain.build().evaluate(victim, batches=1)
    return EvaluatorRecipe(task_of(Trap(sum(first.values), kind, marker)), recipe.space, recipe.calibration)


@pytest.fixture(scope="module")
def recipe():
    return recipe_of(task_of())


def numbers(outcomes):
    return [
        (outcome.failure, outcome.measurement and (outcome.measurement.split, outcome.measurement.values))
        for outcome in outcomes
    ]


def all_kinds(recipe):
    """Whole and partial evaluations, continued ones, races, two splits."""
    chosen, evaluator = configurations(recipe.space, 12), recipe.build()
    race = Race([value / 20 for value in evaluator.evaluate(chosen[-1]).values])
    return [
        *(Work(each) for each in chosen),
        *(Work(each, batches=2) for each in chosen[:5]),
        *(Work(each, race=race) for each in chosen[:5]),
        Work(chosen[3], known=evaluator.evaluate(chosen[3], batches=1)),
        Work(chosen[2], "holdout"),
    ]


@pytest.fixture(scope="module")
def answered(recipe):
    works = all_kinds(recipe)
    return works, drive(LocalExecutor(1), recipe, works)[0]


def test_ray_gives_what_one_after_the_other_gives(cluster, recipe, answered, monkeypatch):
    """And hands out no more shards than there are workers: what was not started waits here, where nothing is lost."""
    works, expected = answered
    in_hand, take = [], Dispatch.take

    def watched(dispatch):
        shard = take(dispatch)
        in_hand.append(len(dispatch._in_hand))
        return shard

    monkeypatch.setattr(Dispatch, "take", watched)
    assert any(outcome.lost for outcome in expected)
    assert {outcome.measurement.split for outcome in expected} >= {"validation", "validation[:8]", "holdout"}
    executor = RayExecutor(2, limits=Limits(longest=1.0))
    found, commits = drive(executor, recipe, works, rounds=2)
    assert numbers(found) == numbers(expected)
    assert [outcome.work for outcome in found] == works
    assert len(commits) == 2 * len(works)
    assert all(outcome.worker.startswith("pid ") for outcome in commits)
    assert 1 <= max(in_hand) <= 2  # on a busy machine the first may be through before the second is up
    assert executor.report["evaluations"] == 2 * len(works)
    assert 0 < executor.report["busy_seconds"] < 2 * executor.report["wall_seconds"]


class Meeting:
    """A metric that returns when two evaluations have begun, so that both are needed at the same time."""

    __name__ = "meeting"

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, outputs, targets):
        (self.folder / uuid.uuid4().hex).touch()
        begun = len(list(self.folder.iterdir()))
        deadline = time.monotonic() + 100
        while len(list(self.folder.iterdir())) < begun + begun % 2:
            assert time.monotonic() < deadline, "nobody else came"
            time.sleep(0.01)
        return outputs.double().square().mean(1)


def test_all_workers_work_and_stay_warm_over_rounds(cluster, recipe, tmp_path):
    """Tune left to itself keeps one idle actor between rounds and starts the others again."""
    meeting = EvaluatorRecipe(task_of(Meeting(tmp_path)), recipe.space, recipe.calibration)
    works = [Work(each, batches=1) for each in configurations(recipe.space, 2)]
    _, commits = drive(RayExecutor(2, shard_size=1), meeting, works, rounds=3)
    assert len(commits) == 6
    assert len({outcome.worker for outcome in commits}) == 2


class Simulated:
    """Workers that answer in a random order, and sometimes die, in this process."""

    def __init__(self, draw, workers, size):
        self.draw, self.workers, self.size = draw, workers, size

    def drive(self, rounds, recipe, commit):
        dispatch = Dispatch(self.workers, recipe.order, recipe.samples, commit, Limits(size=self.size))
        evaluator, in_hand, batch, deaths = recipe.build(), [], next(rounds), 0
        while batch is not None:
            dispatch.begin(batch)
            while not dispatch.complete:
                while len(in_hand) < self.workers and (shard := dispatch.take()):
                    in_hand.append(shard)
                shard = in_hand.pop(self.draw(st.integers(0, len(in_hand) - 1)))
                if deaths < 5 and len(shard.works) > 1 and self.draw(st.booleans()):
                    deaths += 1
                    dispatch.died(shard.key, "preempted")
                else:
                    dispatch.answer(shard.key, list(attempt(evaluator, shard.works)), 0.3)
            try:
                batch = rounds.send(dispatch.outcomes)
            except StopIteration:
                batch = None


@settings(max_examples=10, deadline=None)
@given(data=st.data(), workers=st.sampled_from([1, 2, 4]), size=st.none() | st.integers(1, 30))
def test_results_depend_on_no_number_of_workers_no_shard_size_and_no_death(recipe, answered, data, workers, size):
    works, expected = answered
    found, commits = drive(Simulated(data.draw, workers, size), recipe, works, rounds=2)
    assert numbers(found) == numbers(expected)
    assert len(commits) == 2 * len(works)
    assert numbers(drive(LocalExecutor(size), recipe, works)[0]) == numbers(expected)


def test_harm_is_contained(cluster, recipe, tmp_path, capfd):
    """One candidate kills its workers always; one is stuck, one raises, each only once. Nothing is printed."""
    chosen = configurations(recipe.space, 6)
    traps = [
        trapped(recipe, chosen[2], "kill"),
        trapped(recipe, chosen[4], "stuck", str(tmp_path / "stuck")),
        trapped(recipe, chosen[5], "raise", str(tmp_path / "raised")),
    ]
    harmful = EvaluatorRecipe(task_of(_All(traps)), recipe.space, recipe.calibration)
    executor = RayExecutor(1, limits=Limits(size=2, least=2.0, unknown=2.0))
    found, commits = drive(executor, harmful, [Work(each) for each in chosen])
    assert (tmp_path / "stuck").exists()
    assert (tmp_path / "raised").exists()
    assert [index for index, outcome in enumerate(found) if outcome.measurement is None] == [2]
    assert "given up after the deaths of 2 workers" in found[2].failure
    assert "\n" not in found[2].failure
    assert executor.report["quarantined"] == 1
    assert executor.report["deaths"] >= 4
    assert len(commits) == 6
    assert capfd.readouterr().out == ""
    plain = EvaluatorRecipe(task_of(Trap(None, "")), recipe.space, recipe.calibration)
    expected, _ = drive(LocalExecutor(), plain, [Work(each) for each in chosen if each != chosen[2]])
    assert numbers([outcome for outcome in found if outcome.measurement]) == numbers(expected)


class _All:
    __name__ = "all"

    def __init__(self, recipes):
        self.traps = [each.task.quality for each in recipes]

    def __call__(self, outputs, targets):
        values = [trap(outputs, targets) for trap in self.traps]
        return values[-1]


def feed_of(recipe, search, commit):
    rounds = search()
    return Feed(rounds, next(rounds), Dispatch(1, recipe.order, recipe.samples, commit))


def reply(shard, recipe):
    found = [asdict(recipe.build().evaluate(work.configuration)) for work in decode_works(shard["works"])]
    answer = json.dumps([{"measurement": each, "failure": "", "worker": "pid 1"} for each in found])
    return {"key": shard["key"], "answer": answer, "busy": 0.5}


def test_what_the_search_or_the_store_raises_ends_the_feed_with_it(recipe):
    chosen = configurations(recipe.space, 1)

    def search():
        yield [Work(each) for each in chosen]
        raise InvalidInput("enough")

    feed = feed_of(recipe, search, lambda outcome: None)
    feed.answer(reply(feed.next_shard(), recipe))
    assert feed.next_shard() is None
    assert feed.finished
    assert str(feed.crash) == "enough"

    def refuse(outcome):
        raise BitfrontError("the disk is full")

    feed = feed_of(recipe, search, refuse)
    shard = feed.next_shard()
    feed.answer(reply(shard, recipe))
    assert feed.finished
    assert str(feed.crash) == "the disk is full"
    feed.died(shard["key"], "too late")
    assert feed.next_shard() is None
    feed = feed_of(recipe, search, lambda outcome: None)
    feed.answer({"key": feed.next_shard()["key"], "refused": ["InvalidInput", "one value per sample"]})
    assert isinstance(feed.crash, InvalidInput)


def test_the_last_line_of_an_error_is_told(tmp_path):
    (tmp_path / "error.txt").write_text("Traceback\n  File\nRuntimeError: no memory for this one\n\n")
    assert _last_line(str(tmp_path / "error.txt")) == "RuntimeError: no memory for this one"
    assert _last_line(str(tmp_path / "none.txt")) == _last_line(None) == "its worker died"


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_works_travel_unchanged(data):
    values = st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=5)
    floor = data.draw(st.floats(-1, 0))
    races = [Race(data.draw(values), data.draw(st.floats(0.01, 0.5)), 0.25, floor) for _ in range(2)]
    works = []
    for _ in range(data.draw(st.integers(1, 5))):
        known = data.draw(st.none() | values)
        works.append(
            Work(
                bf.Configuration.from_dict({"a": data.draw(st.sampled_from(FORMATS)), "b": "w4"}),
                data.draw(st.sampled_from(["validation", "holdout"])),
                data.draw(st.none() | st.integers(1, 9)),
                known and bf.evaluators.Measurement.of("kl", "validation[:4]", torch.tensor(known).numpy(), 0.1),
                data.draw(st.none() | st.sampled_from(races)),
            )
        )
    for one, other in zip(decode_works(encode_works(works)), works, strict=True):
        assert (one.configuration, one.split, one.batches) == (other.configuration, other.split, other.batches)
        assert one.known == other.known
        assert (one.race is None) == (other.race is None)
        if one.race:
            assert one.race.rival_values.tolist() == other.race.rival_values.tolist()
            assert asdict(one.race) | {"rival_values": 0} == asdict(other.race) | {"rival_values": 0}


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"cpus": -1}, {"gpus": -1}, {"shard_size": 0}])
def test_bad_numbers_are_refused(wrong):
    with pytest.raises(InvalidInput):
        RayExecutor(**wrong)
