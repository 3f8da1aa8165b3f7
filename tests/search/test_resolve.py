"""Stages are reused by content, and a new budget is answered from the store, without the model."""

import json
import subprocess
import sys
from dataclasses import replace

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InfeasibleBudget, InvalidInput
from bitfront.measurement import Measurement, difference
from bitfront.search.knowledge import Knowledge, recall, remember
from bitfront.search.overlap import seen_before
from bitfront.search.records import price_arrays, prices_of, score_arrays, score_of, space_arrays, space_of
from bitfront.search.resolve import resolve
from bitfront.search.result import Choice
from bitfront.search.stage import STAGES, Ledger, Ran, key_of, outcome
from bitfront.store import Store
from torch import nn

FORMATS = ["w2", "w4", "w8", "bf16"]


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    model = nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(8, 8), nn.Tanh())], nn.Linear(8, 3))
    data = [[torch.randn(16, 8)] for _ in range(3)]
    return bf.Task(model, calibration=data[0], validation=data[1], holdout=data[2], quality="kl", name="five")


@pytest.fixture(scope="module")
def space(task):
    return bf.SearchSpace.from_model(task.model, task.calibration[0], formats=FORMATS, ties=[["2", "4"]])


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/store.db"


def search(task, space, url, **changes):
    options = {"objectives": ["quality", "size_mb"], "evaluations": 14, "executor": "local", "proxies": ["weight_mse"]}
    return bf.run(task, space, store=url, **{**options, **changes})


@pytest.fixture(scope="module")
def result(task, space, url):
    return search(task, space, url)


def stages(result):
    return {f"{ran.stage} {ran.detail}".strip(): (ran.ran, ran.reused) for ran in result.ledger.ran}


def test_what_did_not_change_is_not_run_again(result, task, space, url):
    first, again = stages(result), stages(search(task, space, url))
    assert first["calibrate"] == first["score weight_mse"] == first["price cpu"] == (1, 0)
    assert first["measure"][0] + first["refine"][0] == len(result.points) + 1  # and the float model
    for name, (ran, reused) in first.items():
        if name.split()[0] in ("calibrate", "score", "price", "measure", "refine", "validate") or "front" in name:
            assert again[name] == (0, ran + reused), name
    assert {ran.stage for ran in result.ledger.ran} <= set(STAGES)
    assert result.report["stages"] == result.document()["stages"] == result.ledger.plain()
    assert json.dumps(result.report["stages"])


def test_another_budget_runs_only_what_it_changes(task, space, tmp_path):
    url = f"sqlite:///{tmp_path}/own.db"
    search(task, space, url)
    found = stages(search(task, space, url, constraints={"avg_bits": 5.0}))
    assert found["calibrate"] == found["score weight_mse"] == (0, 1)
    assert found["measure"][1] >= len(set(space.uniforms().values()))


def test_outcome_computes_once_and_tells(tmp_path):
    store, ledger, calls = Store(f"sqlite:///{tmp_path}/s.db"), Ledger(), []

    def made(key):
        def compute():
            calls.append(key)
            return np.arange(3.0)

        return outcome(
            "score", "x", key, store, ledger,
            compute=compute, encode=lambda found: {"a": found}, decode=lambda arrays, seconds: arrays["a"],
        )  # fmt: skip

    key = key_of("score-1", "weights", {"b": 1, "a": [1, 2]})
    assert key == key_of("score-1", "weights", {"a": [1, 2], "b": 1}) != key_of("score-2", "weights", {"a": [1, 2]})
    np.testing.assert_array_equal(made(key), made(key))
    made("other")
    assert calls == [key, "other"]
    assert [(ran.ran, ran.reused) for ran in ledger.ran] == [(1, 0), (0, 1), (1, 0)]
    assert "reused 1" in ledger.ran[1].told()
    with pytest.raises(ValueError, match="no stage 'cook'"):
        ledger.add(Ran("cook", "", "", 1, 0, 0.0))


def test_records_come_back_as_they_were(result, space):
    assert space_of(space_arrays(space)) == space
    prices = prices_of(price_arrays(result.problem.prices), space)
    for metric, table in result.problem.prices.items():
        np.testing.assert_array_equal(prices[metric].values, table.values)
        assert replace(prices[metric], values=None, sigma=None, rows=()) == replace(
            table, values=None, sigma=None, rows=()
        )
    scores = replace(result.problem.sensitivities["weight_mse"], pairs={(0, 2): np.ones((4, 4))})
    back = score_of(score_arrays(scores), scores.seconds, "weight_mse", space.names, space.formats, True)
    np.testing.assert_array_equal(back.values, scores.values)
    np.testing.assert_array_equal(back.pairs[0, 2], scores.pairs[0, 2])
    damaged = {"space": space_arrays(replace(space, fixed_bytes=1))["space"]}
    text = damaged["space"].tobytes().replace(b'"fixed_bytes":1', b'"fixed_bytes":2')
    with pytest.raises(InvalidInput, match="empty store"):
        space_of({"space": np.frombuffer(text, dtype=np.uint8)})


