"""What an evolution starts from: known formulas that fit the bench, one part on every island, tried first."""

from dataclasses import replace

import pytest
from bitfront.proxies.formulas import Formula, fault
from bitfront.proxies.formulas.collect import INPUTS
from bitfront.search.evolution import EvolutionSettings, evolve
from bitfront.search.evolution.population import Island, advance
from bitfront.search.evolution.scoring import Scorer
from bitfront.search.evolution.seeds import SEEDS, seeds_for

SETTINGS = EvolutionSettings(islands=2, population=10, births=6, folds=2, probes=48, max_size=10)


def test_every_seed_is_a_formula_of_what_a_bench_holds():
    formulas = [Formula.parse(text) for text in SEEDS]
    assert [str(each) for each in formulas] == list(SEEDS)
    assert [fault(each, INPUTS) for each in formulas] == [None] * len(SEEDS)
    assert len({each.digest for each in formulas}) == len(SEEDS)


def test_only_seeds_of_known_inputs_and_allowed_size_are_used():
    every = seeds_for(INPUTS, EvolutionSettings())
    assert [str(each) for each in every] == list(SEEDS)
    assert seeds_for(INPUTS, EvolutionSettings(seeded=False)) == ()
    few = seeds_for(INPUTS, EvolutionSettings(inputs=("error", "fisher", "weight_error")))
    assert {name for each in few for name in each.inputs} == {"error", "fisher", "weight_error"}
    assert all(each.size <= 3 for each in seeds_for(INPUTS, EvolutionSettings(max_size=3)))
    assert seeds_for({"bits": "format_scalars"}, EvolutionSettings()) == ()


def test_every_island_begins_with_them(bench):
    scorer = Scorer([bench()], SETTINGS)
    seeds = tuple(Formula.parse(text) for text in ("sum(square(error))", "sum(abs(gradient * error))", "bits"))
    islands = [Island.first(SETTINGS, index, seeds) for index in range(2)]
    for island in islands:
        records = advance(island, scorer, SETTINGS)
        assert [record.expression for record in records[:3]] == [str(each) for each in seeds]
        assert len(records) == SETTINGS.births
        assert island.seeds == []


def test_an_evolution_is_at_least_as_fit_as_its_seeds(bench):
    benches = [bench("one"), bench("other", seed=2)]
    found = evolve(benches, settings=SETTINGS, formulas=40)
    scorer = Scorer(benches, SETTINGS)
    seeds = [scorer.attempt(each) for each in seeds_for(scorer.inputs, SETTINGS)]
    assert seeds
    assert found.archive.best.value >= max(each.value for each in seeds)
    without = evolve(benches, settings=replace(SETTINGS, seeded=False), formulas=40)
    assert found.archive != without.archive


@pytest.mark.parametrize("text", ["trace * weight_error"])
def test_what_an_allocator_cannot_use_has_no_fitness(bench, text):
    made = bench()
    statistics = made.statistics
    trace = statistics.scalars["macs"].copy()
    trace[3] = 0.0
    error = statistics.format_scalars["bits"].copy()
    blind = replace(
        statistics,
        scalars={**statistics.scalars, "trace": trace},
        format_scalars={**statistics.format_scalars, "weight_error": 4.0**-error},
    )
    scorer = Scorer([replace(made, statistics=blind)], SETTINGS)
    record = scorer.attempt(Formula.parse(text))
    assert record.fitness is None
    assert "s3 cost nothing" in record.reason
    seen = scorer.attempt(Formula.parse("(trace + macs) * weight_error"))
    assert seen.fitness is not None
    assert seen.fitness.orientation == 1
    assert scorer.attempt(Formula.parse("negate((trace + macs) * weight_error)")).fitness.orientation == -1
