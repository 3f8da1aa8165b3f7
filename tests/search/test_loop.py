"""The loop on a table of known values: it finds what is there, keeps its promises, and says how it went."""

import itertools
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bitfront.measurement import Measurement
from bitfront.search import loop as module
from bitfront.search.problem import FLOAT
from bitfront.search.proposers import proposers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

World = runpy.run_path(str(Path(__file__).parent / "loop_cases.py"))["World"]
EVALUATIONS = 32


@pytest.fixture(scope="module")
def world():
    return World(1, constraints={"avg_bits": 4.0})


@pytest.fixture(scope="module")
def searched(world):
    """A search, and its table of evaluations."""
    loop = world.loop(EVALUATIONS)
    return loop, world.run(loop)


def candidates(loop):
    return list(loop.measurements.proposals)


def test_the_true_optimum_is_found_where_the_optimum_of_the_scores_is_far_off(world, searched):
    configurations, values = world.everything()
    assert len(configurations) > 8 * EVALUATIONS
    scores = world.measured(world.problem.solve("good", world.problem.constraints))
    best = searched[0].archive.best()
    assert scores > 1.25 * values.min()
    assert best.configuration == configurations[int(values.argmin())]


def test_so_it_is_on_other_problems_and_on_the_whole_front():
    for seed in (2, 3):
        world = World(seed)
        loop = world.loop(EVALUATIONS)
        world.run(loop)
        configurations, values = world.everything()
        reached = loop.archive.hypervolume()
        costs = world.problem.totals(np.stack([world.space.choice(each) for each in configurations]), "avg_bits")
        everything = loop.archive.hypervolume(loop.archive.scaled(values, costs[:, None]))
        assert reached > 0.96 * everything
        assert loop.log.lines[0]["hypervolume"] < 0.9 * everything


def test_the_hypervolume_never_falls_and_every_evaluation_is_accounted_for(searched):
    loop, table = searched
    lines = loop.log.lines
    volumes = [line["hypervolume"] for line in lines]
    assert volumes == sorted(volumes)
    assert sum(line["measured"] for line in lines) == EVALUATIONS == lines[-1]["evaluations"]
    asked = [(configuration, split) for configuration, split, *_ in table.asked]
    assert len(asked) == len(set(asked))
    assert sum(split == "validation" for _, split in asked) == EVALUATIONS + 1  # the float model
    told = loop.report()
    rounds = [line for line in lines if line["round"].startswith("round ")]
    assert sum(arm["evaluations"] for arm in told["proposers"]) == sum(line["measured"] for line in rounds)
    assert told["ended"] == "all evaluations spent"
    assert told["surrogate"]["left_out_spearman"] > 0.8
    assert 0 < told["surrogate"]["coverage"]["reached"] <= 1


def test_the_gap_between_the_predicted_and_the_measured_front_shrinks(searched):
    gaps = [line["gap"] for line in searched[0].log.lines if line["gap"] is not None]
    assert len(gaps) >= 4
    assert abs(gaps[-1]) < 0.03
    assert np.mean(np.abs(gaps[-2:])) < np.max(np.abs(gaps[:2]))


@pytest.mark.parametrize("shard_size", [1, 50])
def test_the_same_seed_gives_the_same_candidates_whatever_the_shards(world, searched, shard_size):
    loop = world.loop(EVALUATIONS)
    world.run(loop, shard_size)
    assert candidates(loop) == candidates(searched[0])
    assert loop.report() == searched[0].report()


def test_another_seed_proposes_others(world, searched):
    loop = world.loop(EVALUATIONS, seed=1)
    world.run(loop)
    assert set(candidates(loop)) != set(candidates(searched[0]))


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    bits=st.floats(2.3, 7.5),
    slack=st.floats(1.05, 3.0),
    seed=st.integers(0, 3),
    both=st.booleans(),
)
def test_all_but_the_baselines_meet_the_constraints(bits, slack, seed, both):
    """Re-checked from the configuration itself: its formats, and the prices site by site."""
    constraints = {"avg_bits": bits}
    if both:
        least = World(seed).problem
        table = least.prices["latency_ms"]
        constraints["latency_ms"] = float(table.base + slack * np.nanmax(np.nanmin(table.values, axis=1)) * 6)
    world = World(seed, constraints=constraints)
    if not len(world.everything()[0]):
        return
    loop = world.loop(14)
    world.run(loop)
    uniforms = set(world.space.uniforms().values())
    for configuration in candidates(loop):
        if configuration == FLOAT or configuration in uniforms:
            continue
        for metric, limit in constraints.items():
            prices = world.problem.prices[metric]
            total = prices.base + sum(
                prices.values[world.space.names.index(site), world.space.formats.index(name)]
                for site, name in configuration.to_dict().items()
            )
            assert total <= limit * (1 + 1e-9)
        for tie in world.space.ties:
            assert len({configuration.to_dict()[site] for site in tie.sites}) == 1


