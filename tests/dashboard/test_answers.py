"""Answers to budgets against brute force, layer tables against the definition, contributions that add up."""

import itertools

import numpy as np
import pytest
from bitfront.dashboard.answers import best_measured, resolve, total
from bitfront.dashboard.layers import changes, contributions, group_of, layer_table, reason, steps
from bitfront.dashboard.view import PriceTable, View
from bitfront.service.front_document import Site, Tie
from hypothesis import given, settings
from hypothesis import strategies as st

FORMATS = ("w2", "w4", "w8")


def view(seed=0, sites=4, points=12, tie=True, missing=False, **changes):
    draw = np.random.default_rng(seed)
    offered = np.ones((sites, 3), dtype=bool)
    if missing:
        offered[1, 0] = False
    scores = np.where(offered, np.sort(draw.exponential(size=(sites, 3)))[:, ::-1], np.nan)
    table = np.where(offered, np.sort(draw.uniform(1, 9, size=(sites, 3))), np.nan)
    choices = np.array([[draw.choice(np.flatnonzero(row)) for row in offered] for _ in range(points)], dtype=np.int16)
    choices = choices.reshape(points, sites)
    if tie:
        choices[:, 3] = choices[:, 2]
    base = 2.0
    price = base + table[np.arange(sites), choices].sum(axis=1)
    quality = np.exp(scores[np.arange(sites), choices].sum(axis=1)) * draw.uniform(0.8, 1.2, size=points)
    known = {
        "key": "job:x",
        "name": "x",
        "state": "running",
        "model": "m",
        "metric": "kl",
        "objectives": ("quality", "size_mb"),
        "constraints": {},
        "sites": tuple(Site(name=f"layer{i}", kind="linear", elements=10 * (i + 1)) for i in range(sites)),
        "formats": FORMATS,
        "ties": (Tie(sites=("layer2", "layer3"), reason="one kernel"),) if tie else (),
        "ids": tuple(f"p{i}" for i in range(points)),
        "digests": tuple(f"{i:016x}" for i in range(points)),
        "origins": ("test",) * points,
        "baselines": (None,) * points,
        "choices": choices,
        "quality": {"validation": np.column_stack([quality] * 3), "holdout": np.full((points, 3), np.nan)},
        "predicted": np.full((points, 3), np.nan),
        "prices": {"size_mb": np.column_stack([price] * 3)},
        "pareto": np.zeros(points, dtype=bool),
        "feasible": np.ones(points, dtype=bool),
        "price_tables": {"size_mb": PriceTable(table, base, "exact", "counted")},
        "sensitivities": {"sqnr": scores},
    }
    return View(**{**known, **changes})


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1), tie=st.booleans(), missing=st.booleans())
def test_the_optimum_is_that_of_all_configurations(seed, share, tie, missing):
    found = view(seed, tie=tie, missing=missing)
    scores, table = found.sensitivities["sqnr"], found.price_tables["size_mb"].values
    every = [
        choice
        for choice in itertools.product(range(3), repeat=4)
        if np.isfinite(scores[range(4), choice]).all() and (not tie or choice[2] == choice[3])
    ]
    prices = {choice: 2.0 + table[range(4), choice].sum() for choice in every}
    limit = min(prices.values()) + share * (max(prices.values()) - min(prices.values()))
    answer = resolve(found, {"size_mb": limit})
    fits = [choice for choice in every if prices[choice] <= limit + 1e-9]
    best = min(scores[range(4), choice].sum() for choice in fits)
    assert answer.score == pytest.approx(best, abs=1e-9)
    assert answer.proven
    assert answer.totals["size_mb"] == pytest.approx(prices[tuple(answer.choice.tolist())])
    assert answer.totals["size_mb"] <= limit + 1e-9
    if best > min(scores[range(4), choice].sum() for choice in every) + 1e-9:
        assert answer.binding == ("size_mb",)
    else:
        assert answer.binding == ()


def test_an_impossible_budget_says_what_is_possible():
    answer = resolve(view(), {"size_mb": 0.1})
    assert answer.row is None
    assert answer.choice is None
    assert "size_mb" in answer.reason


def test_the_best_measured_point_is_of_least_quality_or_of_least_price():
    found = view(points=40)
    price, quality = found.prices["size_mb"][:, 0], found.quality["validation"][:, 0]
    limit = float(np.median(price))
    row = best_measured(found, {"size_mb": limit}, "validation")
    assert quality[row] == quality[price <= limit].min()
    bound = float(np.median(quality))
    row = best_measured(found, {"quality": bound}, "validation")
    assert price[row] == price[quality <= bound].min()
    assert best_measured(found, {}, "holdout") is None


