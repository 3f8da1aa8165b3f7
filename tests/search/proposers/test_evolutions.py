"""Level switch, random search and regularized evolution: budgets kept, optima found, and who beats whom."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.problem import Proposal
from bitfront.search.proposers import make
from bitfront.search.proposers.levels import Levels, measured_front
from bitfront.search.proposers.limits import Limits
from hypothesis import given, settings
from hypothesis import strategies as st

CASES = runpy.run_path(str(Path(__file__).parent / "proposer_cases.py"))
small, Judge, search = CASES["small"], CASES["Judge"], CASES["search"]


BUDGETS = [{"avg_bits": 3.7}, {"latency_ms": 150.0}, {"avg_bits": 4.0, "latency_ms": 160.0}]


def best(told):
    return min((each.quality for each in told if each.feasible), default=np.inf)


def uniforms(problem):
    return [Proposal(found, "uniform") for found in dict.fromkeys(problem.space.uniforms().values())]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([{"avg_bits": 3.7}, {"latency_ms": 150.0}, {"avg_bits": 4.0, "latency_ms": 160.0}]),
)
def test_a_switch_keeps_the_budget_to_the_last_element_and_leaves_none_that_a_step_could_use(seed, constraints):
    problem = small(seed=1, constraints=constraints)
    proposer = make("level_switch", problem, seed=seed, start="random")
    limits = Limits.of(problem, proposer.groups, constraints)
    parent = proposer._started(proposer.levels.take([]))
    children = list(proposer.switched(parent, limits))
    assert len(children) in (0, 2)
    for child in children:
        assert problem.meets(proposer.groups.expand(child)[None]).all()
        assert proposer.groups.allowed[np.arange(len(child)), child].all()
    if children:
        full, plain = children
        assert (full >= plain).all()
        assert (full > plain).any() or (limits.totals(full) == limits.totals(plain)).all()


def test_equal_sizes_switch_one_up_for_one_down():
    """Where all groups have one size and the budget is spent, a child keeps it exactly, as in EvoPress."""
    formats, bits = ("w2", "w3", "w4"), np.array([2.0, 3.0, 4.0])
    problem = small(sites=9, formats=formats, bits=bits, ties=False)
    size = problem.prices["avg_bits"]
    size.values[:] = np.where(problem.space.allowed, bits / 9, np.nan)
    problem.constraints["avg_bits"] = 3.0
    proposer = make("level_switch", problem, seed=3)
    limits = Limits.of(problem, proposer.groups, problem.constraints)
    parent = np.ones(9, dtype=np.int64)
    for _ in range(50):
        full = next(proposer.switched(parent, limits))
        assert (full - parent).sum() == 0
        assert 1 <= np.abs(full - parent).sum() / 2 <= 3


@pytest.mark.parametrize("name", ["level_switch", "regularized_evolution", "nsga2", "tpe"])
def test_the_optimum_of_a_small_problem_is_found(name):
    problem = small(constraints={"avg_bits": 4.1})
    judge = Judge(problem)
    options = {"start": "random"} if name == "level_switch" else {}
    space = problem.space
    every = np.stack(np.meshgrid(*(np.flatnonzero(row) for row in space.allowed), indexing="ij"), -1).reshape(-1, 6)
    every = every[every[:, 0] == every[:, 2]]
    every = every[problem.meets(every)]
    truth = min(judge.quality(choice) for choice in every)
    told = search(make(name, problem, seed=0, **options), problem, 30, 4)
    assert len(told) <= 120 < 0.4 * len(every)
    assert best(told) == pytest.approx(truth)


@pytest.mark.parametrize(("name", "rounds"), [("level_switch", 16), ("regularized_evolution", 40), ("nsga2", 40)])
def test_evolutions_beat_random_search_on_a_larger_problem(name, rounds):
    """20 sites, scores that mislead, four evaluations a round: the mean of log quality over three seeds."""
    problem = small(sites=20, constraints={"avg_bits": 3.5})
    misled = replace(problem, sensitivities={"bad": problem.sensitivities["bad"]}, _fronts={})

    def mean(proposer):
        found = [best(search(make(proposer, misled, seed=seed), problem, rounds, 4)) for seed in range(3)]
        return float(np.mean(np.log(found)))

    assert mean(name) < mean("random") - 0.1


def test_a_level_switch_from_the_optimum_of_the_scores_only_improves_on_it():
    problem = small(sites=20, constraints={"avg_bits": 3.5})
    told = search(make("level_switch", problem, seed=1), problem, 12, 4, interaction=2.0)
    start = problem.space.choice(problem.solve("good", problem.constraints))
    assert told[0].choice.tolist() == start.tolist()
    assert best(told) < told[0].quality
    with pytest.raises(InvalidInput, match="choose 'exact' or 'random'"):
        make("level_switch", problem, start="best")


def test_without_constraints_the_measured_front_is_gone_through_and_children_cost_no_more_than_their_parent():
    problem = small(sites=12, objectives=("quality", "avg_bits", "latency_ms"))
    told = Judge(problem)(uniforms(problem))
    front = measured_front(told)
    assert len(front) >= 3
    levels = Levels(problem)
    turns = [levels.take(told) for _ in range(2 * len(front))]
    assert [turn.parent.tolist() for turn in turns] == 2 * [each.choice.tolist() for each in front]
    for turn in turns:
        for name, budget in turn.budgets.items():
            assert budget == pytest.approx(problem.totals(turn.parent[None], name)[0])
    proposer = make("level_switch", problem, seed=0)
    proposer.tell(told)
    for proposal in proposer.ask(10):
        costs = [
            problem.totals(problem.space.choice(proposal.configuration)[None], name)[0] for name in turns[0].budgets
        ]
        assert any((np.array(costs) <= each.costs * (1 + 1e-9)).all() for each in front)


def test_the_best_of_others_becomes_the_parent():
    problem = small(sites=12, constraints={"avg_bits": 3.5})
    judge = Judge(problem)
    foreign = min(judge(make("random", problem, seed=8).ask(30)), key=lambda each: each.quality)
    levels = Levels(problem)
    assert levels.take([foreign]).parent is foreign.choice
    infeasible = judge(uniforms(problem))[-1]
    assert not infeasible.feasible
    assert levels.take([infeasible]).parent is None


def test_random_search_draws_near_the_budget_and_over_the_whole_range_without_one():
    problem = small(sites=40, constraints={"avg_bits": 3.5})
    bits = [each.costs[0] for each in Judge(problem)(make("random", problem, seed=0).ask(40))]
    assert max(bits) <= 3.5 + 1e-9
    assert np.mean(bits) > 3.3
    free = small(sites=40)
    bits = [each.costs[0] for each in Judge(free)(make("random", free, seed=0).ask(60))]
    assert np.histogram(bits, bins=4, range=(min(bits), max(bits)))[0].min() >= 5
    assert min(bits) < 2.6
    assert max(bits) > 7


def test_the_oldest_dies_however_good_it_is():
    problem = small(sites=12, constraints={"avg_bits": 4.1})
    proposer, judge = make("regularized_evolution", problem, seed=0, population=4, sample=4), Judge(problem)
    start = judge(make("random", problem, seed=1).ask(12))
    start.sort(key=lambda each: each.quality)  # the best is the oldest
    proposer.tell(start)
    limits = Limits.of(problem, proposer.groups, problem.constraints)
    winner = proposer.groups.contract(start[-4].choice)  # the best of the four that are alive
    for _ in range(20):
        assert (proposer._mutant(proposer.inside(), limits) != winner).sum() == 1
    with pytest.raises(InvalidInput, match="1 <= sample <= population"):
        make("regularized_evolution", problem, population=3, sample=4)
