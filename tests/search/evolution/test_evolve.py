"""Evolutions: islands here and on Ray, limits, the store, a kill in the middle, held-out judgement."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from bitfront.errors import BitfrontError, InvalidInput
from bitfront.search.evolution import (
    EvolutionSettings,
    FitnessFunction,
    evolve,
    evolve_held_out,
    leave_one_out,
    ray_islands,
)
from bitfront.search.evolution.islands import Report, migrations
from bitfront.search.evolution.scoring import context_of
from bitfront.search.ray_cluster import ray_cluster
from bitfront.store import Store

SETTINGS = EvolutionSettings(islands=3, population=10, births=6, migration=2, folds=2, probes=48, max_size=10)
SMALL = replace(SETTINGS, islands=1, births=2, max_size=2)
CASES = Path(__file__).with_name("evolution_cases.py")


def found(evolution):
    return [(record.expression, record.fitness) for record in evolution.archive]


def test_local_islands_are_reproducible_and_beat_the_hand_made(bench):
    benches = [bench("one"), bench("other", seed=2)]
    first = evolve(benches, settings=SETTINGS, formulas=400)
    again = evolve(benches, settings=SETTINGS, formulas=400)
    assert found(first) == found(again)
    assert found(first) != found(evolve(benches, settings=replace(SETTINGS, seed=5), formulas=400))
    hand_made = FitnessFunction(benches, SETTINGS.folds).of([each.rivals["mse"] for each in benches])
    assert first.archive.best.value > hand_made.value + 0.05
    assert first.tried >= 400
    assert first.scored + first.screened <= first.tried
    assert first.computed <= first.tried
    assert first.per_minute > 0


def test_migration_goes_around_the_ring(bench):
    reports = [Report(index, (), 0, (f"best of {index}",)) for index in (2, 0, 1)]
    assert migrations(reports) == [("best of 2",), ("best of 0",), ("best of 1",)]
    assert migrations(reports[:1]) == [()]
    alone = evolve([bench()], settings=replace(SETTINGS, migrants=0), formulas=300)
    assert found(alone) != found(evolve([bench()], settings=SETTINGS, formulas=300))


def test_ray_workers_give_the_same_archive_and_tell_why_they_fail(bench, monkeypatch):
    benches = [bench("one"), bench("other", seed=2)]
    local = evolve(benches, settings=SETTINGS, formulas=150)
    with ray_cluster(2):
        spread = evolve(benches, settings=SETTINGS, formulas=150, workers=2)
        monkeypatch.setattr(ray_islands, "_round", _without_luck)
        with pytest.raises(BitfrontError, match="no luck"):
            evolve(benches, settings=SETTINGS, formulas=20, workers=2)
        monkeypatch.setattr(ray_islands, "_round", _on_wrong_input)
        with pytest.raises(InvalidInput, match="give another"):
            evolve(benches, settings=SETTINGS, formulas=20, workers=2)
    assert found(spread) == found(local)
    assert (spread.tried, spread.scored, spread.screened) == (local.tried, local.scored, local.screened)


def _without_luck(*arguments):
    raise RuntimeError("no luck")


def _on_wrong_input(*arguments):
    raise InvalidInput("this was given; give another")


def test_limits_and_names_are_checked(bench):
    for arguments, message in (
        ({}, "no end of its own"),
        ({"formulas": 0}, "formulas=0"),
        ({"seconds": -1.0}, "seconds=-1"),
        ({"formulas": 9, "workers": 0}, "workers=0"),
        ({"formulas": 9, "settings": replace(SETTINGS, inputs=("gradeint",))}, "did you mean 'gradient'"),
    ):
        with pytest.raises(InvalidInput, match=message):
            evolve([bench()], **arguments)


def test_seconds_end_it(bench):
    started = time.perf_counter()
    evolution = evolve([bench()], settings=SETTINGS, seconds=0.5)
    assert evolution.tried > 0
    assert 0.5 <= evolution.seconds <= time.perf_counter() - started


def test_an_exhausted_space_ends_it(bench):
    made = bench()
    small = replace(made, statistics=replace(made.statistics, tensors={}, scalars={}, format_tensors={}))
    evolution = evolve([small], settings=SMALL, formulas=100_000)
    assert evolution.exhausted
    assert evolution.tried < 1000


def test_what_the_store_knows_is_not_scored_again(bench, tmp_path):
    store = Store(f"sqlite:///{tmp_path}/store.db")
    first = evolve([bench()], settings=SETTINGS, formulas=120, store=store)
    again = evolve([bench()], settings=SETTINGS, formulas=120, store=store)
    assert again.computed == 0
    assert found(again) == found(first)
    longer = evolve([bench()], settings=SETTINGS, formulas=240, store=store)
    undisturbed = evolve([bench()], settings=SETTINGS, formulas=240)
    assert longer.computed == undisturbed.computed - first.computed
    assert found(longer) == found(undisturbed)
    other = evolve([bench(seed=2)], settings=SETTINGS, formulas=60, store=store)
    assert other.computed > 0


def test_a_killed_evolution_comes_to_the_same_archive_and_scores_nothing_twice(bench, tmp_path):
    url = f"sqlite:///{tmp_path}/store.db"
    script = (
        "import json, runpy, sys\n"
        "from bitfront.search.evolution import EvolutionSettings, evolve\n"
        "from bitfront.store import Store\n"
        "bench = runpy.run_path(sys.argv[2])['bench']\n"
        "settings = EvolutionSettings(**json.loads(sys.argv[3]))\n"
        "evolve([bench('one'), bench('other', seed=2)], settings=settings, formulas=10**6, store=Store(sys.argv[1]))\n"
    )
    benches = [bench("one"), bench("other", seed=2)]
    context = context_of(benches, SETTINGS)
    process = subprocess.Popen([sys.executable, "-c", script, url, str(CASES), json.dumps(asdict(SETTINGS))])
    store = Store(url)
    deadline = time.monotonic() + 60
    while len(store.formulas(context)) < 60 and time.monotonic() < deadline:
        assert process.poll() is None, "the evolution ended by itself"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {row["digest"] for row in store.formulas(context)}
    assert len(kept) >= 60
    total = 2 * len(kept) + 60
    resumed = evolve(benches, settings=SETTINGS, formulas=total, store=Store(url))
    undisturbed = evolve(benches, settings=SETTINGS, formulas=total)
    assert found(resumed) == found(undisturbed)
    assert resumed.tried == undisturbed.tried
    assert 0 < resumed.computed <= undisturbed.computed - len(kept)
    assert kept < {row["digest"] for row in store.formulas(context)}


def test_held_out_parts_do_not_choose(bench):
    """What happens on the judging half changes neither the formula nor the rival."""
    made = bench(points=96)
    first, second = made.halves(SETTINGS.seed)
    shuffled = made.measured.copy()
    judging = [index for index, value in enumerate(made.measured) if value in second.measured]
    shuffled[judging] = shuffled[judging][::-1]
    arguments = {"settings": SETTINGS, "formulas": 150, "draws": 200}
    honest = evolve_held_out([made], **arguments)
    other = evolve_held_out([replace(made, measured=shuffled)], **arguments)
    assert (honest.chosen.expression, honest.rival) == (other.chosen.expression, other.rival)
    assert honest.evolution.context == context_of([first], SETTINGS)
    assert honest.seen.means["evolved"].spearman_fixed.value > 0.6
    assert abs(other.seen.means["evolved"].spearman_fixed.value) < 0.5
    assert honest.beaten
    assert not other.beaten


def test_every_network_is_left_out_once(bench):
    benches = [bench(name, seed=seed, points=72) for seed, name in enumerate(("one", "two", "three"), start=1)]
    results = list(
        leave_one_out(
            benches,
            settings=SETTINGS,
            formulas=120,
            draws=200,
            released={"emq": ("sum(sqrt(weight) * bits)", -1), "needs more": ("sum(virtual_gradient * error)", 1)},
        )
    )
    for left, result in zip(benches, results, strict=True):
        assert left.name not in result.evolution.networks
        assert list(result.unseen.points) == [left.name]
        assert result.unseen.points[left.name] == 72
        assert result.seen.points == dict.fromkeys(result.evolution.networks, 36)
        assert set(result.unseen.means) == {"evolved", "emq", "mse", "bits", "size"}
        assert result.rival == "mse"
        assert result.to_dict()["unseen"]["comparisons"]["emq"]["networks"].keys() == {left.name}
    with pytest.raises(InvalidInput, match="at least two"):
        next(leave_one_out(benches[:1], formulas=9))
    with pytest.raises(InvalidInput, match="among those that choose"):
        evolve_held_out(benches, left_out=benches[0], formulas=9)


def test_a_formula_without_numbers_on_the_unseen_network_is_judged_as_knowing_nothing(bench):
    made = bench("one", points=72)
    left = bench("two", seed=2, points=72)
    flat = {name: values * 0 for name, values in left.statistics.format_tensors.items()}
    bits = {"bits": left.statistics.format_scalars["bits"] * 0}
    broken = replace(left, statistics=replace(left.statistics, format_tensors=flat, format_scalars=bits))
    result = evolve_held_out([made], left_out=broken, settings=SETTINGS, formulas=60, draws=50)
    assert "two" in result.unusable
    assert result.unseen.means["evolved"].spearman_fixed.value == 0
    assert not result.beaten
