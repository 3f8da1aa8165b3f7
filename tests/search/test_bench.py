"""The bench: spread over sizes, ties kept, a prefix of any larger one, and nothing measured twice."""

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, UnsupportedModel
from bitfront.search import LocalExecutor, Outcome, bench_configurations, run_bench
from bitfront.search.bench_draws import van_der_corput
from bitfront.search.judged import judged
from bitfront.search.progress import Silent
from bitfront.search.stages import scored
from bitfront.store import Store
from torch import nn

FORMATS = ["w2", "w3", "w4", "w8", "bf16"]


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 4)
    )
    data = [torch.randn(16, 6) for _ in range(3)]
    return bf.Task(
        model, calibration=data[:1], validation=data[1:2], holdout=data[2:], quality="relative_error", name="mlp"
    )


@pytest.fixture(scope="module")
def space(task):
    return bf.SearchSpace.from_model(task.model, task.calibration[0], formats=FORMATS, ties=[["0", "6"]])


class Counting(LocalExecutor):
    count = 0

    def drive(self, rounds, recipe, commit):
        def counted(outcome):
            commit(outcome)
            self.count += 1

        super().drive(rounds, recipe, counted)


def test_configurations_differ_keep_ties_and_a_larger_bench_begins_with_a_smaller_one(space):
    bench = bench_configurations(space, 60, seed=3)
    assert len(set(bench)) == 60
    assert all(each["0"] == each["6"] for each in bench)
    assert bench_configurations(space, 20, seed=3) == bench[:20]
    assert bench_configurations(space, 20, seed=4) != bench[:20]
    for each in bench:
        space.choice(each)  # raises where a format is not offered or a tie is broken


def test_a_small_space_gives_what_it_has(space, task):
    small = bf.SearchSpace.from_model(task.model, task.calibration[0], formats=["w4", "w8"], ties=[["0", "2", "4"]])
    assert len(bench_configurations(small, 50)) == 4


def test_sizes_are_spread_evenly_and_random_ones_crowd(space):
    bench = bench_configurations(space, 80, seed=0)
    prices = bf.price(space, metrics=["size_mb"])
    sizes = np.array([prices.of(each)["size_mb"].value for each in bench])
    ends = [prices.of(space.uniform(name))["size_mb"].value for name in ("w2", "bf16")]
    share = (sizes - ends[0]) / (ends[1] - ends[0])
    counts = np.histogram(share, bins=5, range=(0, 1))[0]
    assert counts.min() >= 5
    assert -1e-9 <= share.min() < 0.1
    assert 0.9 < share.max() <= 1 + 1e-9


def test_targets_are_low_discrepancy():
    assert [van_der_corput(index) for index in range(1, 6)] == [0.5, 0.25, 0.75, 0.125, 0.625]


def test_nothing_is_measured_twice_and_more_evaluations_measure_the_rest(task, space, tmp_path):
    store = f"sqlite:///{tmp_path}/store.db"
    first, again, more = Counting(), Counting(), Counting()
    found = run_bench(task, space, ["weight_mse"], evaluations=12, store=store, executor=first)
    assert first.count == found.fresh == 13  # the float model too
    repeated = run_bench(task, space, ["weight_mse", "sqnr"], evaluations=12, store=store, executor=again)
    assert again.count == repeated.fresh == 0
    assert repeated.trust.rows["weight_mse"].kendall == found.trust.rows["weight_mse"].kendall
    run_bench(task, space, ["weight_mse"], evaluations=20, store=store, executor=more)
    assert more.count == 8


def test_what_could_not_be_measured_is_told_and_not_tried_again(task, space, tmp_path):
    store, doomed = Store(f"sqlite:///{tmp_path}/store.db"), bench_configurations(space, 12, seed=0)[3]

    class Broken(Counting):
        def drive(self, rounds, recipe, commit):
            def broken(outcome):
                fails = outcome.work.configuration == doomed
                commit(Outcome(outcome.work, None, failure="NaN at 2") if fails else outcome)

            super().drive(rounds, recipe, broken)

    first, second = Broken(), Counting()
    for executor in (first, second):
        found = run_bench(task, space, evaluations=12, executor=executor, store=store, proxies=["weight_mse"])
        assert found.failures == {doomed: "NaN at 2"}
        assert len(found.measurements) == 11
    assert (first.count, second.count) == (13, 0)  # the float model too


