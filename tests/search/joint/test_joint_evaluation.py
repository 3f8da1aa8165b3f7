"""Genomes measured: the same figures as for the single model, on every executor, stored under the genome's digest."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from bitfront.architecture import ArchitectureSpace, Dimension, Genome
from bitfront.errors import InvalidInput
from bitfront.evaluators import FakeQuantEvaluator
from bitfront.measurement import Measurement
from bitfront.search import LocalExecutor
from bitfront.search.joint import JointEvaluator, JointRecipe, JointSpace, Subnets, context_of
from bitfront.search.joint.evaluation import StoredGenome
from bitfront.search.wire import decode_works, encode_works
from bitfront.search.work import Work
from bitfront.space import Configuration
from bitfront.store import Store
from torch import nn

FORMATS = ("w2", "w4", "w8")


@pytest.fixture(scope="module")
def subnets(digits, digits_task):
    return Subnets(JointSpace(digits, FORMATS), digits_task)


class Overflow(nn.Module):
    """Finite on the calibration data, not on the larger batches of the validation data."""

    def forward(self, x):
        return x * float("inf") if len(x) > 32 else x


def works_of(subnets, architectures, split="validation"):
    """The float network and every uniform configuration of each, the architectures mixed."""
    found = []
    for name in [None, *FORMATS]:
        for choices in architectures:
            space = subnets.at(choices).space
            configuration = Configuration(()) if name is None else space.uniform(name)
            found.append(Work(configuration, split, architecture=choices))
    return found


def driven(executor, recipe, works):
    """Outcomes in the order of the work, and in the order of their arrival."""
    committed, answered = [], []

    def rounds():
        answered.extend((yield works))

    executor.drive(rounds(), recipe, committed.append)
    return answered, committed


def test_an_executor_measures_what_a_search_for_formats_would(subnets, digits):
    architectures = [digits.architecture.smallest(), digits.architecture.largest()]
    works = works_of(subnets, architectures)
    answered, committed = driven(LocalExecutor(shard_size=3), JointRecipe.of(subnets), works)
    assert [outcome.work for outcome in answered] == works
    assert len(committed) == len(works)
    order = [outcome.work.architecture for outcome in committed]
    assert sum(one != other for one, other in pairwise(order)) == 1  # one after the other
    for choices in architectures:
        net = subnets.at(choices)
        alone = FakeQuantEvaluator(net.task, net.space, subnets.calibration(choices))
        for outcome in answered:
            if outcome.work.architecture == choices:
                assert outcome.measurement.values == alone.evaluate(outcome.work.configuration, "validation").values


def test_works_travel_with_their_architecture(digits):
    works = [
        Work(Configuration.from_dict({"stem": "w4"}), architecture=digits.architecture.largest()),
        Work(Configuration.from_dict({"stem": "w4"})),
    ]
    assert decode_works(encode_works(works)) == works


def test_an_architecture_whose_float_network_is_not_finite_fails_alone(digits_task):
    class Broken:
        name, digest = "broken", "1" * 16
        architecture = ArchitectureSpace((Dimension("broken", "skip", (True, False)),))

        def build(self, choices):
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 10), *([Overflow()] if choices["broken"] else []))

        def resolution(self, choices):
            return None

    subnets = Subnets(JointSpace(Broken(), FORMATS), digits_task)
    evaluator = JointEvaluator(subnets)
    whole, broken = Broken.architecture.largest(), Broken.architecture.smallest()
    (failed,) = evaluator.evaluate_many([{}], architecture=broken)
    assert "NaN or infinity" in str(failed)
    (found,) = evaluator.evaluate_many([{}], architecture=whole)
    assert np.isfinite(found.value)
    with pytest.raises(InvalidInput, match="architecture=choices"):
        evaluator.evaluate_many([{}])


def test_measurements_lie_under_the_digest_of_the_genome(digits, subnets, tmp_path):
    store = Store(f"sqlite:///{tmp_path}/store.db")
    genome = Genome(digits.architecture.largest(), subnets.at(digits.architecture.largest()).space.uniform("w4"))
    context = context_of(subnets, "validation")
    store.save_evaluation(context, StoredGenome.of(genome), Measurement.of("loss", "validation", np.ones(3), 1.0))
    assert list(store.evaluations(context, "validation")) == [genome.digest]
    row = StoredGenome.of(genome).to_dict()
    assert Genome.from_dict({"architecture": json.loads(row.pop("architecture")), "formats": row}) == genome


def test_contexts_tell_apart_what_matters_and_nothing_else(cases, digits, digits_task, subnets):
    base = context_of(subnets, "validation")
    assert len(base) <= 80
    assert context_of(subnets, "holdout") != base
    assert context_of(Subnets(JointSpace(digits, ("w2", "w3")), digits_task), "validation") == base
    assert context_of(Subnets(JointSpace(digits, FORMATS, exclude=("stem",)), digits_task), "validation") != base
    assert context_of(Subnets(JointSpace(digits, FORMATS), cases["task"]("accuracy")), "validation") != base
    other = cases["Digits"](resolutions=(8,))
    assert context_of(Subnets(JointSpace(other, FORMATS), digits_task), "validation") != base
