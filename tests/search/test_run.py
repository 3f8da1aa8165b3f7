"""The whole chain on a small trained network: promises 1, 2, 4, 6 of the design."""

import json
from dataclasses import replace

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.search import LocalExecutor, RayExecutor
from bitfront.search.executor import attempt
from bitfront.store import Store
from torch import nn

FORMATS = ["w2", "w3", "w4", "w8", "w8a8", "bf16"]


@pytest.fixture(scope="module")
def task():
    """A classifier of two spirals that has really learnt them, so that formats matter."""
    generator = torch.Generator().manual_seed(0)

    def spirals(count):
        label = torch.randint(0, 2, (count,), generator=generator)
        angle = 3 * torch.rand(count, generator=generator) + 0.3
        turn = angle + torch.pi * label
        points = torch.stack([angle * turn.cos(), angle * turn.sin()], 1)
        return points + 0.05 * torch.randn(count, 2, generator=generator), label

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 2)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y = spirals(512)
    for _ in range(400):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return bf.Task(
        model,
        calibration=[spirals(64)],
        validation=[spirals(128)],
        holdout=[spirals(128)],
        quality="kl",
        name="spirals",
    )


@pytest.fixture(scope="module")
def space(task):
    return bf.SearchSpace.from_model(task.model, task.calibration[0], formats=FORMATS)


def search(task, space, folder, **changes):
    options = {"objectives": ["quality", "size_mb"], "evaluations": 24, "executor": "local"}
    return bf.run(task, space, store=f"sqlite:///{folder}/store.db", **{**options, **changes})


@pytest.fixture(scope="module")
def result(task, space, tmp_path_factory):
    return search(task, space, tmp_path_factory.mktemp("run"))


def test_every_uniform_configuration_is_really_evaluated(result, space):
    by_name = {point.baseline: point for point in result.points if point.baseline}
    assert set(by_name) == set(FORMATS)
    assert all(point.holdout is not None for point in by_name.values())
    for name, point in by_name.items():
        assert set(point.configuration.values()) == {name}


def test_measurements_are_what_the_evaluator_says(result, task, space):
    for point in result.points[::5]:
        fresh = bf.evaluators.FakeQuantEvaluator(task, space).evaluate(point.configuration)
        assert fresh.value == pytest.approx(point.validation.value, rel=1e-9)


def test_the_measured_front_is_a_front(result):
    front = [point for point in result.points if point.pareto]
    assert len(front) >= 5
    for first in front:
        for other in result.points:
            better = other.validation.value < first.validation.value
            cheaper = other.prices["size_mb"].value < first.prices["size_mb"].value
            no_worse = other.validation.value <= first.validation.value
            no_dearer = other.prices["size_mb"].value <= first.prices["size_mb"].value
            assert not (no_worse and no_dearer and (better or cheaper))


def test_budgets_hold_and_the_best_is_never_beaten_by_a_uniform_one(result):
    sizes = [point.prices["size_mb"].value for point in result.points]
    for budget in np.linspace(min(sizes), max(sizes), 12):
        chosen = result.choose(budgets={"size_mb": float(budget)}).point
        assert chosen.prices["size_mb"].value <= budget * (1 + 1e-9)
        for point in result.points:
            if point.baseline and point.prices["size_mb"].value <= chosen.prices["size_mb"].value:
                assert chosen.quality <= point.quality


def test_a_uniform_configuration_is_returned_and_said_so_when_nothing_beats_it(result):
    """What wins on validation data loses on held-out data: the search must not call it best."""
    sizes = [point.prices["size_mb"].value for point in result.points]
    sizes = [size for size in sizes if size > 1.2 * min(p.prices["size_mb"].value for p in result.points if p.baseline)]
    winners = {size: result.choose(budgets={"size_mb": size}).point for size in sizes}
    budget, chosen = next((size, point) for size, point in winners.items() if point.baseline is None)

    def spoiled(point):
        if point.baseline or not point.holdout:
            return point
        return replace(point, holdout=replace(point.holdout, value=99.0, values=(99.0,) * 128))

    alone = [spoiled(point) if point is chosen else point for point in result.points]
    other = type(result)(**{**vars_of(result), "points": alone}).choose(budgets={"size_mb": budget})
    assert other.point.id != chosen.id
    points = [spoiled(point) for point in result.points]
    choice = type(result)(**{**vars_of(result), "points": points}).choose(budgets={"size_mb": budget})
    assert choice.point.baseline is not None
    assert "uniform" in choice.reason
    assert "nothing better" in choice.reason or "nothing measured beats it" in choice.reason


def vars_of(result):
    names = ("problem", "points", "float_model", "surrogate", "seconds", "failures", "job", "model", "metric", "notes")
    return {name: getattr(result, name) for name in names}