def test_measurements_are_what_the_evaluator_says_and_shared_with_a_search(task, space, tmp_path):
    store = f"sqlite:///{tmp_path}/store.db"
    found = run_bench(task, space, ["weight_mse"], evaluations=6, store=store)
    evaluator = bf.evaluators.FakeQuantEvaluator(task, space)
    for configuration, measurement in list(found.measurements.items())[::3]:
        assert evaluator.evaluate(configuration).value == pytest.approx(measurement.value, rel=1e-9)
    counting = Counting()
    result = bf.run(
        task, space, objectives=["quality", "size_mb"], evaluations=1, executor=counting, proxies=["weight_mse"],
        store=store,
    )  # fmt: skip
    fresh = set(space.uniforms().values()) - set(found.measurements)
    on_holdout = 1 + sum(point.holdout is not None for point in result.points)
    assert counting.count == len(fresh) + on_holdout  # the float model on validation data was known


def test_the_bench_judges_and_chooses(task, space, tmp_path):
    found = run_bench(
        task, space, ["measured_quality", "kurtosis"], evaluations=40, store=f"sqlite:///{tmp_path}/store.db"
    )
    rows = found.trust.rows
    assert list(rows) == ["measured_quality", "kurtosis", "size", "bops", "random"]
    assert rows["measured_quality"].kendall.value > rows["random"].kendall.high
    assert rows["measured_quality"].kendall_fixed.value > rows["random"].kendall_fixed.high
    assert found.trust.points == 40
    assert found.float_quality == 0


def test_interactions_of_pairs_are_stored_and_judged(task, space, tmp_path):
    store = Store(f"sqlite:///{tmp_path}/store.db")
    calibration = bf.calibrate(task, space)
    fresh, stored = (scored(task, space, calibration, "pairwise", 0, store, Silent()) for _ in range(2))
    assert fresh.pairs
    assert set(stored.pairs) == set(fresh.pairs)
    assert all(np.array_equal(stored.pairs[pair], fresh.pairs[pair]) for pair in fresh.pairs)
    bench = bench_configurations(space, 30)
    joint = [fresh.joint(each) for each in bench]
    assert joint != [fresh.of(each) for each in bench]
    row = judged(space, {"pairwise": stored}, bench, joint, draws=0).rows["pairwise"]
    assert row.kendall.value == pytest.approx(1)


def test_bad_arguments_are_refused(task, space, tmp_path):
    store = f"sqlite:///{tmp_path}/store.db"
    with pytest.raises(InvalidInput, match="at least 3"):
        run_bench(task, space, ["weight_mse"], evaluations=2, store=store)
    with pytest.raises(InvalidInput, match="did you mean 'weight_mse'"):
        run_bench(task, space, ["weight_mes"], evaluations=4, store=store)
    with pytest.raises(UnsupportedModel, match="none was asked for"):
        run_bench(task, space, [], evaluations=4, store=store)


class Undifferentiable(nn.Module):
    """Rounds, so that no gradient reaches the layer before it."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.two(torch.from_numpy(self.one(x).detach().numpy()))


def test_a_proxy_that_cannot_score_the_model_is_an_error_or_left_out_and_named(tmp_path):
    torch.manual_seed(0)
    data = [torch.randn(8, 6) for _ in range(3)]
    task = bf.Task(
        Undifferentiable(), calibration=data[:1], validation=data[1:2], holdout=data[2:], quality="relative_error"
    )
    space = bf.SearchSpace.from_model(task.model, data[0], formats=FORMATS)
    store = f"sqlite:///{tmp_path}/store.db"
    with pytest.raises(UnsupportedModel):
        run_bench(task, space, ["hessian_trace", "weight_mse"], evaluations=6, store=store)
    found = run_bench(task, space, ["hessian_trace", "weight_mse"], evaluations=6, store=store, leave_out=True)
    assert set(found.left_out) == {"hessian_trace"}
    assert "hessian_trace" not in found.trust.rows
    result = bf.run(
        task, space, objectives=["quality", "size_mb"], evaluations=8, executor="local", proxies="auto", store=store
    )
    assert "sqnr" in result.problem.sensitivities
    assert any("hessian_trace is left out" in note for note in result.notes)
