"""Successive halving and Hyperband on synthetic contestants, and on real evaluations, races and the store."""

import math

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.evaluators import calibrate, evaluation_context
from bitfront.measurement import Measurement
from bitfront.search.beginnings import beginnings
from bitfront.search.executor import EvaluatorRecipe, LocalExecutor
from bitfront.search.fidelity import (
    affordable,
    cost,
    hyperband,
    promoted,
    ranked,
    successive_halving,
    survivors,
    together,
)
from bitfront.search.rungs import Ladder, OnSamples, Rivals
from bitfront.store import Store
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

RUNGS = (4, 12, 36)


def values_of(seed, count, noise=1.0, samples=36):
    """True quality i of contestant i, with noise that all contestants share in part: [contestants, samples]."""
    generator = np.random.default_rng(seed)
    hard = generator.exponential(size=samples)
    return np.arange(count)[:, None] + hard + noise * generator.normal(size=(count, samples))


def judge(bracket, values, broken=()):
    """Run a bracket on a table of values; the standing, the requests by round, and what was measured."""
    rounds, measured = [], {}
    try:
        requests = next(bracket)
        while True:
            rounds.append(requests)
            answers = []
            for request in requests:
                full = Measurement.of("kl", "validation", values[request.contestant], 1.0)
                found = None if request.contestant in broken else full.beginning(request.resource)
                measured[request.contestant, request.resource] = found
                answers.append(found)
            requests = bracket.send(answers)
    except StopIteration as end:
        return end.value, rounds, measured


def test_the_best_wins_at_a_fraction_of_the_cost():
    values = values_of(0, 27)
    standing, rounds, measured = judge(successive_halving(range(27), RUNGS, doubt=0), values)
    assert [len(requests) for requests in rounds] == [27, 9, 3]
    assert standing.finalists[0] == 0
    assert set(standing.measured) == set(range(27))
    assert standing.measured[0].samples == 36
    assert len(measured) == len({(key, at) for key, at in measured})
    assert cost(27, RUNGS) == pytest.approx((27 * 4 + 9 * 8 + 3 * 24) / 36)
    assert cost(27, RUNGS) < 27 / 3


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 40), seed=st.integers(0, 99), factor=st.integers(2, 4), keep=st.integers(1, 5))
def test_no_one_is_asked_twice_and_each_rung_holds_the_best_of_the_one_below(count, seed, factor, keep):
    values = values_of(seed, count, noise=5.0)
    standing, rounds, _ = judge(successive_halving(range(count), RUNGS, factor=factor, keep=keep), values)
    asked = [(request.contestant, request.resource) for requests in rounds for request in requests]
    assert len(asked) == len(set(asked))
    here = list(range(count))
    for rung, requests in zip(RUNGS, rounds, strict=False):
        assert set(here) == {request.contestant for request in requests}
        assert {request.resource for request in requests} == {rung}
        here = sorted(here, key=lambda each: values[each, :rung].mean())
        if rung < RUNGS[-1]:
            least = max(keep, survivors(len(here), factor))
            following = {request.contestant for request in rounds[RUNGS.index(rung) + 1]}
            assert set(here[:least]) <= following
            assert len(following) <= math.floor(1.5 * least)
            here = [each for each in here if each in following]
    assert list(standing.finalists) == here


def test_who_is_in_doubt_goes_on_and_who_is_surely_worse_does_not():
    values = np.vstack([values_of(0, 1)[0] + shift for shift in (0.0, 0.01, 0.02, 5.0)])
    values[1:3] += np.random.default_rng(1).normal(scale=1.0, size=(2, 36))
    measured = {each: Measurement.of("kl", "validation", values[each], 1.0) for each in range(4)}
    order = ranked(measured, {})
    assert promoted(order, measured, {}, 2, doubt=0.5) == order[:3]
    assert promoted(order, measured, {}, 2, doubt=0) == order[:2]
    assert promoted([0, 3], measured, {}, 1, doubt=9) == [0]


def test_with_costs_the_layers_of_the_front_go_on():
    """The cheap are bad, but nothing as cheap is better."""
    quality = np.array([1.0, 2.0, 3.0, 1.5, 2.5, 9.0])
    prices = {0: (3,), 1: (2,), 2: (1,), 3: (3,), 4: (2,), 5: (3,)}
    measured = {each: Measurement.of("kl", "validation", np.full(8, quality[each]), 1.0) for each in range(6)}
    assert ranked(measured, prices) == [0, 1, 2, 3, 4, 5]
    assert ranked(measured, {}) == [0, 3, 1, 4, 2, 5]


def test_failures_are_out():
    standing, rounds, _ = judge(successive_halving(range(9), RUNGS, doubt=0), values_of(0, 9), broken={0, 4})
    assert set(standing.out) == {0, 4}
    assert standing.finalists[0] == 1
    assert all(request.contestant not in (0, 4) for requests in rounds[1:] for request in requests)


