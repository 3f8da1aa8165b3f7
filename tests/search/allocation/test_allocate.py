"""`allocate` against brute force, on every kind of instance that it accepts."""

from collections.abc import Callable

import numpy as np
import pytest
from bitfront.errors import InfeasibleBudget, InvalidInput
from bitfront.search.allocation import allocate
from bitfront.search.allocation.problem import build
from bitfront.search.allocation.solve import solve
from hypothesis import given, settings
from hypothesis import strategies as st

VALUES = {
    "integers": lambda rng, shape: rng.integers(-4, 9, shape).astype(float),
    "zeros and ones": lambda rng, shape: rng.integers(0, 2, shape).astype(float),
    "decimals": lambda rng, shape: rng.integers(0, 30, shape) / 10,
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "log-normal": lambda rng, shape: rng.lognormal(0, 4, shape),
}


def instance(seed: int, loss_kind: str, cost_kind: str, budgets: int):
    rng = np.random.default_rng(seed)
    sites, choices = int(rng.integers(1, 7)), int(rng.integers(1, 5))
    loss = VALUES[loss_kind](rng, (sites, choices))
    names = ["size", "latency", "energy"][:budgets]
    costs = {name: VALUES[cost_kind](rng, (sites, choices)) for name in names}
    limits = {}
    for name, cost in costs.items():
        low, high = cost.min(axis=1).sum(), cost.max(axis=1).sum()
        limits[name] = float(low + rng.choice([0.0, 0.2, 0.5, 0.8, 1.0]) * (high - low))
    extra = {}
    if sites > 2 and rng.random() < 0.4:
        extra["ties"] = [rng.permutation(sites)[:2].tolist()]
    if rng.random() < 0.4:
        allowed = rng.random((sites, choices)) < 0.7
        allowed[:, 0] = True
        loss = np.where(allowed, loss, np.nan)
        extra["allowed"] = allowed
    if rng.random() < 0.3:
        extra["pins"] = {int(rng.integers(sites)): 0}
    return loss, costs, limits, extra


@settings(max_examples=250, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(sorted(VALUES)),
    st.sampled_from(sorted(VALUES)),
    st.integers(0, 3),
    st.sampled_from(["auto", "labels", "highs"]),
)
def test_the_optimum_is_that_of_brute_force(
    enumerate_all: Callable, seed: int, loss_kind: str, cost_kind: str, budgets: int, method: str
) -> None:
    loss, costs, limits, extra = instance(seed, loss_kind, cost_kind, budgets)
    everything = enumerate_all(np.nan_to_num(loss), costs, **extra)
    expected = everything.best(limits)
    if expected is None:
        with pytest.raises(InfeasibleBudget):
            allocate(loss, costs, limits, **extra, method=method)
        return
    found = allocate(loss, costs, limits, **extra, method=method)
    scale = np.nanmax(np.abs(loss)) or 1.0
    assert found.objective == pytest.approx(expected, abs=1e-11 * scale)
    assert found.status == "optimal"
    assert found.objective - found.bound <= 1e-9 * scale
    assert (everything.choice == found.choice).all(axis=1).any()
    for name, limit in limits.items():
        assert found.costs[name] <= limit + 1e-9
        assert found.costs[name] == pytest.approx(costs[name][np.arange(len(loss)), found.choice].sum())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-15, 1e-9, 3e-5, 0.7, 10.0, 1e9, 1e30]), st.integers(1, 2))
def test_the_scale_of_losses_and_costs_does_not_matter(seed: int, factor: float, budgets: int) -> None:
    loss, costs, limits, extra = instance(seed, "log-normal", "normal", budgets)
    limits = {name: limit + 1e-6 for name, limit in limits.items()}
    try:
        plain = allocate(loss, costs, limits, **extra)
    except InfeasibleBudget:
        return
    scaled = allocate(
        loss * factor, {n: c * factor for n, c in costs.items()}, {n: b * factor for n, b in limits.items()}, **extra
    )
    assert scaled.choice.tolist() == plain.choice.tolist()
    assert scaled.objective == pytest.approx(plain.objective * factor, rel=1e-12)


