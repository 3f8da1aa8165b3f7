"""Restricted spaces: what may change, that proposers stay inside, and that results from outside do no harm."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.groups import Groups
from bitfront.search.problem import Proposal
from bitfront.search.proposers import make, restricted, sites_that_matter

CASES = runpy.run_path(str(Path(__file__).parent / "proposer_cases.py"))
small, Judge = CASES["small"], CASES["Judge"]


def test_only_the_groups_that_matter_change_and_only_to_neighbours():
    problem = small()
    centre = problem.space.choice(problem.space.uniform("w3"))
    smaller = restricted(problem, centre, groups=[0, 3])  # the tie of sites 0 and 2, and site 4
    allowed = smaller.space.allowed
    assert allowed[[0, 2, 4]].tolist() == [[True, True, True, False]] * 3
    assert allowed[[1, 3, 5]].tolist() == [[False, True, False, False]] * 3
    assert smaller.space.formats == problem.space.formats
    assert (smaller.totals(centre[None], "avg_bits") == problem.totals(centre[None], "avg_bits")).all()
    assert restricted(problem, centre, radius=0).space.allowed.sum() == 6
    assert restricted(problem, centre, radius=9).space.allowed.tolist() == problem.space.allowed.tolist()


@pytest.mark.parametrize(
    "name", ["uniform", "exact_front", "diverse", "gaps", "level_switch", "bisection", "nsga2", "tpe", "random",
             "regularized_evolution"],
)  # fmt: skip
def test_proposers_stay_inside_and_take_no_parent_from_outside(name):
    problem = small(sites=8)
    centre = problem.space.choice(problem.space.uniform("w3"))
    smaller = restricted(problem, centre, groups=[0, 2, 3, 5])
    judge = Judge(problem)
    outside = judge([Proposal(each, "uniform") for each in problem.space.uniforms().values()])
    proposer = make(name, smaller, seed=0)
    proposer.tell(outside)
    for _ in range(3):
        asked = proposer.ask(4)
        for each in asked:
            choice = problem.space.choice(each.configuration)
            assert smaller.space.allowed[np.arange(8), choice].all()
        proposer.tell(judge(asked))


def test_the_groups_that_matter_are_those_with_the_widest_losses():
    problem = small()
    groups = Groups.of(problem.space)
    sums = groups.sums(problem.loss("good"))
    ranges = [np.ptp(row[np.isfinite(row)]) for row in sums]
    found = sites_that_matter(problem, problem.sensitivities["good"].values, 3)
    assert found == sorted(range(len(groups)), key=lambda group: -ranges[group])[:3]


def test_what_does_not_exist_is_refused():
    problem = small()
    centre = problem.space.choice(problem.space.uniform("w3"))
    with pytest.raises(InvalidInput, match="expected some of 5"):
        restricted(problem, centre, groups=[7])
    with pytest.raises(InvalidInput, match="0 or more"):
        restricted(problem, centre, radius=-1)
