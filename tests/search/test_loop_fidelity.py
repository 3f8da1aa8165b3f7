"""The loop with few samples first: more candidates are seen, the same wins, and a part is never taken for the whole."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.measurements import Halving

CASES = runpy.run_path(str(Path(__file__).parent / "loop_cases.py"))
World, SAMPLES = CASES["World"], CASES["SAMPLES"]
EVALUATIONS = 24


@pytest.fixture(scope="module")
def world():
    return World(1, constraints={"avg_bits": 4.0})


@pytest.fixture(scope="module")
def screened(world):
    """A search with screening, its table of evaluations, and what it committed."""
    committed = []
    loop = world.loop(EVALUATIONS, halving=world.halving())
    return loop, world.run(loop, commit=committed.append), committed


def test_more_candidates_are_seen_for_no_more_samples_and_the_true_optimum_wins(world, screened):
    loop, table, _ = screened
    plain = world.loop(EVALUATIONS)
    samples = sum(end - begun for _, split, begun, end in table.asked if split == "validation")
    wholly = sum(end - begun for _, split, begun, end in world.run(plain).asked if split == "validation")
    assert wholly == (EVALUATIONS + 1) * SAMPLES
    assert samples <= 1.15 * wholly  # the last round may run over: those in doubt go on too
    assert len(loop.measurements.proposals) > 1.3 * len(plain.measurements.proposals)
    assert len(loop.archive.evaluated) < len(plain.archive.evaluated)
    _, values = world.everything()
    assert loop.archive.best().quality == values.min() == plain.archive.best().quality


def test_a_part_is_never_stored_or_told_as_the_whole(world, screened):
    loop, _, committed = screened
    parts = [outcome for outcome in committed if outcome.measurement.samples < SAMPLES]
    assert parts
    assert all(outcome.measurement.split == f"validation[:{outcome.measurement.samples}]" for outcome in parts)
    out = loop.measurements.screened
    assert len(out) == loop.report()["screened"] > 0
    assert not out & {found.configuration for found in loop.archive.evaluated}
    assert all(found.measurement.samples == SAMPLES for found in loop.archive.evaluated)
    assert all(loop.measurements.of(each) is None for each in out)
    assert not {each.digest for each in out} & {digest for digest, _ in loop.measurements.known}
    volumes = [line["hypervolume"] for line in loop.log.lines]
    assert volumes == sorted(volumes)


def test_no_sample_of_a_candidate_is_run_twice(screened):
    _, table, _ = screened
    reached = {}
    for configuration, split, begun, end in table.asked:
        assert begun == reached.get((configuration, split), 0)
        reached[configuration, split] = end


def test_who_was_screened_out_counts_against_its_proposer(screened):
    loop, _, _ = screened
    later = sum(line["proposed"] for line in loop.log.lines if line["round"].startswith("round "))
    assert sum(arm["evaluations"] for arm in loop.report()["proposers"]) == later


@pytest.mark.parametrize("dies_after", [20])
def test_killed_and_started_again_it_goes_on_to_the_same_end(world, screened, dies_after):
    known, partial, count = {}, {}, 0

    def commit(outcome):
        nonlocal count
        if count == dies_after:
            raise KeyboardInterrupt
        found, digest = outcome.measurement, outcome.work.configuration.digest
        if found.partial:
            partial[digest] = found
        else:
            known[digest, outcome.work.split] = found
        count += 1

    with pytest.raises(KeyboardInterrupt):
        world.run(world.loop(EVALUATIONS, halving=world.halving()), 1, commit)
    before = {digest: found.samples for digest, found in partial.items()}
    again = world.loop(EVALUATIONS, known=known, partial=partial, halving=world.halving())
    table = world.run(again)
    for configuration, split, begun, _ in table.asked:
        assert (configuration.digest, split) not in set(known) - {(each, "validation") for each in before}
        assert split == "holdout" or begun >= before.get(configuration.digest, 0)
    assert list(again.measurements.proposals) == list(screened[0].measurements.proposals)
    assert again.report() == screened[0].report()


def test_failures_while_screening_are_failures():
    world = World(1, constraints={"avg_bits": 5.0}, broken=["w3"])
    loop = world.loop(16, halving=world.halving(), proposers=["random"])
    world.run(loop)
    assert loop.measurements.failures
    assert not set(loop.measurements.failures) & loop.measurements.screened
    assert all("w3" in configuration.values() for configuration in loop.measurements.failures)


def test_a_rung_that_is_the_whole_data_leaves_only_races(world):
    """With one rung nobody is left behind for others; who is screened out had lost a race to the best."""
    halving = Halving.of(world.task, SAMPLES, 2)
    loop = world.loop(12, halving=halving)
    world.run(loop)
    best = loop.archive.best().quality
    assert all(world.measured(each) > best for each in loop.measurements.screened)
    with pytest.raises(InvalidInput, match="at least 1"):
        Halving.of(world.task, 0, 2)


def test_the_price_of_a_round_is_what_its_samples_cost(world, screened):
    loop, table, _ = screened
    samples = sum(end - begun for _, split, begun, end in table.asked if split == "validation") / SAMPLES
    everyone = [p for p in _proposals(loop) if p.origin != "float"]
    assert loop.measurements.spent(everyone) == pytest.approx(samples - 1)
    assert np.isfinite(samples)


def _proposals(loop):
    from bitfront.search.problem import Proposal

    return [Proposal(configuration, origin) for configuration, origin in loop.measurements.proposals.items()]
