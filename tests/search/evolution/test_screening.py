"""Screening and trying: what is unusable, what says the same, what is looked up, what is computed."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from bitfront.proxies.formulas import Formula, scores
from bitfront.search.evolution import EvolutionSettings, FitnessFunction, Record
from bitfront.search.evolution.scoring import Scorer, context_of
from bitfront.search.evolution.screening import Probe, cheapest

SETTINGS = EvolutionSettings(folds=2, probes=64)


@pytest.fixture
def scorer(bench):
    return Scorer([bench("one"), bench("other", seed=2, sites=5)], SETTINGS)


def signature(bench, text):
    made = bench()
    return Probe(made, 64).signature(scores(Formula.parse(text), made.statistics))


def test_equal_orders_have_one_signature_forwards_and_backwards(bench):
    same = ["sum(square(error))", "sum(square(error) + square(error))", "negate(sum(square(error)))"]
    assert len({signature(bench, text) for text in same}) == 1
    others = ["sum(abs(error))", "sum(square(error * gradient))", "bits", "bits * macs"]
    found = [signature(bench, text) for text in [same[0], *others]]
    assert all(one != other for one, other in itertools.combinations(found, 2))


def test_a_table_that_orders_nothing_has_no_signature(bench):
    made = bench()
    assert Probe(made, 64).signature(np.ones(made.statistics.allowed.shape)) is None


def test_probes_take_only_what_is_offered(bench):
    made = bench()
    allowed = made.statistics.allowed.copy()
    allowed[2, 1:] = False
    held = replace(
        made, statistics=replace(made.statistics, allowed=allowed), choices=made.choices * [1, 1, 0, 1, 1, 1, 1, 1]
    )
    table = np.where(allowed, np.random.default_rng(0).random(allowed.shape), np.nan)
    assert Probe(held, 64).signature(table) is not None


def test_the_smallest_network_is_looked_at_first(bench):
    assert cheapest([bench("one"), bench("other", sites=5), bench("third", sites=6)]) == 1


@pytest.mark.parametrize("text", ["sum(weight)", "exp(exp(exp(sum(square(exp(exp(error)))))))", "nothing", "error"])
def test_unusable_formulas_have_a_reason_and_no_fitness(scorer, text):
    record = scorer.attempt(Formula.parse(text))
    assert (record.fitness, record.signature) == (None, "")
    assert record.reason
    assert record.value == float("-inf")


def test_the_fitness_is_that_of_the_tables_on_all_networks(scorer, bench):
    formula = Formula.parse("sum(square(error * gradient))")
    record = scorer.attempt(formula)
    benches = [bench("one"), bench("other", seed=2, sites=5)]
    tables = [each.predict(scores(formula, each.statistics)) for each in benches]
    assert record.fitness == FitnessFunction(benches, 2).of(tables)
    assert record.value > 0.7
    assert (record.size, record.expression, record.reason) == (formula.size, str(formula), "")


def test_the_same_ranks_are_not_scored_again_and_what_is_known_is_looked_up(scorer):
    first = scorer.attempt(Formula.parse("sum(square(error))"))
    assert first.fitness is not None
    twin = scorer.attempt(Formula.parse("negate(sum(square(error)))"), {first.signature})
    assert (twin.signature, twin.fitness) == (first.signature, None)
    assert "ranks configurations as" in twin.reason
    assert scorer.computed == 2
    assert scorer.attempt(Formula.parse("sum(square(error))")) == first
    assert scorer.attempt(Formula.parse("sum(square(error))"), {first.signature}).fitness is None
    assert scorer.computed == 2
    completed = scorer.attempt(Formula.parse("negate(sum(square(error)))"))  # on an island that has no twin
    assert completed.fitness.value == first.fitness.value
    assert scorer.computed == 3


def test_a_record_does_not_depend_on_what_was_tried_before(bench, scorer):
    formulas = [Formula.parse(text) for text in ("sum(abs(error))", "mean(error)", "sum(square(error * weight))")]
    fresh = Scorer([bench("one"), bench("other", seed=2, sites=5)], SETTINGS)
    there = {each.digest: scorer.attempt(each) for each in formulas}
    back = {each.digest: fresh.attempt(each) for each in reversed(formulas)}
    for digest, record in there.items():
        assert replace(record, seconds=0) == replace(back[digest], seconds=0)


def test_records_go_into_rows_and_come_back(scorer):
    for text in ("sum(square(error))", "sum(weight)"):
        record = scorer.attempt(Formula.parse(text))
        assert Record.of(record.row()) == record


def test_the_context_is_of_all_that_a_fitness_depends_on(bench):
    one, other = bench("one"), bench("other", seed=2)
    base = context_of([one, other], SETTINGS)
    assert base == context_of([one, other], replace(SETTINGS, seed=7, islands=2, population=9))
    changed = [
        context_of([one], SETTINGS),
        context_of([other, one], SETTINGS),
        context_of([one, other], replace(SETTINGS, folds=4)),
        context_of([one, other], replace(SETTINGS, penalty=0.1)),
        context_of([one, other.take(np.arange(40))], SETTINGS),
    ]
    assert base not in changed
    assert len(set(changed)) == len(changed)