@pytest.mark.parametrize("budgets", [1, 2])
@pytest.mark.parametrize("method", ["labels", "highs"])
def test_a_range_of_1e12_inside_one_instance(enumerate_all: Callable, budgets: int, method: str) -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        loss = 10.0 ** rng.uniform(-12, 0, (7, 3))
        costs = {name: rng.uniform(1, 2, (7, 3)) for name in ["size", "latency"][:budgets]}
        limits = {name: float(np.quantile(cost, 0.6) * 7) for name, cost in costs.items()}
        expected = enumerate_all(loss, costs).best(limits)
        assert allocate(loss, costs, limits, method=method).objective == pytest.approx(expected, rel=1e-12)


def test_scores_below_the_tolerances_of_solvers_still_use_the_budget() -> None:
    """ModelOpt's trouble: the same model for budgets of 4, 5 and 6 bits because losses are 1e-12."""
    rng = np.random.default_rng(0)
    bits = np.tile([2.0, 4.0, 8.0], (40, 1))
    loss = 1e-12 * rng.lognormal(0, 1, (40, 1)) * 4.0**-bits
    means = [allocate(loss, {"bits": bits}, {"bits": 40 * mean}).costs["bits"] / 40 for mean in (4, 5, 6)]
    assert means == pytest.approx([4, 5, 6], abs=0.06)


def test_a_sum_of_costs_computed_in_any_order_is_a_budget_that_admits_it() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        cost = rng.uniform(0, 1, (30, 2)) * [0.1, 1.0]
        choice = rng.integers(0, 2, 30)
        loss = np.ones((30, 2))
        loss[np.arange(30), choice] = 0.0
        budget = float(np.cumsum(rng.permutation(cost[np.arange(30), choice]))[-1])
        assert allocate(loss, {"cost": cost}, {"cost": budget}).choice.tolist() == choice.tolist()


def test_integer_budgets_are_kept_exactly() -> None:
    cost = np.array([[1.0, 10**14 + 1.0]] * 20)
    found = allocate(np.array([[1.0, 0.0]] * 20), {"bits": cost}, {"bits": 10 * 10**14 + 19.0})
    assert found.costs["bits"] <= 10 * 10**14 + 19.0
    assert (found.choice == 1).sum() == 9


def test_peak_memory_is_the_largest_step(enumerate_all: Callable) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        loss = rng.uniform(0, 1, (5, 3))
        peak = rng.uniform(0, 1, (4, 5, 3))
        everything = enumerate_all(loss, {"memory": peak})
        limits = {"memory": float(np.quantile(everything.cost["memory"], 0.2))}
        found = allocate(loss, {"memory": peak}, limits)
        assert found.objective == pytest.approx(everything.best(limits))
        assert found.costs["memory"] == pytest.approx(peak[:, np.arange(5), found.choice].sum(axis=1).max())


def test_several_loss_terms_are_weighted_and_can_be_bounded(enumerate_all: Callable) -> None:
    rng = np.random.default_rng(4)
    terms = {"kl": rng.uniform(0, 1, (6, 3)), "error": rng.uniform(0, 1, (6, 3))}
    size = {"size": rng.uniform(0, 1, (6, 3))}
    everything = enumerate_all(terms["kl"] + 0.5 * terms["error"], {**size, **terms})
    limits = {"size": 2.5, "error": 2.5}
    found = allocate(terms, size, limits, weights={"error": 0.5})
    assert found.objective == pytest.approx(everything.best(limits))
    assert found.details["losses"]["error"] <= 2.5
    assert set(found.costs) == {"size"}


def test_among_equal_losses_the_smaller_size_wins(enumerate_all: Callable) -> None:
    rng = np.random.default_rng(5)
    for _ in range(40):
        loss = rng.integers(0, 3, (6, 3)).astype(float)
        costs = {name: rng.integers(0, 9, (6, 3)).astype(float) for name in ("size", "latency")}
        limits = {"latency": float(costs["latency"].min(axis=1).sum() + 6)}
        everything = enumerate_all(loss, costs)
        fits = everything.fits(limits)
        best = everything.loss[fits].min()
        smallest = everything.cost["size"][fits & (everything.loss <= best)].min()
        found = allocate(loss, costs, limits, tie_break=["size"])
        assert found.objective == best
        assert found.costs["size"] == smallest
        assert found.status == "optimal"