def test_a_larger_maximum_and_more_contestants_redo_nothing():
    """Iterative deepening: the first run ends at 12, the second goes on to 36 and has more contestants."""
    values = values_of(3, 27)
    first, _, measured = judge(successive_halving(range(9), RUNGS[:2]), values)
    assert first.measured[first.finalists[0]].samples == 12
    known = lambda each, at: measured.get((each, at))  # noqa: E731
    second, rounds, again = judge(successive_halving(range(27), RUNGS, known=known), values)
    assert not set(again) & set(measured)
    assert {request.contestant for request in rounds[0]} == set(range(9, 27))
    fresh, _, everything = judge(successive_halving(range(27), RUNGS), values)
    assert second.finalists[0] == fresh.finalists[0]
    assert set(everything) <= set(again) | set(measured)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 30), seed=st.integers(0, 50))
def test_hyperband_gives_every_contestant_one_bracket(count, seed):
    values = values_of(seed, count)
    predicted = dict(enumerate(np.random.default_rng(seed).permutation(count)))
    standing, rounds, _ = judge(hyperband(range(count), predicted, RUNGS), values)
    asked = [(request.contestant, request.resource) for requests in rounds for request in requests]
    assert len(asked) == len(set(asked))
    assert set(standing.measured) == set(range(count))
    began = {each: min(at for one, at in asked if one == each) for each in range(count)}
    ordered = sorted(began, key=predicted.get)
    assert [began[each] for each in ordered] == sorted(began.values(), reverse=True)
    assert all(standing.measured[each].samples == 36 for each in standing.finalists)
    if count >= 6:
        assert set(began.values()) == set(RUNGS)


def test_brackets_run_in_step():
    values = values_of(0, 12)
    brackets = [successive_halving(range(6), RUNGS, doubt=0), successive_halving(range(6, 12), RUNGS[1:], doubt=0)]
    standings, rounds, _ = judge(together(brackets), values)
    assert [len(requests) for requests in rounds] == [6 + 6, 2 + 2, 1]
    assert [standing.finalists[0] for standing in standings] == [0, 6]
    assert judge(together([]), values)[0] == []


def test_what_a_budget_affords():
    for budget in (1, 3, 10, 30):
        count = affordable(budget, RUNGS)
        assert count == 1 or cost(count, RUNGS) <= budget < cost(count + 1, RUNGS)
    assert affordable(10, (1,)) == 10


@pytest.mark.parametrize(
    ("resources", "options"), [((), {}), ((2, 2), {}), ((3, 1), {}), ((1,), {"factor": 1}), ((1,), {"keep": 0})]
)
def test_bad_rungs_are_refused(resources, options):
    with pytest.raises(InvalidInput, match="ascending resources"):
        next(successive_halving([1, 2], resources, **options))


# on real data ----------------------------------------------------------------------------------------------------


def task_of(batches=9, quality="kl"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 4))
    generator = torch.Generator().manual_seed(1)
    data = [torch.randn(4, 6, generator=generator) for _ in range(12)]
    return bf.Task(model, calibration=data[:1], validation=data[3 : 3 + batches], holdout=data[1:3], quality=quality)


@pytest.fixture(scope="module")
def recipe():
    task = task_of()
    space = bf.SearchSpace.from_model(task.model, task.calibration[0], formats=["w2", "w3", "w4", "w8"])
    return EvaluatorRecipe(task, space, calibrate(task, space))