def test_max_drop_gives_the_cheapest_within_it(result):
    drop = sorted(point.validation.value for point in result.points)[4] * 1.01
    chosen = result.choose(max_drop=drop).point
    within = [point for point in result.points if point.validation.value <= drop]
    assert chosen.prices["size_mb"].value == min(point.prices["size_mb"].value for point in within)
    with pytest.raises(bf.errors.InfeasibleBudget, match="the least is"):
        result.best(max_drop=-1.0)
    with pytest.raises(bf.errors.InvalidInput, match="unknown budget 'size'"):
        result.best(size=3.0)


def test_the_proposed_points_lie_on_the_exact_front(result):
    problem = result.problem
    for proxy in ("hessian_trace", "sqnr"):
        front = bf.exact_front(problem.loss(proxy), problem.cost("size_mb"), allowed=problem.space.allowed)
        exact = {problem.space.configuration(choice) for choice in front["choice"]}
        proposed = [point for point in result.points if point.origin == f"exact_front:{proxy}:size_mb"]
        assert proposed
        assert all(point.configuration in exact for point in proposed)


def test_the_search_learns_and_says_how_it_went(result):
    """The hypervolume never falls, every evaluation is accounted for, and each proposer had a share."""
    told = result.report["search"]
    volumes = [line["hypervolume"] for line in told["rounds"]]
    assert volumes == sorted(volumes)
    assert sum(line["measured"] for line in told["rounds"]) == 24
    assert told["rounds"][-1]["evaluations"] == len(result.points)
    later = sum(line["measured"] for line in told["rounds"][2:])
    assert sum(arm["evaluations"] for arm in told["proposers"]) == later
    assert told["surrogate"]["points"] > len(FORMATS)
    assert told["ended"] == "all evaluations spent"


def test_constraints_are_met_by_what_is_proposed_and_returned(task, space, tmp_path):
    found = search(task, space, tmp_path, constraints={"avg_bits": 4.5})
    proposed = [point for point in found.points if point.baseline is None]
    assert proposed
    assert all(point.prices["avg_bits"].value <= 4.5 for point in proposed)
    assert found.problem.prices.of(found.best())["avg_bits"].value <= 4.5


def test_an_impossible_budget_names_the_smallest_possible_before_anything_is_measured(task, space, tmp_path):
    table = bf.price(space, metrics=["size_mb"])["size_mb"]
    least = table.base + np.nanmin(table.values, axis=1).sum()
    with pytest.raises(bf.errors.InfeasibleBudget, match=f"smallest reachable alone {least:.6g}"):
        search(task, space, tmp_path, constraints={"size_mb": 0.0001})
    (job,) = Store(f"sqlite:///{tmp_path}/store.db").jobs()
    assert job.state == "failed"
    assert "size_mb" in job.reason


class Counting(LocalExecutor):
    """Counts what is really evaluated, and dies after a number of evaluations."""

    def __init__(self, dies_after=10**9):
        super().__init__(shard_size=4)
        self.count = 0
        self.dies_after = dies_after

    def drive(self, rounds, recipe, commit):
        def counted(outcome):
            if self.count == self.dies_after:
                raise KeyboardInterrupt
            commit(outcome)
            self.count += 1

        super().drive(rounds, recipe, counted)


def test_nothing_measured_is_measured_again(task, space, tmp_path, result):
    interrupted = Counting(dies_after=13)
    with pytest.raises(KeyboardInterrupt):
        search(task, space, tmp_path, executor=interrupted)
    (job,) = Store(f"sqlite:///{tmp_path}/store.db").jobs()
    assert job.state == "paused"
    rest = Counting()
    found = search(task, space, tmp_path, executor=rest)
    whole = len(result.points) + 2 + sum(point.holdout is not None for point in result.points)  # 2: the float model
    assert interrupted.count + rest.count == whole
    again = Counting()
    search(task, space, tmp_path, executor=again)
    assert again.count == 0
    assert [p.validation.value for p in found.points] == [p.validation.value for p in result.points]


def test_a_stored_calibration_is_the_calibration(task, space, tmp_path):
    from bitfront.search.progress import Silent
    from bitfront.search.stages import calibrated

    store = Store(f"sqlite:///{tmp_path}/store.db")
    fresh, stored = (calibrated(task, space, bf.Recipe(), store, Silent()) for _ in range(2))
    assert stored.digest == fresh.digest == bf.calibrate(task, space).digest
    assert stored.ranges == fresh.ranges
    assert stored.ranges


