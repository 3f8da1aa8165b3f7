"""The archive: what a measurement gains, the best within the constraints, the front, against brute force."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from bitfront.measurement import Measurement
from bitfront.search.archive import Archive
from bitfront.search.mixture import Mixture
from bitfront.search.problem import Proposal
from bitfront.search.selection import Selection
from bitfront.search.surrogate import Surrogate
from hypothesis import given, settings
from hypothesis import strategies as st

World = runpy.run_path(str(Path(__file__).parent / "loop_cases.py"))["World"]


def filled(world):
    archive = Archive(world.problem, 0.0)
    for configuration in dict.fromkeys(world.space.uniforms().values()):
        archive.add(configuration, "uniform", measured(world, configuration))
    archive.fix_scale()
    return archive


def measured(world, configuration):
    return Measurement.of("kl", "validation", world.values(configuration), 0.01)


def area(points):
    """Naive: share of a fine grid of the unit square that some point dominates."""
    ticks = (np.arange(400) + 0.5) / 400
    inside = np.zeros((400, 400), dtype=bool)
    for quality, cost in points:
        inside |= (ticks[:, None] >= quality) & (ticks[None, :] >= cost)
    return inside.mean()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 3), picks=st.lists(st.integers(0, 10**6), min_size=1, max_size=12, unique=True))
def test_gains_add_up_to_the_hypervolume_and_the_best_is_the_best(seed, picks):
    world = WORLDS[seed]
    configurations = EVERY[seed]
    archive = filled(world)
    before, total = archive.hypervolume(), 0.0
    for pick in picks:
        configuration = configurations[pick % len(configurations)]
        _found, gain = archive.add(configuration, "test", measured(world, configuration))
        assert gain >= 0
        total += gain
    assert archive.hypervolume() == pytest.approx(before + total, abs=1e-9)
    assert archive.hypervolume() == pytest.approx(area(archive.points()), abs=0.012)
    qualities = [each.quality for each in archive.evaluated if each.feasible]
    assert archive.best().quality == min(qualities)
    for each in archive.evaluated:
        dominated = any(
            o.quality <= each.quality
            and (o.costs <= each.costs).all()
            and (o.quality, *o.costs) != (each.quality, *each.costs)
            for o in archive.evaluated
        )
        assert (each in archive.front()) == (not dominated)


WORLDS = [World(seed) for seed in range(4)]
EVERY = [world.everything()[0] for world in WORLDS]


def test_with_constraints_who_joins_the_five_best_gains_more_than_the_front_can():
    world = World(1, constraints={"avg_bits": 4.0})
    archive = filled(world)
    configurations, values = world.everything()
    order = np.argsort(values)
    for index in order[5:400:40]:
        archive.add(configurations[index], "test", measured(world, configurations[index]))
    fifth = sorted(found.quality for found in archive.evaluated if found.feasible)[4]
    before, best = archive.hypervolume(), configurations[int(order[0])]
    steps = archive.scaled(np.array([fifth, values.min()]), np.zeros((2, 1)))[:, 0]
    _, gain = archive.add(best, "test", measured(world, best))
    assert gain == pytest.approx(0.01 * (archive.hypervolume() - before) + steps[0] - steps[1])
    worst = configurations[int(order[-1])]
    volume = archive.hypervolume()
    _, little = archive.add(worst, "test", measured(world, worst))
    assert little == pytest.approx(0.01 * (archive.hypervolume() - volume))
    assert archive.hypervolume() == pytest.approx(archive.hypervolume(np.zeros((0, 2))))


def test_what_breaks_the_constraints_gains_nothing():
    world = World(1, constraints={"avg_bits": 3.0})
    archive = filled(world)
    fine = world.space.uniform("w8")
    found, gain = archive.add(fine, "test", measured(world, fine))
    assert not found.feasible
    assert gain == 0


class Dry:
    """Has only so much to offer."""

    name = "dry"

    def __init__(self, offers):
        self.offers = list(offers)

    def ask(self, count):
        given, self.offers = self.offers[:count], self.offers[count:]
        return given

    def tell(self, evaluated):
        pass


def test_what_a_dry_proposer_cannot_fill_goes_to_the_others_and_the_round_is_full():
    world = World(0)
    configurations = world.everything()[0]
    mixture = Mixture(["random", "level_switch"], world.problem, 0)
    mixture.proposers["random"] = Dry([Proposal(each, "dry") for each in configurations[:1]])
    archive = filled(world)
    mixture.tell(archive.evaluated, [0.0] * len(archive.evaluated))
    taken = [found.configuration for found in archive.evaluated]
    asked = mixture.ask(8, lambda proposals, count: list(range(min(count, len(proposals)))), taken)
    assert len(asked) == len({each.configuration for each in asked}) == 8
    assert sum(each.origin == "dry" for each in asked) <= 1
    assert not {each.configuration for each in asked} & set(taken)


def test_a_round_that_gained_nothing_lowers_the_share_of_its_proposer():
    world = World(0)
    mixture = Mixture(["random", "level_switch"], world.problem, 0)
    archive = filled(world)
    mixture.tell(archive.evaluated, [0.0] * len(archive.evaluated))
    take = lambda proposals, count: list(range(min(count, len(proposals))))  # noqa: E731
    for _ in range(3):
        asked = mixture.ask(8, take, [found.configuration for found in archive.evaluated])
        kept = [each for each in asked if each.origin.startswith("random")]
        told = [archive.add(each.configuration, each.origin, measured(world, each.configuration))[0] for each in kept]
        mixture.tell(told, [1.0] * len(told), asked)  # those of the other were screened out
    arms = {arm["name"]: arm for arm in mixture.report()}
    assert arms["random"]["credit"] > 0.5 > arms["level_switch"]["credit"] == 0
    assert arms["random"]["evaluations"] + arms["level_switch"]["evaluations"] == 24
    assert mixture.bandit.shares(8)["random"] > 4


def test_what_was_chosen_in_a_round_is_believed_and_the_next_choice_lies_elsewhere():
    world = World(2)
    archive = filled(world)
    for configuration in EVERY[2][::97]:
        archive.add(configuration, "test", measured(world, configuration))
    fitted = Surrogate(world.problem, 0.0, 0).fit(archive.evaluated)
    known = {found.configuration for found in archive.evaluated}
    pool = [Proposal(each, "test") for each in EVERY[2][::5] if each not in known]
    selection = Selection(fitted, archive, 0)
    first = selection(pool, 4)
    assert len(first) == len(set(first)) == 4
    rest = [each for index, each in enumerate(pool) if index not in first]
    fresh = Selection(fitted, archive, 0)(rest, 4)
    believed = selection(rest, 4)
    assert believed != fresh
    assert Selection(fitted, archive, 0)(pool, 4) == first
    assert Selection(fitted, archive, 0)([], 3) == []
    assert len(Selection(fitted, archive, 0)(pool[:2], 5)) == 2
