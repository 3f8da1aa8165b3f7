"""Pairwise terms, uncertain prices, conflicts, several answers, the reverse question, repairs, certificates."""

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from bitfront.errors import InfeasibleBudget, InvalidInput
from bitfront.search.allocation import (
    BudgetConflict,
    allocate,
    certify,
    cheapest,
    diverse,
    exact_front,
    hypervolume,
    knee,
    monotone_repair,
)
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-12, 1.0, 1e9]), st.booleans())
def test_pairwise_losses_and_costs(enumerate_all: Callable, seed: int, scale: float, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    sites, choices = int(rng.integers(2, 6)), int(rng.integers(1, 4))
    loss, cost = scale * rng.standard_normal((sites, choices)), rng.uniform(0, 1, (sites, choices))
    pair_loss = {(i, i + 1): scale * rng.standard_normal((choices, choices)) for i in range(sites - 1)}
    pair_loss[sites - 1, 0] = scale * rng.standard_normal((choices, choices))
    convert = {"latency": {(i, i + 1): 0.3 * (1 - np.eye(choices)) for i in range(sites - 1)}}
    ties = [[0, sites - 1]] if tied else None
    everything = enumerate_all(loss, {"latency": cost}, ties, pair_loss=pair_loss, pair_costs=convert)
    limits = {"latency": float(np.quantile(everything.cost["latency"], 0.4))}
    found = allocate(loss, {"latency": cost}, limits, ties, pair_loss=pair_loss, pair_costs=convert)
    assert found.objective == pytest.approx(everything.best(limits), rel=1e-9, abs=1e-9 * scale)
    assert found.objective - found.bound <= 1e-7 * scale
    assert found.costs["latency"] <= limits["latency"] + 1e-12
    assert found.status == "optimal"


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from(["independent", "full"]), st.sampled_from([0.5, 0.9, 0.99]), st.booleans()
)
def test_uncertain_prices(enumerate_all: Callable, seed: int, correlation: str, probability: float, two: bool) -> None:
    rng = np.random.default_rng(seed)
    sites, choices = int(rng.integers(1, 7)), int(rng.integers(1, 4))
    names = ["latency", "energy"][: 1 + two]
    loss = rng.standard_normal((sites, choices))
    costs = {name: rng.uniform(1, 2, (sites, choices)) for name in names}
    std = {name: rng.uniform(0, 1, (sites, choices)) for name in names}
    spread = {f"{n} s": s if correlation == "full" else s**2 for n, s in std.items()}
    everything = enumerate_all(loss, {**costs, **spread})
    z = NormalDist().inv_cdf(probability)
    for name in names:
        margin = everything.cost[f"{name} s"]
        everything.cost[name] = everything.cost[name] + z * (margin if correlation == "full" else np.sqrt(margin))
    limits = {name: float(np.quantile(everything.cost[name], 0.5)) + 1e-9 for name in names}
    options = {"std": std, "probability": probability, "correlation": correlation}
    expected = everything.best(limits)
    if expected is None:
        with pytest.raises(InfeasibleBudget):
            allocate(loss, costs, limits, **options)
        return
    found = allocate(loss, costs, limits, **options)
    assert found.objective == pytest.approx(expected)
    assert found.status == "optimal"
    assert found.costs[names[0]] == pytest.approx(costs[names[0]][np.arange(sites), found.choice].sum())


def test_a_budget_out_of_reach_names_the_smallest_value() -> None:
    with pytest.raises(BudgetConflict, match=r"size >= 3 \(budget 2\)") as caught:
        allocate([[1.0, 0.0]] * 3, {"size": [[1.0, 2.0]] * 3}, {"size": 2.0})
    assert caught.value.reachable == {"size": 3.0}
    assert caught.value.conflict == ("size",)


def test_a_conflict_names_the_budgets_that_exclude_each_other() -> None:
    size = np.array([[1.0, 5.0]] * 4)
    costs = {"size": size, "latency": size[:, ::-1], "energy": np.ones((4, 2))}
    with pytest.raises(BudgetConflict, match="size and latency together") as caught:
        allocate(np.zeros((4, 2)), costs, {"size": 8.0, "energy": 4.0, "latency": 8.0})
    assert caught.value.conflict == ("size", "latency")
    assert caught.value.reachable == {"size": 4.0, "energy": 4.0, "latency": 4.0}


def test_an_uncertain_budget_out_of_reach_counts_its_margin() -> None:
    with pytest.raises(BudgetConflict, match=r"latency >= 7\.2897") as caught:
        allocate(
            [[0.0]] * 4, {"latency": [[1.0]] * 4}, {"latency": 6.0}, std={"latency": [[1.0]] * 4}, probability=0.95
        )
    assert caught.value.reachable["latency"] == pytest.approx(4 + 2 * NormalDist().inv_cdf(0.95))


@pytest.mark.parametrize("distance", [1, 2, 3])
def test_the_best_few_that_differ(enumerate_all: Callable, distance: int) -> None:
    rng = np.random.default_rng(distance)
    loss, cost = rng.uniform(0, 1, (6, 3)), rng.uniform(0, 1, (6, 3))
    found = diverse(loss, {"c": cost}, {"c": 3.0}, 8, min_distance=distance)
    everything = enumerate_all(loss, {"c": cost})
    open_ = everything.cost["c"] <= 3.0
    for one in found:
        assert one.objective == pytest.approx(everything.loss[open_].min())
        open_ &= (everything.choice != one.choice).sum(axis=1) >= distance
    assert len(found) == 8
    apart = [(a.choice != b.choice).sum() for i, a in enumerate(found) for b in found[:i]]
    assert min(apart) >= distance