def test_the_newest_record_of_a_job_counts(result, tmp_path):
    problem = result.problem
    store = Store(f"sqlite:///{tmp_path}/s.db")
    first = Knowledge("m", "kl", problem.space, problem.prices, dict(problem.sensitivities), ("quality", "size_mb"),
                      {}, {"validation": "v", "holdout": "h"})  # fmt: skip
    other = replace(first, constraints={"size_mb": 1.0})
    assert recall(store, "job") is None
    for found in (first, first, other, first):
        remember(store, "job", found)
        assert recall(store, "job").constraints == found.constraints
    assert recall(store, "another") is None


def test_a_budget_is_answered_as_the_search_would(result, space, url):
    sizes = sorted(point.prices["size_mb"].value for point in result.points)
    for budget in sizes[1::3]:
        answer = resolve(url, result.key, {"size_mb": budget})
        assert answer.choice.point.configuration == result.choose(budgets={"size_mb": budget}).point.configuration
        exact = bf.allocate(
            result.problem.loss("weight_mse"),
            {"size_mb": result.problem.cost("size_mb")},
            {"size_mb": budget - result.problem.prices["size_mb"].base},
            ties=space.tie_indices,
        )
        found = answer.resolved
        assert result.problem.sensitivities["weight_mse"].of(found.configuration) == pytest.approx(exact.objective)
        assert found.prices["size_mb"].value <= budget * (1 + 1e-9)
        assert found.low <= found.predicted <= found.high
        known = {point.configuration: point for point in result.points}
        assert answer.settled == (found.configuration in known)
        assert json.dumps(answer.plain(), allow_nan=False)


def test_what_cannot_be_answered_is_said(result, url):
    with pytest.raises(InvalidInput, match="holds nothing of this job"):
        resolve(url, "nothing", {"size_mb": 1.0})
    with pytest.raises(InvalidInput, match="unknown budget 'latency_ms'"):
        resolve(url, result.key, {"latency_ms": 1.0})
    with pytest.raises(InfeasibleBudget, match="smallest reachable"):
        resolve(url, result.key, {"size_mb": 1e-6})


def test_no_model_and_no_torch_is_loaded(result, url):
    script = (
        "import sys; from bitfront.search.resolve import resolve\n"
        f"print(resolve({url!r}, {result.key!r}, {{'size_mb': 1.0}}).resolved.configuration.digest)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    digest, loaded = done.stdout.split()
    assert digest == resolve(url, result.key, {"size_mb": 1.0}).resolved.configuration.digest
    assert loaded == "False"


def shifted(point, values):
    return replace(point, holdout=Measurement.of("kl", "holdout", np.asarray(values), 0.1))


@pytest.mark.parametrize(("shift", "spread", "tie"), [(-0.01, 1.0, True), (-1.0, 0.01, False)])
def test_a_winner_that_data_does_not_tell_from_uniform_is_a_tie(result, shift, spread, tie):
    noise = np.random.default_rng(0).normal(size=16)
    budget = max(point.prices["size_mb"].value for point in result.points)
    chosen = min((point for point in result.points if not point.baseline and point.holdout is not None),
                 key=lambda point: point.validation.value)  # fmt: skip
    samples = chosen.validation.samples
    best = replace(chosen, validation=Measurement.of("kl", "validation", np.full(samples, 1e-9), 0.1))
    points = []
    for point in result.points:
        if point is chosen:
            points.append(shifted(best, 5.0 + shift + spread * noise))
        else:
            points.append(shifted(point, np.full(16, 5.0 + spread * noise.mean())) if point.baseline else point)
    changed = replace(result, points=points)
    choice = changed.choose(budgets={"size_mb": budget})
    assert choice.point.id == chosen.id
    assert choice.tie is tie
    assert ("a tie with uniform" in choice.reason) is tie
    assert choice.against == difference(choice.point.holdout, choice.rival.holdout)
    assert choice.plain()["tie"] is tie
    assert choice.plain()["rival"] == choice.rival.id
    assert not Choice(chosen, "alone").tie


def test_a_best_point_without_held_out_data_is_not_called_best(result):
    """The cheapest within a drop was not validated: the uniform configuration that costs no more is returned."""
    points = [point if point.baseline else replace(point, holdout=None) for point in result.points]
    changed, told = replace(result, points=points), []
    base = result.float_model["validation"].value
    for limit in sorted(point.validation.value for point in points):
        within = [point for point in points if point.validation.value <= limit]
        cheapest = min(within, key=lambda point: (point.prices["size_mb"].value, point.validation.value))
        choice = changed.choose(max_drop=limit - base + 1e-12)
        assert choice.point.baseline is not None
        if cheapest.baseline is None:
            told.append(choice.reason)
    assert told
    assert all("was not measured on held-out data" in reason for reason in told)


def test_held_out_samples_that_were_seen_are_told(task, space, tmp_path):
    held = torch.cat([task.holdout[0].inputs[0], task.calibration[0].inputs[0][:3]])
    leaking = bf.Task(task.model, calibration=[task.calibration[0]], validation=[task.validation[0]], holdout=[held],
                      quality="kl", name="leak")  # fmt: skip
    assert seen_before(task) == (0, 16)
    assert seen_before(leaking) == (3, 19)
    found = search(leaking, space, f"sqlite:///{tmp_path}/s.db", evaluations=4)
    assert any("3 of 19 held-out samples" in note for note in found.document()["notes"])
