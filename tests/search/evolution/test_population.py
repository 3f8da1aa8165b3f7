"""Births on an island: who may enter, who leaves, how operators are weighed; the same seed gives the same island."""

from dataclasses import replace

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.proxies.formulas import Formula
from bitfront.search.evolution import EvolutionSettings
from bitfront.search.evolution.operator_weights import OperatorWeights, operators
from bitfront.search.evolution.population import Individual, Island, advance
from bitfront.search.evolution.scoring import Scorer

SETTINGS = EvolutionSettings(population=12, births=10, folds=2, probes=48, max_size=10)


def lived(bench, rounds, settings=SETTINGS, index=0):
    scorer, island = Scorer([bench()], settings), Island.first(settings, index)
    return island, [record for _ in range(rounds) for record in advance(island, scorer, settings)]


def test_a_population_keeps_its_size_and_no_two_rank_alike(bench):
    island, records = lived(bench, 12)
    assert len(island.members) == 12
    signatures = [each.record.signature for each in island.members]
    assert len(set(signatures)) == 12
    assert all(each.record.size <= 10 and each.record.fitness for each in island.members)
    digests = [record.digest for record in records]
    assert len(set(digests)) == len(digests)
    best = max(record.value for record in records)
    assert max(each.record.value for each in island.members) == best


def test_it_gets_fitter(bench):
    island, records = lived(bench, 25)
    first = max(record.value for record in records[:12])
    assert island.emigrants(1)[0].record.value > first + 0.02
    assert np.mean([each.record.value for each in island.members]) > np.mean(
        [record.value for record in records[:40] if record.fitness]
    )


def test_the_seed_decides(bench):
    def texts(settings, index):
        return [record.expression for record in lived(bench, 3, settings, index)[1]]

    assert texts(SETTINGS, 0) == texts(SETTINGS, 0)
    assert texts(SETTINGS, 0) != texts(SETTINGS, 1)
    assert texts(SETTINGS, 0) != texts(replace(SETTINGS, seed=1), 0)


def test_only_named_inputs_are_used(bench):
    settings = replace(SETTINGS, inputs=("error", "weight"))
    _, records = lived(bench, 4, settings)
    used = {name for record in records for name in Formula.parse(record.expression).inputs}
    assert used == {"error", "weight"}


def test_who_arrives_enters_unless_it_ranks_as_one_that_is_there(bench):
    scorer = Scorer([bench()], SETTINGS)
    formula = Formula.parse("sum(square(error * gradient))")
    twin = Formula.parse("negate(sum(square(error * gradient)))")
    comers = [Individual(each, scorer.attempt(each)) for each in (formula, twin)]
    island = Island.first(SETTINGS, 0)
    advance(island, scorer, SETTINGS, comers)
    assert comers[0] in island.members
    assert comers[1] not in island.members


def test_the_worst_leaves_and_of_equally_fit_ones_the_larger(bench):
    scorer = Scorer([bench()], SETTINGS)
    good, large = (Formula.parse(text) for text in ("sum(square(error))", "negate(negate(sum(abs(error))))"))
    one = Individual(good, scorer.attempt(good))
    fitness = scorer.attempt(large).fitness
    other = Individual(large, replace(scorer.attempt(large), fitness=replace(fitness, value=one.record.value + 1e-4)))
    assert sorted([other, one], key=lambda each: each.rank) == [one, other]
    better = Individual(large, replace(other.record, fitness=replace(fitness, value=one.record.value + 0.05)))
    assert sorted([one, better], key=lambda each: each.rank) == [better, one]


def test_operators_that_survive_are_drawn_more_often_and_none_dies_out():
    weights = OperatorWeights()
    formula = Formula.parse("sum(square(error * gradient))")
    assert operators(formula) == {"sum", "square", "multiply"}
    for _ in range(200):
        weights.count({"good", "common"}, survived=True)
        weights.count({"bad", "common"}, survived=False)
    found = weights.weights()
    assert found["good"] > 1.5
    assert found["common"] == pytest.approx(1.0, rel=0.02)
    assert 0.1 <= found["bad"] < 0.3
    fresh = OperatorWeights()
    fresh.count({"one"}, survived=False)
    assert fresh.weights()["one"] == pytest.approx(1.0, rel=0.06)  # one loss says little


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"islands": 0}, "islands=0"),
        ({"population": 2}, "population=2"),
        ({"crossover": 1.5}, "crossover=1.5"),
        ({"migrants": 30}, "migrants=30"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(InvalidInput, match=message):
        EvolutionSettings(**changes)