def candidates(space, count=18):
    names = ["w2", "w3", "w4", "w8"]
    made = []
    for index in range(count):
        digits = [(7 * index // 4**place) % 4 for place in range(len(space.sites))]
        made.append(bf.Configuration.from_dict(dict(zip(space.names, (names[d] for d in digits), strict=True))))
    return list(dict.fromkeys(made))


def run(recipe, on_samples, bracket, commit=lambda outcome: None):
    found = []

    def search():
        found.append((yield from on_samples.rounds(bracket)))

    LocalExecutor().drive(search(), recipe, commit)
    return found[0]


def test_rungs_are_whole_batches():
    task = task_of()
    assert Ladder.of(task, "validation", least=3).batches == (1, 3, 7, 9)
    assert Ladder.of(task, "validation", least=3).samples == (4, 12, 28, 36)
    assert Ladder.of(task, "validation", least=4).samples == (4, 12, 36)
    assert Ladder.of(task, "validation", least=4, most=12).samples == (4, 12)
    assert Ladder.of(task, "validation", least=99).samples == (36,)
    with pytest.raises(InvalidInput, match="factor=1"):
        Ladder.of(task, "validation", factor=1)


def test_finalists_are_measured_to_the_bit_as_if_at_once(recipe):
    chosen = candidates(recipe.space)
    on_samples = OnSamples(recipe.task, lambda each: each)
    outcomes = []
    ladder = Ladder.of(recipe.task, "validation", least=4)
    bracket = successive_halving(chosen, ladder.batches, known=on_samples.known)
    standing = run(recipe, on_samples, bracket, outcomes.append)
    evaluator = recipe.build()
    for each in standing.finalists:
        found, whole = standing.measured[each], evaluator.evaluate(each)
        assert (found.values, found.low, found.high, found.split) == (whole.values, whole.low, whole.high, "validation")
    assert sum(recipe.samples(outcome.work) for outcome in outcomes) < 0.5 * 36 * len(chosen)
    best = min(chosen, key=lambda each: evaluator.evaluate(each).value)
    assert standing.finalists[0] == best


def test_lost_races_are_recorded_as_parts_and_are_out(recipe):
    chosen = candidates(recipe.space)
    evaluator = recipe.build()
    rival = recipe.space.uniform("w8")
    full = {rival: evaluator.evaluate(rival)}
    rivals = Rivals(recipe.task, full, {}, error=0.5)
    on_samples = OnSamples(recipe.task, lambda each: each, race=rivals)
    bracket = successive_halving([each for each in chosen if each != rival], (9,), known=on_samples.known)
    standing = run(recipe, on_samples, bracket)
    assert on_samples.lost
    assert on_samples.lost == set(standing.out)
    assert not on_samples.lost & set(standing.finalists)
    assert any(on_samples.measured[each].partial for each in on_samples.lost)
    for each in standing.finalists:
        assert standing.measured[each].samples == 36


def test_rivals_cost_no_more_and_a_metric_without_a_floor_has_none(recipe):
    full = {
        name: Measurement.of("kl", "validation", np.full(36, value), 1.0) for name, value in [("a", 3.0), ("b", 1.0)]
    }
    rivals = Rivals(recipe.task, full, {"a": (1.0,), "b": (2.0,), "c": (1.5,), "d": (0.5,), "e": (2.0,)})
    assert rivals("c").rival_values.tolist() == [3.0] * 36
    assert rivals("e").rival_values.tolist() == [1.0] * 36
    assert rivals("d") is None
    assert rivals("c") is rivals("c")
    own = task_of(quality=lambda outputs, targets: outputs.double().mean(1))
    assert Rivals(own, full, {})("c") is None


def test_a_race_on_the_first_samples_is_about_all_of_them(recipe):
    """A contestant that is a little worse on a rung goes on, though it is worse there beyond doubt."""
    generator = np.random.default_rng(0)
    rival = Measurement.of("kl", "validation", generator.exponential(size=400), 1.0)
    race = Rivals(recipe.task, {"rival": rival}, {}, factor=1.0)("contestant")
    first = np.array(rival.values[:32])
    assert not race.lost(first * 1.1)
    assert race.lost(first * 6)


def test_the_margin_is_a_factor_of_the_loss_over_the_float_model(recipe):
    values = np.random.default_rng(0).exponential(size=400)
    for metric, base in [("kl", 0.0), ("loss", 0.6), ("perplexity", 1.5)]:
        rival = Measurement.of(metric, "validation", values, 1.0)
        race = Rivals(recipe.task, {"rival": rival}, {}, factor=2.0, base=base)("contestant")
        allowed = base + 2 * (rival.value - base)
        reached = np.log(allowed) if metric == "perplexity" else allowed
        assert values.mean() + race.margin == pytest.approx(reached)
    with pytest.raises(InvalidInput, match=r"factor=0\.5"):
        Rivals(recipe.task, {"rival": rival}, {}, factor=0.5)


def test_what_is_stored_is_continued_in_another_run_and_when_data_is_added(recipe, tmp_path):
    store = Store(f"sqlite:///{tmp_path}/store.db")
    chosen = candidates(recipe.space, 8)

    def search(task, least):
        context = evaluation_context(task, recipe.calibration, "validation")
        known = beginnings(store, task, recipe.calibration, "validation")
        measured = {each: known[each.digest] for each in chosen if each.digest in known}
        on_samples = OnSamples(task, lambda each: each, measured=measured)
        works = []

        def commit(outcome):
            works.append(outcome.work)
            store.save_evaluation(context, outcome.work.configuration, outcome.measurement)

        ladder = Ladder.of(task, "validation", least=least)
        here = EvaluatorRecipe(task, recipe.space, recipe.calibration)
        bracket = successive_halving(chosen, ladder.batches, known=on_samples.known)
        return run(here, on_samples, bracket, commit), sum(here.samples(work) for work in works)

    small, first = search(task_of(3), 4)  # 12 samples
    assert first >= 8 * 4
    again, none = search(task_of(3), 4)
    assert none == 0
    assert again.finalists == small.finalists
    large, more = search(task_of(9), 4)  # 36 samples, the first 12 of them the same
    fresh = EvaluatorRecipe(task_of(9), recipe.space, recipe.calibration).build()
    assert more == sum(36 - small.measured[each].samples for each in large.finalists)
    for each in large.finalists:
        assert large.measured[each].values == fresh.evaluate(each).values
    assert search(task_of(9), 4)[1] == 0
