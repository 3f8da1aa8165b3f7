"""Fronts against brute force, and certificates of selections."""

from collections.abc import Callable

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.allocation import allocate, exact_front, hull_front
from hypothesis import example, given, settings
from hypothesis import strategies as st


def non_dominated(points: np.ndarray) -> np.ndarray:
    """Naive: unique points that no other one dominates (values rounded, so that equal sums compare as equal)."""
    unique = np.unique(np.round(points, 9), axis=0)
    keep = [not ((unique <= p).all(axis=1) & (unique < p).any(axis=1)).any() for p in unique]
    return unique[keep]


def tables(seed: int, kind: str, costs: int) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 7)), int(rng.integers(1, 5)))
    draw = {
        "integers": lambda: rng.integers(-3, 6, shape).astype(float),
        "decimals": lambda: rng.integers(0, 9, shape) / 10,
        "normal": lambda: rng.standard_normal(shape),
    }[kind]
    return draw(), [draw() for _ in range(costs)]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["integers", "decimals", "normal"]), st.booleans(), st.booleans())
@example(96658, "decimals", True, False)  # the smallest loss 0.7 comes out as 0.7000000000000001 as well
def test_the_front_is_that_of_brute_force(
    enumerate_all: Callable, seed: int, kind: str, tied: bool, masked: bool
) -> None:
    loss, (cost,) = tables(seed, kind, 1)
    extra = {}
    if tied and len(loss) > 2:
        extra["ties"] = [[0, 2]]
    if masked:
        extra["allowed"] = np.random.default_rng(seed).random(loss.shape) < 0.7
        extra["allowed"][:, 0] = True
    everything = enumerate_all(loss, {"c": cost}, **extra)
    expected = non_dominated(np.stack([everything.cost["c"], everything.loss], axis=1))
    front = exact_front(loss, cost, **extra)
    assert list(front.columns) == ["cost", "loss", "choice"]
    assert front[["cost", "loss"]].to_numpy() == pytest.approx(expected, abs=2e-9)
    for row in front.itertuples():
        assert row.cost == pytest.approx(cost[np.arange(len(loss)), row.choice].sum())
        assert row.loss == pytest.approx(loss[np.arange(len(loss)), row.choice].sum())
    hull = hull_front(loss, cost, **extra)
    for row in hull.itertuples():
        assert np.isclose(front[["cost", "loss"]].to_numpy(), [row.cost, row.loss], atol=1e-9).all(axis=1).any()
    slopes = np.diff(hull["loss"]) / np.diff(hull["cost"])
    assert (np.diff(slopes) > 0).all()
    for k in range(len(hull) - 1):  # nothing lies below the hull
        inside = front[(front["cost"] >= hull["cost"][k]) & (front["cost"] <= hull["cost"][k + 1])]
        line = hull["loss"][k] + slopes[k] * (inside["cost"] - hull["cost"][k])
        assert (inside["loss"] >= line - 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["integers", "normal"]), st.sampled_from(["labels", "epsilon"]))
def test_the_front_of_two_costs_is_that_of_brute_force(
    enumerate_all: Callable, seed: int, kind: str, method: str
) -> None:
    loss, costs = tables(seed, kind, 2)
    loss, costs = loss[:4], [cost[:4] for cost in costs]
    named = dict(zip(["size", "latency"], costs, strict=True))
    everything = enumerate_all(loss, named)
    expected = non_dominated(np.stack([everything.cost["size"], everything.cost["latency"], everything.loss], axis=1))
    front = exact_front(loss, named, method=method)
    assert front.attrs["complete"]
    assert front[["size", "latency", "loss"]].to_numpy() == pytest.approx(expected, abs=2e-9)


