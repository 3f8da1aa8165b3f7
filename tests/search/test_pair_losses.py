"""Interactions of pairs in the problem of a search: optimum and front against all configurations."""

from dataclasses import replace
from itertools import product

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InfeasibleBudget
from bitfront.proxies import Sensitivity
from bitfront.search.problem import Problem
from bitfront.search.proxy_choice import WEIGHTED, choose_proxy
from torch import nn

FORMATS = ["w2", "w3", "w4", "w8a8d"]


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    layers = [each for width in (6, 9, 7, 11) for each in (nn.LazyLinear(width), nn.Tanh())]
    data = [torch.randn(8, 5) for _ in range(3)]
    model = nn.Sequential(*layers)
    model(data[0])
    return bf.Task(model, calibration=data[:1], validation=data[1:2], holdout=data[2:], quality="relative_error")


@pytest.fixture(scope="module")
def space(task):
    found = bf.SearchSpace.from_model(task.model, task.calibration[0], formats=FORMATS, ties=[["2", "4"]])
    sites = list(found.sites)
    sites[0] = replace(sites[0], formats=("w2", "w4"))
    return replace(found, sites=sites)


def made(space, seed=0, name="paired", paired=True):
    """Errors as vectors in a small space: half their squared lengths, and their inner products."""
    generator = np.random.default_rng(seed)
    size = np.sqrt(2 * generator.lognormal(0, 1, (len(space.sites), 1)) * 4.0 ** -np.array([2, 3, 4, 7]))
    errors = generator.normal(size=(len(space.sites), len(space.formats), 3)) * size[..., None]
    values = np.where(space.allowed, 0.5 * (errors**2).sum(-1), np.nan)
    pairs = {
        (one, other): np.where(
            space.allowed[one][:, None] & space.allowed[other], errors[one] @ errors[other].T, np.nan
        )
        for one, other in product(range(len(space.sites)), repeat=2)
        if one < other
    }
    return Sensitivity(name, values, None, tuple(space.names), space.formats, 1.0, pairs=pairs if paired else None)


def problem(space, scores, constraints=None):
    prices = bf.price(space, metrics=["size_mb", "bops"])
    return Problem(space, {scores.proxy: scores}, prices, ("quality", "size_mb"), constraints or {})


def everything(space):
    """All configurations that the ties allow: [configurations, sites]."""
    offered = [np.flatnonzero(row).tolist() for row in space.allowed]
    tied = [list(group) for group in space.tie_indices]
    return np.array([c for c in product(*offered) if all(len({c[site] for site in group}) == 1 for group in tied)])


def predicted(space, scores, choices):
    return np.array([scores.joint(space.configuration(choice)) for choice in choices])


@pytest.mark.parametrize("seed", range(4))
def test_solve_finds_the_best_of_all_configurations_with_their_interactions(space, seed):
    scores = made(space, seed)
    asked = problem(space, scores)
    choices = everything(space)
    losses, sizes = predicted(space, scores, choices), asked.totals(choices, "size_mb")
    for limit in np.quantile(sizes, [0.05, 0.3, 0.6, 1.0]):
        fits = sizes <= limit * (1 + 1e-12)
        found = asked.solve("paired", {"size_mb": float(limit) * (1 + 1e-12)})
        assert scores.joint(found) == pytest.approx(losses[fits].min(), rel=1e-9)


def test_what_ignores_the_interactions_misses_the_best(space):
    missed = []
    for seed in range(4):
        scores = made(space, seed)
        asked, without = problem(space, scores), problem(space, replace(scores, pairs=None))
        limit = {"size_mb": float(np.median(asked.totals(everything(space), "size_mb")))}
        missed.append(scores.joint(without.solve("paired", limit)) / scores.joint(asked.solve("paired", limit)))
    assert min(missed) >= 1 - 1e-9
    assert max(missed) > 1.05


def test_an_impossible_budget_is_refused_with_pairs(space):
    with pytest.raises(InfeasibleBudget, match="size_mb"):
        problem(space, made(space)).solve("paired", {"size_mb": 1e-9})


@pytest.mark.parametrize("constrained", [False, True])
def test_every_point_of_the_front_is_optimal_at_its_price(space, constrained):
    scores = made(space, 1)
    choices = everything(space)
    bops = problem(space, scores).totals(choices, "bops")
    limits = {"bops": float(np.quantile(bops, 0.7))} if constrained else {}
    asked = problem(space, scores, limits)
    losses, sizes = predicted(space, scores, choices), asked.totals(choices, "size_mb")
    fits = asked.meets(choices)
    front = asked.front("paired", "size_mb")
    assert len(front) >= 4
    assert asked.meets(front).all()
    ends = asked.totals(front, "size_mb")
    assert ends.min() == pytest.approx(sizes[fits].min())
    for choice, size in zip(front, ends, strict=True):
        best = losses[fits & (sizes <= size * (1 + 1e-9))].min()
        assert scores.joint(space.configuration(choice)) == pytest.approx(best, rel=1e-9, abs=1e-15)
    joint = predicted(space, scores, front)
    assert joint.min() == pytest.approx(losses[fits].min(), rel=1e-9)


def test_pairs_of_zero_change_nothing(space):
    scores = made(space, 2)
    zero = replace(scores, pairs={sites: 0 * table for sites, table in scores.pairs.items()})
    plain = problem(space, replace(scores, pairs=None))
    asked = problem(space, zero)
    limit = {"size_mb": float(np.mean(plain.totals(everything(space), "size_mb")))}
    assert scores.of(asked.solve("paired", limit)) == pytest.approx(scores.of(plain.solve("paired", limit)))


def test_a_weighted_sum_adds_the_interactions_up(space):
    tables = {name: made(space, seed, name, name != "other") for seed, name in enumerate(["one", "two", "other"])}
    configurations = [space.configuration(choice) for choice in everything(space)[::3]]
    measured = [sum(scores.joint(each) for scores in tables.values()) for each in configurations]
    choice, ranked = choose_proxy(space, tables, configurations, measured)
    mixed = ranked[WEIGHTED]
    usual = {
        name: np.exp(np.mean(np.log([scores.joint(each) for each in configurations])))
        for name, scores in tables.items()
    }
    for each in configurations[:10]:
        wanted = sum(weight / usual[name] * tables[name].joint(each) for name, weight in choice.weights.items())
        assert mixed.joint(each) == pytest.approx(wanted)


def test_a_run_goes_by_the_interactions(task, space, tmp_path):
    result = bf.run(
        task,
        space,
        objectives=["quality", "size_mb"],
        proxies=["augmented_hessian"],
        evaluations=12,
        executor="local",
        store=f"sqlite:///{tmp_path}/store.db",
    )
    assert any(point.origin == "exact_front:augmented_hessian:size_mb" for point in result.points)
    scores = bf.sensitivity(task, space, "augmented_hessian")
    assert len(scores.pairs) == 6
    front = problem(space, scores).front("augmented_hessian", "size_mb")
    known = {space.configuration(choice) for choice in front}
    assert {p.configuration for p in result.points if p.origin == "exact_front:augmented_hessian:size_mb"} <= known
