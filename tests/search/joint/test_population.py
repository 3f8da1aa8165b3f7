"""Operators and samplers on a space with conditions and ties; the process against finite differences and sampling."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from bitfront.search.joint.decisions import ArchitectureDecisions, GenomeDecisions
from bitfront.search.joint.hypervolume_gain import expected_shortfall, gain
from bitfront.search.joint.mixed_process import Inputs, Warp, negative_log_posterior
from bitfront.search.joint.model_based import ModelBased
from bitfront.search.joint.nsga2 import NondominatedSorting
from bitfront.search.joint.operators import Operators
from bitfront.search.joint.regularized_evolution import RegularizedGenomeEvolution
from bitfront.search.joint.sampler import RandomSampler
from bitfront.search.joint.tpe import ParzenEstimator
from hypothesis import given, settings
from hypothesis import strategies as st

CASES = runpy.run_path(str(Path(__file__).parent / "population_cases.py"), run_name="population_cases")
SPACE, SITES = CASES["SPACE"], CASES["sites"]
GENOMES = GenomeDecisions(SPACE, SITES)


def valid(genome):
    """The architecture passes its space's check; the formats that of its sites, ties included."""
    assert SPACE.choices(genome.choices) == genome.choices
    space = SITES(genome.choices)
    assert space.configuration(space.choice(genome.configuration)) == genome.configuration
    for block in {name.split(".")[0] for name in genome.configuration if "." in name}:
        assert genome.configuration[f"{block}.expand"] == genome.configuration[f"{block}.project"]


@given(seed=st.integers(0, 10**6), changes=st.integers(1, 4), inherit=st.sampled_from([0.0, 0.5, 1.0]))
@settings(deadline=None, max_examples=60)
def test_children_are_valid_and_carry_their_parents(seed, changes, inherit):
    draw = np.random.default_rng(seed)
    operators = Operators(GENOMES, inherit)
    first, second = operators.random(draw), operators.random(draw)
    mutant, child = operators.mutated(first, draw, changes), operators.crossed(first, second, draw)
    for each in (first, second, mutant, child):
        valid(each)
    assert mutant != first
    known = [GENOMES.answers(each) for each in (first, second)]
    for name, value in GENOMES.answers(child).items():
        tied = name.split(".")[-1] if name.endswith("width") else name  # all widths are one
        offered = [answer for answers in known for each, answer in answers.items() if each.endswith(tied)]
        assert not offered or value in offered


@pytest.mark.parametrize(
    "kind", [RandomSampler, RegularizedGenomeEvolution, NondominatedSorting, ParzenEstimator, ModelBased]
)
def test_samplers_repeat_by_seed_and_never_repeat_a_genome(kind):
    def run():
        sampler = kind(ArchitectureDecisions(SPACE), 3)
        found = []
        for _ in range(9):
            asked = sampler.ask(8)
            sampler.tell(asked, np.array([[len(each), SPACE.indices(each).sum()] for each in asked], dtype=float))
            found += asked
        return found

    found = run()
    assert found == run()
    assert len(set(found)) == len(found) == 72


def test_gradient_of_the_posterior():
    draw = np.random.default_rng(0)
    inputs = Inputs(draw.integers(-1, 3, size=(12, 4)), draw.normal(size=(12, 2)))
    target, hyper = draw.normal(size=12), draw.normal(size=9) - 1
    _, gradient = negative_log_posterior(hyper, inputs, target)
    for at, step in enumerate(1e-5 * np.eye(9)):
        above, below = (negative_log_posterior(hyper + sign * step, inputs, target)[0] for sign in (1, -1))
        assert gradient[at] == pytest.approx((above - below) / 2e-5, rel=1e-5, abs=1e-6)


def test_expected_shortfall_is_the_mean_of_draws():
    warp = Warp(2.0, 0.5, 0.7)
    values = warp.backward(0.3 + 0.8 * np.random.default_rng(0).normal(size=400_000))
    found = expected_shortfall(np.array([3.0, 6.0]), np.array([0.3]), np.array([0.8]), warp)[0]
    assert found == pytest.approx([np.maximum(level - values, 0).mean() for level in (3.0, 6.0)], rel=0.01)


def test_gain_by_hand():
    found = gain(np.array([[1.0, 1.0], [3.0, 3.0]]), np.array([[2.0, 2.0]]), np.array([4.0, 4.0]))
    assert found.tolist() == [5.0, 0.0]