@pytest.mark.parametrize("name", sorted(proposers()))
def test_every_proposer_alone_is_a_search_no_worse_than_uniform(name):
    world = World(2, constraints={"avg_bits": 4.5})
    loop = world.loop(16, proposers=[name])
    world.run(loop)
    short = {"uniform", "bisection"}  # the path of bisection has few points within the budget
    assert loop.log.lines[-1]["evaluations"] == 16 or name in short
    exact = {world.problem.solve(proxy, world.problem.constraints) for proxy in world.problem.sensitivities}
    assert exact <= {found.configuration for found in loop.archive.evaluated[: 4 + len(exact)]}
    assert loop.log.lines[-1]["hypervolume"] >= loop.log.lines[0]["hypervolume"]
    uniforms = [found for found in loop.archive.evaluated if found.origin == "uniform"]
    assert len(uniforms) == len(set(world.space.uniforms().values()))
    assert loop.archive.best().quality <= min(found.quality for found in uniforms if found.feasible)
    for front in (loop.archive.front(),):
        for uniform in uniforms:
            assert any(f.quality <= uniform.quality and (f.costs <= uniform.costs).all() for f in front)
    if name in short:
        assert loop.report()["ended"] == "every proposer has run out of new configurations"
    elif name != "exact_front":
        assert {arm["name"]: arm["evaluations"] for arm in loop.report()["proposers"]}[name] == 12 - len(exact)


def test_without_a_feasible_uniform_configuration_the_search_finds_feasible_ones():
    free = World(0)  # w2 is slow, w3 takes more bits: a mixture of both meets what neither does
    uniforms = np.stack([free.space.choice(each) for each in free.space.uniforms().values()])
    bits, latency = (free.problem.totals(uniforms, name) for name in ("avg_bits", "latency_ms"))
    world = World(0, constraints={"avg_bits": bits[1] - 0.1, "latency_ms": 0.5 * (latency[0] + latency[1])})
    assert not world.problem.meets(uniforms).any()
    loop = world.loop(12, proposers=["level_switch", "random"])
    world.run(loop)
    assert loop.log.lines[0]["best"] is None
    assert loop.archive.best() is not None


def test_it_stops_when_nothing_improves(world):
    from bitfront.search.stopping import StopRule

    loop = world.loop(90, stop=StopRule(no_improvement=12))
    world.run(loop)
    spent = loop.log.lines[-1]["evaluations"]
    assert spent < 80
    assert loop.report()["ended"].startswith("no improvement of the hypervolume in the last 1")
    volumes = {line["evaluations"]: line["hypervolume"] for line in loop.log.lines}
    before = max(count for count in volumes if count <= spent - 12)
    assert volumes[spent] <= volumes[before] * 1.001


def test_it_stops_at_a_target_that_one_configuration_meets(world):
    from bitfront.search.stopping import StopRule

    target = {"quality": 3.2, "avg_bits": 3.9}
    loop = world.loop(60, stop=StopRule(target=target))
    world.run(loop)
    assert loop.report()["ended"].startswith("target reached: quality ")
    met = [f for f in loop.archive.evaluated if f.quality <= 3.2 and f.costs[0] <= 3.9]
    assert met
    assert loop.log.lines[-1]["evaluations"] < 60
    earlier = loop.archive.evaluated[: loop.log.lines[-2]["evaluations"]]
    assert not set(met) & set(earlier)


