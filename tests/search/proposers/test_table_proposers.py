"""Exact front, diverse, gaps and bisection against all configurations of a small space."""

import runpy
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.pareto import non_dominated
from bitfront.search.problem import Proposal
from bitfront.search.proposers import make
from bitfront.search.proposers.bisection import sensitivity_path
from bitfront.search.proposers.exact_front import farthest_first
from hypothesis import given, settings
from hypothesis import strategies as st

CASES = runpy.run_path(str(Path(__file__).parent / "proposer_cases.py"))
small, Judge, search = CASES["small"], CASES["Judge"], CASES["search"]


def everything(problem):
    """All configurations of a space as choices [n, sites], ties kept."""
    allowed = problem.space.allowed
    found = np.array(list(product(*(np.flatnonzero(row) for row in allowed))))
    for tie in problem.space.tie_indices:
        found = found[(found[:, list(tie)] == found[:, [tie[0]]]).all(axis=1)]
    return found


def losses(problem, choices, proxy="good", table=None, pairs=None):
    table = problem.loss(proxy) if table is None else table
    sums = table[np.arange(choices.shape[1]), choices].sum(axis=1)
    return sums + sum(extra[choices[:, one], choices[:, other]] for (one, other), extra in (pairs or {}).items())


def chosen(problem, proposals):
    return np.stack([problem.space.choice(each.configuration) for each in proposals])


def random_pairs(problem, seed=0, scale=0.5):
    generator = np.random.default_rng(seed)
    return {pair: generator.normal(0, scale, (4, 4)) for pair in ((0, 1), (1, 4), (3, 5))}


def test_the_first_proposals_are_the_optimum_of_every_proxy_under_the_constraints():
    problem = small(constraints={"avg_bits": 4.1, "latency_ms": 160.0})
    found = make("exact_front", problem).ask(8)
    every = everything(problem)
    every = every[problem.meets(every)]
    assert [each.origin for each in found[:2]] == ["budget:good", "budget:bad"]
    for proposal, proxy in zip(found, ("good", "bad"), strict=False):
        value = losses(problem, chosen(problem, [proposal]), proxy)[0]
        assert value == pytest.approx(losses(problem, every, proxy).min())


def test_without_constraints_points_lie_on_the_exact_fronts_and_are_spread_evenly():
    problem = small()
    found = make("exact_front", problem).ask(14)
    every = everything(problem)
    for proxy in ("good", "bad"):
        points = np.column_stack([problem.totals(every, "avg_bits"), losses(problem, every, proxy)])
        front = points[non_dominated(points)]
        mine = [each for each in found if each.origin == f"exact_front:{proxy}:avg_bits"]
        assert len(mine) >= 6
        for choice in chosen(problem, mine):
            point = [problem.totals(choice[None], "avg_bits")[0], losses(problem, choice[None], proxy)[0]]
            assert np.isclose(front, point).all(axis=1).any()
    bits = problem.totals(everything(problem), "avg_bits")
    mine = np.sort(problem.totals(chosen(problem, found), "avg_bits"))
    assert mine[[0, -1]] == pytest.approx([bits.min(), bits.max()])
    assert np.diff(mine).max() < 0.25 * np.ptp(bits)


@given(st.integers(0, 10**6))
def test_each_point_is_the_farthest_from_those_before_it(seed):
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 30, size=15).astype(float)
    covered = generator.random(15) < 0.2
    before = values[covered].tolist()
    for index in farthest_first(values, covered):
        if before:
            distances = np.abs(values[:, None] - before).min(axis=1)
            assert distances[index] == distances.max() > 0
        before.append(values[index])
    assert set(before) == set(values)


def test_a_table_takes_the_place_of_the_proxies_with_its_pairs():
    problem = small(constraints={"avg_bits": 4.1})
    proposer = make("exact_front", problem)
    proposer.ask(2)
    generator = np.random.default_rng(3)
    table, pairs = generator.uniform(0, 3, problem.space.allowed.shape), random_pairs(problem)
    every = everything(problem)
    every = every[problem.meets(every)]
    proposer.use(table)
    first = proposer.ask(1)
    assert first[0].origin == "budget:surrogate"
    best = losses(problem, every, table=table).min()
    assert losses(problem, chosen(problem, first), table=table)[0] == pytest.approx(best)
    proposer = make("exact_front", problem)
    proposer.use(table, pairs)
    second = proposer.ask(1)
    best = losses(problem, every, table=table, pairs=pairs).min()
    assert losses(problem, chosen(problem, second), table=table, pairs=pairs)[0] <= best + 2e-3 * abs(best)
    for proposal in proposer.ask(6):
        assert problem.meets(chosen(problem, [proposal])).all()


@pytest.mark.parametrize("name", ["exact_front", "diverse", "gaps", "bisection"])
def test_a_table_that_does_not_fit_is_refused(name):
    problem = small()
    with pytest.raises(InvalidInput, match=r"expected \[sites, formats\] = \(6, 4\)"):
        make(name, problem).use(np.zeros((6, 3)))
    with pytest.raises(InvalidInput, match="NaN or infinity"):
        make(name, problem).use(np.full((6, 4), np.nan))