def test_a_measured_optimum_is_known_as_such():
    found = view(points=12)
    answer = resolve(found, {"size_mb": 1e6})
    assert answer.binding == ()
    measured = view(points=12, choices=np.vstack([found.choices[:11], answer.choice.astype(np.int16)]))
    row = resolve(measured, {"size_mb": 1e6}).measured_row
    assert measured.choices[row].tolist() == answer.choice.tolist()
    assert resolve(view(points=0, ids=(), origins=(), baselines=()), {"size_mb": 1e6}).measured_row is None


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), missing=st.booleans())
def test_layer_by_layer(seed, missing):
    found = view(seed, missing=missing)
    scores, table = found.sensitivities["sqnr"], found.price_tables["size_mb"].values
    frame = layer_table(found, 0, "sqnr", "size_mb")
    assert frame["price"].sum() + 2.0 == pytest.approx(found.prices["size_mb"][0, 0])
    assert frame["format"].tolist() == list(found.config(0).values())
    assert group_of(found) == [(0,), (1,), (2, 3), (2, 3)]
    for step in steps(found, 0, "sqnr", "size_mb", finer=True):
        rows = [found.names.index(name) for name in step.sites]
        old, new = found.choices[0, rows[0]], FORMATS.index(step.then)
        assert step.gain == pytest.approx(scores[rows, old].sum() - scores[rows, new].sum())
        assert step.price == pytest.approx(table[rows, new].sum() - table[rows, old].sum())
        assert step.gain > 0
        assert step.price > 0
    for index in range(4):
        text = reason(found, 0, index, "sqnr", "size_mb")
        assert ("one kernel" in text) == (index >= 2)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), extra=st.sampled_from([0.0, 1.5]))
def test_contributions_add_up_to_the_price(seed, extra):
    found = view(seed)
    found.prices["size_mb"][:, 0] += extra
    for row in range(3):
        begin, parts = contributions(found, row, "size_mb")
        assert begin + sum(change for _, change in parts) == pytest.approx(found.prices["size_mb"][row, 0])
        assert [name for name, _ in parts if name == "neighbours"] == (["neighbours"] if extra else [])
    assert total(found, "size_mb", found.choices[0].astype(int)) == pytest.approx(found.prices["size_mb"][0, 0] - extra)


def test_changes_name_the_layers_that_differ():
    found = view()
    table = changes(found, 0, 1)
    expected = [name for i, name in enumerate(found.names) if found.choices[0, i] != found.choices[1, i]]
    assert table["layer"].tolist() == expected
    assert len(changes(found, 0, 0)) == 0


def test_figures_carry_the_ids():
    from bitfront.dashboard.figures.front_plane import front_plane, lower_left, thinned
    from bitfront.dashboard.figures.layer_map import layer_map
    from bitfront.dashboard.figures.waterfall import waterfall

    found = view(points=30, baselines=("w2", *(None,) * 29), ids=("uniform-w2", *(f"p{i}" for i in range(29))))
    figure = front_plane(found, "size_mb", selected="p3", answer=resolve(found, {"size_mb": 1e6}))
    told = {row[0] for trace in figure.data if trace.customdata is not None for row in trace.customdata}
    assert told == set(found.ids)
    names = [trace.name for trace in figure.data]
    assert {"front in this plane", "dominated", "uniform", "selected", "best within the budgets"} <= set(names)
    steps_ = lower_left(np.array([1.0, 2, 3, 3]), np.array([3.0, 3, 1, 2]))
    assert steps_.tolist() == [0, 2]
    assert len(thinned(np.arange(10_000), np.arange(10_000.0), 100)) == 100
    squares = layer_map(found, 1, "sqnr", "size_mb", selected=2)
    cells = [tuple(c) for trace in squares.data if trace.type == "scatter" for c in trace.customdata]
    assert sorted(cells) == sorted(("p0", i) for i in range(4) for _ in range(2))
    fall = waterfall(found, 1, "size_mb")
    assert sum(fall.data[0].x[:-1]) == pytest.approx(found.prices["size_mb"][1, 0])
    empty = view(points=0, ids=(), origins=(), baselines=())
    assert "nothing has been measured" in front_plane(empty, "size_mb").layout.annotations[0].text