def test_a_time_limit_returns_the_incumbent_with_its_gap() -> None:
    rng = np.random.default_rng(6)
    costs = {f"c{i}": rng.uniform(0, 1, (100, 5)) for i in range(12)}
    loss = -sum(costs.values()) + rng.uniform(0, 0.5, (100, 5))
    limits = {name: float(cost.mean(axis=1).sum()) for name, cost in costs.items()}
    found = allocate(loss, costs, limits, time_limit=0.4)
    assert all(found.costs[name] <= limit for name, limit in limits.items())
    assert found.bound <= found.objective
    assert found.gap == pytest.approx((found.objective - found.bound) / abs(found.objective))
    assert found.status == "time_limit"


def test_a_gap_that_is_good_enough_ends_the_search() -> None:
    rng = np.random.default_rng(7)
    loss, cost = rng.uniform(0, 1, (300, 5)), rng.uniform(0, 1, (300, 5))
    found = allocate(loss, {"c": cost}, {"c": 60.0}, gap=1e-3)
    exact = allocate(loss, {"c": cost}, {"c": 60.0})
    assert found.gap <= 1e-3
    assert found.bound <= exact.objective <= found.objective


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": [[np.nan, 1.0]]}, "loss is nan at site 0, choice 0"),
        ({"loss": [[np.inf, 1.0]]}, "loss is inf"),
        ({"loss": [1.0, 2.0]}, "expected \\[sites, choices\\]"),
        ({"costs": {"size": [[1.0, np.nan]]}}, "cost 'size' is nan"),
        ({"costs": {"size": [[1.0]]}}, "shape"),
        ({"budgets": {"speed": 1.0}}, "budget 'speed' has no cost"),
        ({"budgets": {"size": np.nan}}, "budget 'size' is NaN"),
        ({"ties": [[0, 3]]}, "only 1 sites"),
        ({"pins": {0: 2}}, "pin 0: 2"),
        ({"allowed": [[False, False]]}, "no choice left"),
        ({"allowed": [[1, 0]]}, "bool"),
        ({"tie_break": ["speed"]}, "tie_break 'speed'"),
        ({"std": {"size": [[1.0, -1.0]]}}, "negative"),
        ({"std": {"size": [[1.0, 1.0]]}, "probability": 0.3}, "probability"),
        ({"weights": {"kl": 1.0}}, "kl"),
    ],
)
def test_what_cannot_be_used_is_refused(change: dict, message: str) -> None:
    given_: dict = {"loss": [[1.0, 0.0]], "costs": {"size": [[1.0, 2.0]]}, "budgets": {"size": 2.0}, **change}
    with pytest.raises(InvalidInput, match=message):
        allocate(**given_)


def test_one_site_with_one_choice() -> None:
    found = allocate([[3.0]], {"size": [[2.0]]}, {"size": 2.0})
    assert (found.choice.tolist(), found.objective, found.gap, found.status) == ([0], 3.0, 0.0, "optimal")


@pytest.mark.parametrize("budgets", [1, 2, 3])
def test_where_labels_grow_too_many_highs_goes_on(budgets: int) -> None:
    rng = np.random.default_rng(budgets)
    for _ in range(5):
        loss = rng.lognormal(0, 2, (40, 4))
        costs = {f"c{i}": rng.uniform(0, 1, (40, 4)) for i in range(budgets)}
        problem = build(loss, costs, {name: float(cost.mean(axis=1).sum()) * 0.8 for name, cost in costs.items()})
        alone, both = solve(problem), solve(problem, max_labels=4)
        assert alone.complete
        assert both.complete
        assert both.objective == pytest.approx(alone.objective, rel=1e-9)
        assert both.bound == pytest.approx(alone.objective, rel=1e-8)