def test_the_time_limit_is_told(world, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    loop = world.loop(60, deadline=5.0)
    monkeypatch.setattr(loop.measurements, "seconds", lambda: 0.5)
    world.run(loop)
    assert loop.report()["ended"] == "the time is up"
    assert 4 < loop.log.lines[-1]["evaluations"] < 60


def test_failed_candidates_count_against_who_proposed_them_and_the_search_goes_on():
    world = World(1, constraints={"avg_bits": 5.0}, broken=["w3"])
    loop = world.loop(20, proposers=["random", "level_switch"])
    world.run(loop)
    failed = loop.measurements.failures
    assert failed
    assert all("w3" in configuration.values() for configuration in failed)
    rewarded = sum(arm["evaluations"] for arm in loop.report()["proposers"])
    later = [f for f in loop.archive.evaluated if f.origin != "uniform" and not f.origin.startswith("budget:")]
    origins = loop.measurements.proposals
    mixed = [f for f in failed if origins[f] != "uniform" and not origins[f].startswith("budget:")]
    assert rewarded == len(later) + len(mixed)
    again = world.loop(20, proposers=["random", "level_switch"], known=dict(loop.measurements.known))
    again.measurements.doomed.update(failed)
    assert not world.run(again).asked
    assert candidates(again) == candidates(loop)
    assert again.measurements.failures == failed


@pytest.mark.parametrize("dies_after", [3, 21, 34])
def test_killed_and_started_again_nothing_is_evaluated_twice(world, searched, dies_after):
    """Whatever was committed before the search died is what the next one starts from."""
    kept, count = {}, 0

    def commit(outcome):
        nonlocal count
        if count == dies_after:
            raise KeyboardInterrupt
        kept[outcome.work.configuration.digest, outcome.work.split] = outcome.measurement
        count += 1

    first = world.loop(EVALUATIONS)
    with pytest.raises(KeyboardInterrupt):
        world.run(first, 1, commit)
    again = world.loop(EVALUATIONS, known=kept)
    table = world.run(again)
    assert not {(c.digest, split) for c, split, *_ in table.asked} & set(kept)
    assert candidates(again) == candidates(searched[0])
    assert again.report() == searched[0].report()


def test_finalists_are_the_best_within_the_constraints(world, searched):
    loop = world.loop(EVALUATIONS, finalists=3)
    world.run(loop)
    uniforms = set(world.space.uniforms().values())
    held = {c for c in candidates(loop) if loop.measurements.of(c, "holdout") and c != FLOAT and c not in uniforms}
    mixed = [f for f in loop.archive.evaluated if f.feasible and f.configuration not in uniforms]
    exact = {world.problem.solve(proxy, world.problem.constraints) for proxy in world.problem.sensitivities}
    assert exact - uniforms <= held
    ranks = [rank for rank, f in enumerate(sorted(mixed, key=lambda f: f.quality)) if f.configuration in held - exact]
    assert len(held - exact) <= 3
    assert min(ranks) == 0
    assert max(ranks) < 6  # of those with the best prospects, which what their neighbours measured has a say in
    assert all(loop.measurements.of(each, "holdout") for each in uniforms)
    assert candidates(loop) == candidates(searched[0])


def test_finalists_without_constraints_are_spread_over_the_front():
    world = World(3)
    loop = world.loop(20, finalists=2)
    world.run(loop)
    uniforms = set(world.space.uniforms().values())
    front = [f for f in loop.archive.front() if f.configuration not in uniforms]
    held = {c for c in candidates(loop) if loop.measurements.of(c, "holdout") and c != FLOAT and c not in uniforms}
    assert held == {front[0].configuration, front[-1].configuration}


def test_progress_is_one_bar_over_the_evaluations_and_one_over_the_held_out_data(world):
    class Watch:
        def __init__(self):
            self.bars, self.lines = {}, []

        def stage(self, name, total):
            from contextlib import contextmanager

            @contextmanager
            def bar():
                self.bars[name] = [total, 0.0]

                def advance(steps):
                    self.bars[name][1] += steps

                yield advance

            return bar()

        def note(self, text):
            self.lines.append(text)

        status = note

    watch = Watch()
    loop = world.loop(20, progress=watch)
    world.run(loop)
    assert list(watch.bars) == ["search", "validate on held-out data"]
    assert watch.bars["search"] == [20, 20]
    total, done = watch.bars["validate on held-out data"]
    assert done == total
    rounds = [line for line in watch.lines if line.startswith("round ")]
    assert len(rounds) == sum(line["round"].startswith("round ") for line in loop.log.lines)
    assert all("hypervolume 0." in line and "best " in line and "gap " in line for line in rounds)


def test_a_measurement_of_part_of_the_samples_is_completed_not_repeated(world):
    uniform = next(iter(world.space.uniforms().values()))
    part = Measurement.of("kl", "validation[:24]", world.values(uniform)[:24], 1.0)
    loop = world.loop(8, partial={uniform.digest: part})
    table = world.run(loop)
    begun = [begin for configuration, split, begin, _ in table.asked if configuration == uniform and split != "holdout"]
    assert begun == [24]
    assert loop.measurements.of(uniform).value == pytest.approx(world.measured(uniform), rel=1e-12)
