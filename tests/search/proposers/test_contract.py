"""What every registered proposer promises, whatever it does to find configurations."""

import runpy
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.problem import Proposal
from bitfront.search.proposers import make, proposers

CASES = runpy.run_path(str(Path(__file__).parent / "proposer_cases.py"))
small, Judge, search = CASES["small"], CASES["Judge"], CASES["search"]
NAMES = sorted(proposers())
PROBLEMS = {
    "front": {},
    "budget": {"constraints": {"avg_bits": 4.1}},
    "two prices": {"objectives": ("quality", "avg_bits", "latency_ms")},
    "two budgets": {"objectives": ("quality", "size_mb"), "constraints": {"avg_bits": 4.0, "latency_ms": 160.0}},
}

COUNTS = dict.fromkeys(NAMES, (1, 5, 3, 0, 4)) | {"gp": (2, 3, 2)}  # a Gaussian process takes a second a proposal
ROUNDS = dict.fromkeys(NAMES, (4, 3)) | {"gp": (2, 6)}


def uniforms(problem):
    return [Proposal(found, "uniform") for found in dict.fromkeys(problem.space.uniforms().values())]


@pytest.mark.parametrize("kind", sorted(PROBLEMS))
@pytest.mark.parametrize("name", NAMES)
def test_proposals_meet_the_constraints_keep_ties_and_never_repeat(name, kind):
    problem = small(**PROBLEMS[kind])
    proposer, judge = make(name, problem, seed=1), Judge(problem)
    proposer.tell([])
    foreign = judge(uniforms(problem))
    proposer.tell(foreign)
    seen = {each.configuration for each in foreign}
    for count in COUNTS[name]:
        asked = proposer.ask(count)
        assert len(asked) <= count
        choices = np.stack([problem.space.choice(each.configuration) for each in asked]) if asked else None
        if asked:  # space.choice raises where a tie is broken or a format is not offered
            assert problem.meets(choices).all()
            assert all(proposer.name in each.origin or ":" in each.origin for each in asked)
        for each in asked:
            assert each.configuration not in seen
            seen.add(each.configuration)
        proposer.tell(judge(asked))
    assert name == proposer.name
    assert len(seen) > len(foreign) or name == "uniform"


@pytest.mark.parametrize("kind", sorted(PROBLEMS))
@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_and_the_same_results_give_the_same_proposals(name, kind):
    problem = small(**PROBLEMS[kind])
    runs = [search(make(name, problem, seed=5), problem, *ROUNDS[name]) for _ in range(2)]
    assert [each.configuration for each in runs[0]] == [each.configuration for each in runs[1]]
    assert [each.origin for each in runs[0]] == [each.origin for each in runs[1]]


@pytest.mark.parametrize("constraints", [{}, {"avg_bits": 3.5}])
@pytest.mark.parametrize("name", NAMES)
def test_a_tiny_space_is_exhausted_without_a_repeat_or_an_end_that_never_comes(name, constraints):
    problem = small(sites=3, formats=("w2", "w3"), bits=np.array([2.0, 3.0]), constraints=constraints)
    proposer, judge = make(name, problem, seed=0), Judge(problem)
    every = [choice for choice in product(range(2), repeat=3) if choice[0] == choice[2] == 1]
    feasible = {choice for choice in every if problem.meets(np.array([choice]))[0]}
    found = set()
    for _ in range(8):
        asked = proposer.ask(10)
        for each in asked:
            choice = tuple(problem.space.choice(each.configuration).tolist())
            assert choice in feasible
            assert choice not in found
            found.add(choice)
        proposer.tell(judge(asked))
    assert proposer.ask(3) == []
    assert found == feasible or name not in ("random",)


@pytest.mark.parametrize("name", NAMES)
def test_what_others_asked_for_is_passed_over_and_unanswered_proposals_do_no_harm(name):
    problem = small()
    one, other = make(name, problem, seed=2), make(name, problem, seed=2)
    first = one.ask(3)
    assert first == other.ask(3)
    third = make(name, problem, seed=2)
    third.skip([each.configuration for each in first])
    assert not {each.configuration for each in third.ask(2)} & {each.configuration for each in first}
    one.ask(3)  # nothing was told of the first three


def test_unknown_names_and_options_are_refused():
    with pytest.raises(InvalidInput, match="did you mean 'level_switch'"):
        make("levelswitch", small())
    with pytest.raises(InvalidInput, match="no option speed; it offers start"):
        make("level_switch", small(), speed=3)


def test_other_packages_can_add_a_proposer(monkeypatch):
    from bitfront.search.proposers import Uniform, registry

    class Entry:
        name = "theirs"

        def load(self):
            return Uniform

    monkeypatch.setattr(registry, "entry_points", lambda group: [Entry()] if group == "bitfront.proposers" else [])
    assert proposers()["theirs"] is Uniform