def test_ray_and_local_give_the_same_front(task, space, tmp_path, result):
    found = search(task, space, tmp_path, executor=RayExecutor(workers=2))
    columns = ["id", "validation_value", "holdout_value", "size_mb", "pareto"]
    assert found.front[columns].equals(result.front[columns])
    assert found.best() == result.best()


def test_a_candidate_without_finite_output_is_recorded_and_the_search_goes_on(task, space, tmp_path):
    class Faulty:
        def drive(self, rounds, recipe, commit):
            evaluator = recipe.build()

            def run(work):
                if "w3" in work.configuration.values() and work.split == "validation":
                    broken = type("E", (), {"evaluate_many": staticmethod(not_finite)})
                    return next(attempt(broken, [work]))
                return next(attempt(evaluator, [work]))

            def not_finite(configurations, split):
                return [bf.errors.NonFiniteOutput("NaN") for _ in configurations]

            batch = next(rounds)
            try:
                while True:
                    outcomes = [run(work) for work in batch]
                    for outcome in outcomes:
                        commit(outcome)
                    batch = rounds.send(outcomes)
            except StopIteration:
                return

    found = search(task, space, tmp_path, executor=Faulty())
    assert found.report["failed"]
    assert all("w3" not in point.configuration.values() for point in found.points)
    assert found.best()


def test_the_document_is_plain_json(result):
    document = result.document()
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text)["best"] in {point["id"] for point in document["points"]}
    assert len({point["id"] for point in document["points"]}) == len(document["points"])
    best = next(point for point in document["points"] if point["id"] == document["best"])
    assert best["config"] == result.best().to_dict()


@pytest.mark.parametrize(("job", "name"), [({}, "spirals"), ({"name": ""}, "spirals"), ({"name": "mine"}, "mine")])
def test_a_front_is_named_after_its_job_or_else_its_model(result, job, name):
    assert replace(result, job=job).document()["name"] == name


def test_time_budget_stops_further_candidates(task, space, tmp_path):
    found = search(task, space, tmp_path, seconds=1e-3)
    assert {point.origin for point in found.points} == {"uniform"}
    assert found.best()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": ["quality", "size"]}, "did you mean 'size_mb'"),
        ({"objectives": ["size_mb"]}, "leave out 'quality'"),
        ({"objectives": ["quality"]}, "at least one price"),
        ({"constraints": {"latency": 3}}, "did you mean 'latency_ms'"),
        ({"constraints": {"size_mb": -1}}, "must be positive"),
        ({"evaluations": 0}, "at least 1"),
        ({"executor": "rya"}, "choose 'ray' or 'local'"),
        ({"proxies": ["hessian"]}, "did you mean 'hessian_trace'"),
        ({"proxies": []}, "give a list of names"),
        ({"device": "nvidia-h100"}, "nvidia-h100-"),
    ],
)
def test_bad_arguments_are_one_clear_line(task, space, tmp_path, changes, message):
    if "device" in changes:
        changes = {**changes, "objectives": ["quality", "latency_ms"]}
    with pytest.raises(bf.errors.InvalidInput, match=message) as caught:
        search(task, space, tmp_path, **changes)
    assert "\n" not in str(caught.value)


def _two_numbers(outputs, targets):
    return torch.zeros(2)


@pytest.mark.parametrize("executor", [LocalExecutor(), RayExecutor(workers=1)])
def test_bad_input_is_bad_input_on_every_executor(tmp_path, executor):
    torch.manual_seed(0)
    data = [torch.randn(3, 6) for _ in range(3)]
    task = bf.Task(
        torch.nn.Linear(6, 4), calibration=data[:1], validation=data[1:2], holdout=data[2:], quality=_two_numbers
    )
    space = bf.SearchSpace.from_model(task.model, data[0], formats=["w4", "w8"])
    with pytest.raises(InvalidInput, match="one value per sample"):
        bf.run(task, space, objectives=["quality", "size_mb"], evaluations=2, executor=executor, proxies=["weight_mse"],
               store=f"sqlite:///{tmp_path}/store.db")  # fmt: skip


def test_the_report_judges_every_proxy_beside_the_baselines(result):
    trust = result.report["trust"]
    assert list(trust["rows"]) == ["hessian_trace", "sqnr", "size", "bops", "random"]
    assert trust["points"] == len(result.points)
    assert trust["choice"] is None
    for name in ("hessian_trace", "sqnr"):
        row = trust["rows"][name]
        assert row["spearman"]["value"] == pytest.approx(result.report["proxies"][name]["spearman"], abs=1e-12)
        assert row["kendall"]["low"] <= row["kendall"]["value"] <= row["kendall"]["high"]
        assert row["seconds"] > 0
    assert trust["rows"]["hessian_trace"]["kendall"]["value"] > 0.5
    assert result.document()["trust"] == trust
