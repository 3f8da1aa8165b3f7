"""Which point is shipped: searches whose measurements are noise about a known truth."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from bitfront.measurement import Measurement
from bitfront.search.choice import winner
from bitfront.search.held_out_parts import judging
from bitfront.search.problem import FLOAT, exact_allocations
from bitfront.search.result import Point, Result
from bitfront.search.summary import summarize

World = runpy.run_path(str(Path(__file__).parent / "loop_cases.py"))["World"]
VALIDATION, HELD_OUT = 24, 64


@pytest.fixture(scope="module")
def world():
    return World(1, constraints={"avg_bits": 4.0})


@pytest.fixture(scope="module")
def everything(world):
    return world.everything()


def found(world, everything, seed, luck=1.0, best_from=0.0, finalists=8):
    """A search that measured 40 configurations, and the truth by configuration.

    Every sample is hard or easy for all; ``luck`` is that of each configuration. ``best_from``: the search found
    nothing better than this quantile of all. What the surrogate foretells is the truth with an error of 15 %.
    """
    generator = np.random.default_rng(seed)
    configurations, values = everything
    order = np.argsort(values)
    order = order[int(best_from * len(order)) :]
    picked = [configurations[index] for index in order[np.unique((len(order) * generator.random(40) ** 3).astype(int))]]
    uniforms = list(world.space.uniforms().values())
    exact = exact_allocations(world.problem, world.problem.constraints)
    asked = list(dict.fromkeys([*uniforms, *sorted(exact, key=lambda each: each.digest), *picked]))
    truth = {each: world.quality(world.space.choice(each)) for each in asked}
    known = {}
    for split, size in (("validation", VALIDATION), ("holdout", HELD_OUT)):
        profile = generator.exponential(size=size)
        known[FLOAT.digest, split] = Measurement.of("kl", split, np.zeros(size), 1.0)
        for each in asked:
            samples = truth[each] * profile * generator.lognormal(-0.5 * luck**2, luck, size)
            known[each.digest, split] = Measurement.of("kl", split, samples, 1.0)
    behind = sorted(picked, key=lambda each: known[each.digest, "validation"].value)[finalists:]
    for each in set(behind) - exact - set(uniforms):
        del known[each.digest, "holdout"]
    told = {"failures": {}, "seconds": {}, "job": {}, "model": "world", "metric": "kl", "notes": []}
    result = summarize(world.problem, dict.fromkeys(asked, "test"), known, **told)
    result.__dict__["foretold"] = {each: value * generator.lognormal(0.0, 0.15) for each, value in truth.items()}
    return result, truth


def test_it_ships_better_than_validation_alone_would(world, everything):
    chosen, alone = [], []
    for seed in range(60):
        result, truth = found(world, everything, seed)
        least = min(truth[point.configuration] for point in result.points if point.feasible)
        chosen.append(truth[result.choose().point.configuration] / least)
        first = min((point for point in result.points if point.feasible), key=lambda point: point.validation.value)
        alone.append(truth[first.configuration] / least)
    assert np.mean(chosen) - 1 < 0.75 * (np.mean(alone) - 1)


def test_it_is_never_worse_than_uniform_nor_surely_worse_than_exact_allocation_on_what_judges(world, everything):
    exact = exact_allocations(world.problem, world.problem.constraints)
    compared = 0
    for seed in range(40):
        choice = found(world, everything, seed, best_from=0.3 if seed % 2 else 0.0, luck=1.5)[0].choose()
        chosen = choice.point
        assert chosen.feasible
        if chosen.baseline is None:
            assert chosen.quality <= choice.rival.quality
            assert judging(chosen.holdout).value <= judging(choice.rival.holdout).value
            assert choice.against.value < 0
        if choice.exact is not None:
            compared += 1
            assert choice.exact.configuration in exact
            assert not choice.against_exact.worse
            assert choice.plain_exact()["rival"] == choice.exact.id
    assert compared > 10


def test_a_search_that_found_nothing_ships_the_exact_allocation(world, everything):
    """All that it found is truly worse; luck on the validation data must not sell it."""
    exact = exact_allocations(world.problem, world.problem.constraints)
    quality = min(world.quality(world.space.choice(each)) for each in exact)
    worse = float(np.mean(everything[1] < 1.1 * quality))
    shipped, alone = [], []
    for seed in range(60):
        result, truth = found(world, everything, seed, best_from=worse)
        shipped.append(truth[result.choose().point.configuration] / quality)
        first = min((point for point in result.points if point.feasible), key=lambda point: point.validation.value)
        alone.append(truth[first.configuration] / quality)
    assert np.mean(shipped) < 1.05
    assert np.mean(np.array(shipped) > 1.2) < 0.5 * np.mean(np.array(alone) > 1.2)


def test_the_first_that_is_no_worse_than_its_best_rival_wins():
    def point(name, fresh):
        values = np.full(64, fresh)
        return Point(
            name, name, "test", None, 0.0, None, None, Measurement.of("kl", "holdout", values, 1.0), {}, True, True
        )

    ordered = [point("lucky", 3.0), point("good", 1.0), point("rival", 2.0), point("better", 0.5)]
    assert winner(ordered, {"rival"}).id == "good"
    assert winner(ordered, {"rival", "good"}).id == "good"
    assert winner(ordered[:1] + ordered[2:], {"rival"}).id == "rival"
    assert winner(ordered, set()).id == "lucky"
    few = Measurement.of("kl", "holdout", np.ones(8), 1.0)
    undivided = [Point(name, name, "", None, 0.0, None, None, few, {}, True, True) for name in ("first", "rival")]
    assert winner(undivided, {"rival"}).id == "first"


def test_the_document_tells_what_it_had_to_face(world, everything):
    result, _ = found(world, everything, 0)
    choice, document = result.choose(), result.document()
    assert isinstance(result, Result)
    assert document["best"] == choice.point.id
    assert document["best_against_uniform"] == choice.plain()
    assert document["best_against_exact"] == choice.plain_exact()
    del result.__dict__["foretold"]
    told = result.foretold
    assert list(told) == [point.configuration for point in result.points]
    measured = [point.validation.value for point in result.points]
    assert np.corrcoef(np.log(list(told.values())), np.log(measured))[0, 1] > 0.8
