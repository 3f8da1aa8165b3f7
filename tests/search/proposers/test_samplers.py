"""Optuna's samplers: what their study holds, how they start, and that they say nothing."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bitfront.search.problem import Proposal
from bitfront.search.proposers import make
from bitfront.search.proposers.scale import signed_log
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

CASES = runpy.run_path(str(Path(__file__).parent / "proposer_cases.py"))
small, Judge, search = CASES["small"], CASES["Judge"], CASES["search"]


def finished(proposer):
    return [trial for trial in proposer._study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]


@pytest.mark.parametrize("name", ["nsga2", "nsga3", "tpe"])
def test_the_study_holds_every_result_once_also_those_of_others(name):
    problem = small(constraints={"avg_bits": 4.1})
    proposer, judge = make(name, problem, seed=0, startup=4), Judge(problem)
    foreign = judge([Proposal(each, "uniform") for each in problem.space.uniforms().values()])
    proposer.tell(foreign)
    told = list(foreign)
    for count in (3, 4, 2):
        found = judge(proposer.ask(count))
        proposer.tell(found)
        told += found
    trials = finished(proposer)
    expected = sorted((proposer.groups.contract(each.choice).tolist(), signed_log(each.quality)) for each in told)
    assert sorted((proposer._of(trial.params).tolist(), trial.values[0]) for trial in trials) == expected
    for trial in trials:
        choice = proposer.groups.expand(proposer._of(trial.params))
        assert (trial.constraints["avg_bits"] <= 0) == bool(problem.meets(choice[None])[0])
    if name == "nsga2":  # all are members of a generation, so all can become parents
        assert all(any("generation" in key for key in trial.system_attrs) for trial in trials)


def test_without_constraints_prices_are_objectives_and_with_them_quality_is_the_only_one():
    problem = small(objectives=("quality", "avg_bits", "latency_ms"))
    proposer = make("nsga2", problem, seed=0)
    told = Judge(problem)(proposer.ask(3))
    proposer.tell(told)
    assert [trial.values for trial in finished(proposer)] == [
        pytest.approx([signed_log(each.quality), *each.costs]) for each in told
    ]
    assert len(make("tpe", small(constraints={"avg_bits": 4.0}))._study.directions) == 1


def test_it_starts_with_front_points_and_random_ones_until_enough_is_known():
    problem = small(sites=12, constraints={"avg_bits": 3.6})
    first = make("tpe", problem, seed=3, startup=6).ask(1)[0]
    assert first.configuration == problem.solve("good", problem.constraints)
    known = Judge(problem)(make("random", problem, seed=5).ask(8))
    proposer = make("tpe", problem, seed=3, startup=6)
    proposer.tell(known)
    proposer.ask(2)
    assert proposer._started == 0


def test_constrained_tpe_learns_from_results_where_the_scores_mislead():
    problem = small(sites=20, constraints={"avg_bits": 3.5})
    misled = replace(problem, sensitivities={"bad": problem.sensitivities["bad"]}, _fronts={})
    told = search(make("tpe", misled, seed=0), problem, 16, 4)
    first, last = told[:20], told[-20:]
    assert np.median([each.quality for each in last]) < 0.8 * np.median([each.quality for each in first])


def test_the_process_minimises_a_scalar_of_the_objectives():
    problem = small()
    proposer, judge = make("gp", problem, seed=0, startup=3), Judge(problem)
    told = judge(make("random", problem, seed=5).ask(5))
    proposer.tell(told)
    scalars = proposer._scalars(told)
    values = np.array([[signed_log(each.quality), each.costs[0]] for each in told])
    scaled = (values - values.min(axis=0)) / np.ptp(values, axis=0)
    for one, other in np.ndindex(5, 5):  # a monotone norm: what dominates has the smaller value
        if (scaled[one] < scaled[other]).all():
            assert scalars[one] < scalars[other]
    pending = proposer.ask(1)[0]
    proposer.ask(1)
    running = [trial for trial in proposer._study.get_trials() if trial.state == TrialState.RUNNING]
    asked = proposer.groups.contract(problem.space.choice(pending.configuration)).tolist()
    assert asked in [proposer._of(trial.params).tolist() for trial in running]
    assert len(finished(proposer)) == 5


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["nsga2", "nsga3", "tpe"])
def test_nothing_is_logged_or_warned_of(name, capfd):
    problem = small()
    search(make(name, problem, seed=0, startup=4), problem, 3, 3)
    assert capfd.readouterr() == ("", "")


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_the_logarithm_keeps_the_order(one, other):
    assert (signed_log(one) < signed_log(other)) <= (one < other)
    assert signed_log(-one) == -signed_log(one)
    if one >= 1e-6 and other >= 1e-6:
        assert signed_log(one) - signed_log(other) == pytest.approx(np.log(one / other), abs=2e-3)