def realistic(sites: int, choices: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    bits = np.linspace(2, 16, choices)
    size = rng.lognormal(0, 1.2, sites)[:, None]
    loss = (
        rng.lognormal(0, 1.5, sites)[:, None] * 4.0**-bits * size * np.exp(0.1 * rng.standard_normal((sites, choices)))
    )
    return loss, size * bits


@pytest.mark.parametrize("tolerance", [0.1, 0.01, 0.001])
@pytest.mark.parametrize("certificate", ["pareto", "loss", "range"])
def test_a_certified_selection_covers_the_whole_front(tolerance: float, certificate: str) -> None:
    for seed in range(4):
        loss, cost = realistic(12, 4, seed)
        front = exact_front(loss, cost)
        chosen = exact_front(loss, cost, tolerance=tolerance, certificate=certificate)
        assert chosen.attrs == {"tolerance": tolerance, "certificate": certificate}
        unit = np.ptp(front["loss"]) if certificate == "range" else front["loss"].to_numpy()
        for at, row in enumerate(front.itertuples()):
            enough = row.loss + tolerance * (unit if certificate == "range" else unit[at])
            reach = row.cost * (1 + tolerance if certificate == "pareto" else 1) * (1 + 1e-12)
            assert ((chosen["cost"] <= reach) & (chosen["loss"] <= enough * (1 + 1e-9))).any()
        for row in chosen.itertuples():
            true = front.loc[front["cost"] <= row.cost * (1 + 1e-12), "loss"].min()
            assert row.bound <= true * (1 + 1e-9)
            own = np.ptp(front["loss"]) if certificate == "range" else row.bound
            assert (row.loss - true) / own <= row.gap + 1e-9


def test_a_large_selection_agrees_with_exact_allocations() -> None:
    loss, cost = realistic(300, 6, 1)
    chosen = exact_front(loss, cost, tolerance=1e-3)
    assert (np.diff(chosen["cost"]) > 0).all()
    assert (np.diff(chosen["loss"]) < 0).all()
    for budget in np.quantile(chosen["cost"], np.linspace(0.05, 0.95, 12)):
        best = allocate(loss, {"c": cost}, {"c": budget}).objective
        near = chosen.loc[chosen["cost"] <= budget * 1.001, "loss"].min()
        assert near <= best * 1.001
        assert chosen.loc[chosen["cost"] >= budget, "bound"].max() <= best * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["integers", "normal"]), st.floats(0, 1), st.floats(0, 1))
def test_a_part_of_the_front_is_that_part(seed: int, kind: str, cost_share: float, loss_share: float) -> None:
    loss, (cost,) = tables(seed, kind, 1)
    front = exact_front(loss, cost)
    max_cost = float(front["cost"].min() + cost_share * np.ptp(front["cost"]))
    max_loss = float(front["loss"].min() + loss_share * np.ptp(front["loss"]))
    for limits in ({"max_cost": max_cost}, {"max_loss": max_loss}, {"max_cost": max_cost, "max_loss": max_loss}):
        expected = front[front["cost"] <= limits.get("max_cost", np.inf)]
        expected = expected[expected["loss"] <= limits.get("max_loss", np.inf)]
        part = exact_front(loss, cost, **limits)
        assert part[["cost", "loss"]].to_numpy() == pytest.approx(expected[["cost", "loss"]].to_numpy())


def test_losses_over_many_orders_of_magnitude_keep_their_points() -> None:
    loss = np.array([[1.0, 1e-12], [3e-9, 1e-15], [2e-6, 1e-18]])
    cost = np.array([[1.0, 8.0], [1.0, 2.0], [1.0, 4.0]])
    front = exact_front(loss, cost)
    assert len(front) == 8
    assert front["loss"].iloc[-1] == pytest.approx(1e-12 + 1e-15 + 1e-18, rel=1e-15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": -1.0}, "tolerance"),
        ({"tolerance": 0.1}, "needs positive values"),
        ({"cost": {"loss": [[1.0, 2.0]]}}, "columns of the front"),
        ({"cost": {"a": [[1.0, 2.0]], "b": [[1.0, 2.0]]}, "tolerance": 0.1}, "one cost only"),
        ({"max_points": 1}, "max_points"),
    ],
)
def test_what_cannot_be_used_is_refused(options: dict, message: str) -> None:
    given_: dict = {"loss": [[0.0, -1.0]], "cost": [[1.0, 2.0]], **options}
    with pytest.raises(InvalidInput, match=message):
        exact_front(**given_)


def test_one_site_with_one_choice() -> None:
    assert exact_front([[3.0]], [[2.0]])[["cost", "loss"]].to_numpy().tolist() == [[2.0, 3.0]]
    assert hull_front([[3.0]], [[2.0]])[["cost", "loss"]].to_numpy().tolist() == [[2.0, 3.0]]
    assert exact_front([[3.0]], [[2.0]], tolerance=0.1)["gap"].tolist() == [0.0]