@pytest.mark.parametrize("distance", [1, 2])
def test_diverse_solutions_are_the_best_that_differ(distance):
    problem = small(constraints={"avg_bits": 4.1})
    found = chosen(problem, make("diverse", problem, distance=distance).ask(6))
    every = everything(problem)
    every = every[problem.meets(every)]
    groups = [0, 1, 3, 4, 5]  # the first site of each tie group
    taken = []
    for choice in found:
        free = [row for row in every if all((row[groups] != one[groups]).sum() >= distance for one in taken)]
        best = losses(problem, np.array(free)).min()
        assert losses(problem, choice[None])[0] <= best * (1 + 2e-3)
        assert any(np.array_equal(choice, row) for row in free)
        taken.append(choice)
    with pytest.raises(InvalidInput, match="the number of tie groups"):
        make("diverse", problem, distance=6)


def test_without_constraints_diverse_goes_through_the_levels_of_the_measured_front():
    problem = small()
    proposer, judge = make("diverse", problem), Judge(problem)
    told = judge([Proposal(each, "uniform") for each in problem.space.uniforms().values()])
    proposer.tell(told)
    seen = {each.choice.tobytes() for each in told}
    every = everything(problem)
    prices = problem.totals(every, "avg_bits")
    levels = sorted(float(each.costs[0]) for each in told)[1:]  # below the first there is nothing else
    for choice, price in zip(chosen(problem, proposer.ask(3)), levels, strict=True):
        free = every[(prices <= price * (1 + 1e-9)) & [row.tobytes() not in seen for row in every]]
        assert losses(problem, choice[None])[0] <= losses(problem, free).min() * (1 + 2e-3)
        seen.add(choice.tobytes())


def test_gaps_are_filled_from_the_largest_on():
    problem = small(sites=8)
    proposer, judge = make("gaps", problem), Judge(problem, interaction=0.0)
    told = judge([Proposal(each, "uniform") for each in problem.space.uniforms().values()])
    proposer.tell(told)
    assert proposer.trusted() == "good"
    points = np.array(sorted([each.costs[0], np.log(each.quality)] for each in told))
    sizes = np.abs(np.diff(points, axis=0)).prod(axis=1)
    first = proposer.ask(1)
    largest = int(np.argmax(sizes))
    price = problem.totals(chosen(problem, first), "avg_bits")[0]
    assert first[0].origin == "gap:good:avg_bits"
    assert points[largest, 0] < price < points[largest + 1, 0]
    middle = points[largest : largest + 2, 0].mean()
    front = problem.totals(problem.front("good", "avg_bits"), "avg_bits")
    assert abs(price - middle) == pytest.approx(np.abs(front - middle).min())


def naive_path(problem, table, pairs):
    """Step by step, each candidate step by the full sum."""
    allowed = problem.space.allowed
    tied = [list(tie) for tie in problem.space.tie_indices]
    groups = [*tied, *([site] for site in range(len(allowed)) if not any(site in tie for tie in tied))]
    at = np.array([row.nonzero()[0][-1] for row in allowed])
    path = [at]
    while True:
        steps = []
        for group in groups:
            coarser = [column for column in range(path[-1][group[0]]) if allowed[group, column].all()]
            if coarser:
                other = path[-1].copy()
                other[group] = coarser[-1]
                steps.append((losses(problem, other[None], table=table, pairs=pairs)[0], tuple(other)))
        if not steps:
            return np.array(path)
        path.append(np.array(min(steps)[1]))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_the_path_takes_the_least_step_each_time(seed, with_pairs):
    problem = small(seed=seed % 5)
    table = np.random.default_rng(seed).uniform(0, 3, problem.space.allowed.shape)
    pairs = random_pairs(problem, seed) if with_pairs else {}
    assert np.array_equal(sensitivity_path(table, problem, pairs), naive_path(problem, table, pairs))


@pytest.mark.parametrize("parallel", [1, 3])
def test_bisection_finds_the_coarsest_point_that_keeps_the_target(parallel):
    problem = small(sites=40)
    judge = Judge(problem)
    path = sensitivity_path(problem.loss("good"), problem, {})
    qualities = np.array([judge.quality(choice) for choice in path])
    assert (np.diff(qualities) > 0).all()
    wanted = 37
    proposer = make("bisection", problem, target=float(qualities[wanted]) * 1.0001)
    told = search(proposer, problem, 40, parallel)
    assert len(told) <= parallel * np.ceil(np.log(len(path)) / np.log(parallel + 1) + 2)
    kept = [each for each in told if each.quality <= proposer.target]
    assert min(kept, key=lambda each: each.costs[0]).choice.tolist() == path[wanted].tolist()


def test_bisection_without_a_target_measures_the_ends_then_where_quality_changes_most():
    problem = small(sites=10)
    path = sensitivity_path(problem.loss("good"), problem, {})
    proposer, judge = make("bisection", problem), Judge(problem)
    first = proposer.ask(3)
    places = [path.tolist().index(choice.tolist()) for choice in chosen(problem, first)]
    assert places == [0, len(path) - 1, (len(path) - 1) // 2]
    proposer.tell(judge(first))
    known = sorted(places)
    heights = [np.log(judge.quality(path[at])) for at in known]
    steepest = int(np.argmax(np.abs(np.diff(heights))))
    then = path.tolist().index(chosen(problem, proposer.ask(1))[0].tolist())
    assert known[steepest] < then < known[steepest + 1]