def test_no_more_answers_than_there_are() -> None:
    found = diverse([[0.0, 1.0]] * 2, {"c": [[1.0, 1.0]] * 2}, {"c": 2.0}, 9, ties=[[0, 1]])
    assert [one.choice.tolist() for one in found] == [[0, 0], [1, 1]]


def test_the_cheapest_within_a_loss(enumerate_all: Callable) -> None:
    rng = np.random.default_rng(8)
    cost = rng.uniform(0, 1, (6, 3))
    terms = {"kl": rng.uniform(0, 1, (6, 3)), "error": rng.uniform(0, 1, (6, 3))}
    everything = enumerate_all(cost, terms)
    limits = {"kl": 2.2, "error": 2.5}
    found = cheapest(cost, terms, limits)
    assert found.objective == pytest.approx(everything.best(limits))
    single = cheapest(cost, terms["kl"], 2.0)
    assert single.objective == pytest.approx(everything.best({"kl": 2.0}))
    assert single.costs["loss"] <= 2.0
    with pytest.raises(InvalidInput, match="one limit for 2"):
        cheapest(cost, terms, 2.0)


def test_repairs_are_reported_and_only_on_request() -> None:
    loss = np.array([[5.0, 1.0, 2.0], [3.0, 2.0, 1.0]])
    bits = np.array([[2.0, 4.0, 8.0]] * 2)
    repaired, changes = monotone_repair(loss, bits)
    assert repaired.tolist() == [[5.0, 1.5, 1.5], [3.0, 2.0, 1.0]]
    assert {(c.site, c.choice, c.before, c.after) for c in changes} == {(0, 1, 1.0, 1.5), (0, 2, 2.0, 1.5)}
    plain = allocate(loss, {"bits": bits}, {"bits": 16.0})
    assert plain.choice.tolist() == [1, 2]
    assert "repairs" not in plain.details
    smooth = allocate(loss, {"bits": bits}, {"bits": 16.0}, monotone="bits")
    assert smooth.details["repairs"] == changes or set(smooth.details["repairs"]) == set(changes)
    assert smooth.objective == 2.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_certificates_hold_in_exact_arithmetic(seed: int, budgets: int) -> None:
    rng = np.random.default_rng(seed)
    loss = rng.lognormal(0, 3, (30, 4))
    costs = {f"c{i}": rng.uniform(0, 1, (30, 4)) for i in range(budgets)}
    limits = {name: float(cost.mean(axis=1).sum()) for name, cost in costs.items()}
    found = allocate(loss, costs, limits)
    proof = certify(found, loss, costs, limits)
    assert proof.feasible
    assert proof.dual_bound <= proof.objective
    assert float(proof.objective) == found.objective  # correctly rounded
    assert proof.objective == sum(Fraction(v) for v in loss[np.arange(30), found.choice].tolist())
    assert proof.slack_of_bound <= Fraction(found.objective)


def test_a_certificate_refuses_another_problem() -> None:
    found = allocate([[1.0, 0.0]] * 2, {"c": [[0.0, 1.0]] * 2}, {"c": 1.0})
    with pytest.raises(InvalidInput, match="breaks a tie"):
        certify(found, [[1.0, 0.0]] * 2, {"c": [[0.0, 1.0]] * 2}, {"c": 1.0}, ties=[[0, 1]])


def test_the_knee_is_where_the_curve_bends() -> None:
    cost = np.arange(11.0)
    loss = np.array([100, 60, 30, 10, 8, 7, 6, 5, 4, 3, 2.0])
    assert knee(cost, loss) == 3
    assert knee(10 * cost, loss / 1e6) == 3
    assert knee(cost, 4.0**-cost, log_loss=True) == 0  # a straight line in the logarithm: the cheapest of all
    assert knee([1.0], [2.0]) == 0
    with pytest.raises(InvalidInput, match="NaN"):
        knee([1.0, np.nan], [1.0, 2.0])


def test_hypervolume_of_two_and_three_objectives() -> None:
    assert hypervolume([[1.0, 2.0], [2.0, 1.0], [5.0, 0.0]], [3.0, 3.0]) == pytest.approx(3.0)
    assert hypervolume([[0.0, 0.0, 0.0]], [2.0, 3.0, 4.0]) == pytest.approx(24.0)
    front = exact_front([[3.0, 1.0]], [[1.0, 2.0]])
    assert hypervolume(front, [3.0, 4.0]) == pytest.approx(4.0)
    assert hypervolume([[4.0, 4.0]], [3.0, 3.0]) == 0.0


def test_importing_the_allocator_loads_no_heavy_library() -> None:
    code = (  # the parent packages are replaced: what they import is theirs
        "import sys, types, importlib.util, pathlib; "
        "root = pathlib.Path(importlib.util.find_spec('bitfront').origin).parent; "
        "parents = {'bitfront': root, 'bitfront.search': root / 'search'}; "
        "sys.modules.update({n: types.ModuleType(n) for n in parents}); "
        "[sys.modules[n].__dict__.update(__path__=[str(p)]) for n, p in parents.items()]; "
        "import bitfront.search.allocation; "
        "print([m for m in ('torch', 'ray', 'pandas', 'highspy', 'scipy', 'moocore', 'optuna') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
