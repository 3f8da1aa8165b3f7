"""Genomes of a joint search timed whole: which, what is kept, and what is told where it cannot be done."""

import numpy as np
import pytest
from bitfront.search.joint import run_joint
from bitfront.search.joint.timed_whole import worth_timing
from bitfront.store import Store

ASKED = {"formats": ["w8a8", "bf16"], "objectives": ["quality", "latency_ms"], "executor": "local", "evaluations": 10}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('whole')}/store.db"


@pytest.fixture(scope="module")
def result(digits, digits_task, store):
    return run_joint(digits_task, digits, store=store, batch=4, whole_models=2, **ASKED)


def test_the_best_and_others_of_the_front_are_timed_whole(result):
    best = result.choose().point
    assert len(result.whole_ms) == 2
    assert best.genome in result.whole_ms
    assert all(ms > 0 for ms in result.whole_ms.values())
    told = [note for note in result.notes if "timed whole take" in note]
    assert len(told) == 1
    ratios = [
        result.whole_ms[p.genome] / p.prices["latency_ms"].value for p in result.points if p.genome in result.whole_ms
    ]
    assert f"{min(ratios):.2f} to {max(ratios):.2f}" in told[0]
    column = result.front.set_index("id")["whole_ms"]
    assert column.notna().sum() == 2
    points = {point["id"]: point["whole_ms"] for point in result.document()["points"]}
    assert points[best.id] == pytest.approx(column[best.id])


def test_what_the_store_knows_is_not_timed_again(digits, digits_task, store, result):
    again = run_joint(digits_task, digits, store=store, batch=4, whole_models=2, **ASKED)
    assert again.whole_ms == result.whole_ms
    timed = [ran for ran in again.ledger.ran if ran.detail == "whole models"]
    assert timed
    assert all(ran.ran == 0 for ran in timed)


def test_what_cannot_be_timed_is_told(digits, digits_task, store, result):
    opened = Store(store)
    found = run_joint(digits_task, digits, store=opened, batch=64, whole_models=1, **ASKED)
    opened.close()
    assert not found.whole_ms
    assert any("no whole model was timed" in note for note in found.notes)
    assert any("could not be timed: timing whole models at batch 64 needs" in note for note in found.notes)
    assert "whole_ms" not in found.front


def test_those_worth_timing_spread_over_the_front(result):
    best = result.choose().point
    front = [each for each in result.points if each.pareto and each.holdout is not None]
    assert worth_timing(result.points, best, "latency_ms", 0) == []
    assert worth_timing(result.points, best, "latency_ms", 1) == [best]
    every = worth_timing(result.points, best, "latency_ms", 100)
    assert every[0] is best
    assert {each.id for each in every} == {each.id for each in front} | {best.id}
    prices = [each.prices["latency_ms"].value for each in every[1:]]
    assert (np.diff(prices) >= 0).all()
