"""Architectures made real: networks, sites, data in their resolution, metrics against the original model."""

import copy
import pickle

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.architecture import ArchitectureSpace, Choices, Dimension
from bitfront.errors import InvalidInput, UnsupportedModel
from bitfront.evaluators import FakeQuantEvaluator, Recipe
from bitfront.search.joint import JointSpace, Judge, Subnets, resized
from bitfront.store import Store
from bitfront.task import Batch
from torch import nn
from torch.nn import functional

FORMATS = ("w2", "w4", "w8")


class Stateless:
    """A picklable family: linear layers of a chosen width, weights by seed."""

    name = "stateless"
    architecture = ArchitectureSpace((Dimension("width", "width", (4, 8)), Dimension("second", "skip", (False, True))))
    digest = "0" * 16

    def build(self, choices):
        torch.manual_seed(0)
        width = int(choices["width"])
        inner = [nn.ReLU(), nn.Linear(width, width)] if choices["second"] else []
        return nn.Sequential(nn.Linear(6, width), *inner, nn.ReLU(), nn.Linear(width, 3)).train()

    def resolution(self, choices):
        return None


def test_an_architecture_has_its_own_sites_and_says_so(digits):
    joint = JointSpace(digits, FORMATS)
    none, whole = digits.architecture.smallest(), digits.architecture.largest()
    module, space = joint.at(none, torch.zeros(2, 64))
    assert space.names == ["stem", "head"]
    assert space.choices == none
    assert space.architecture == digits.architecture
    assert not module.training
    assert len(joint.at(whole, torch.zeros(2, 64))[1].sites) == 6
    assert space.digest != joint.at(whole, torch.zeros(2, 64))[1].digest


def test_what_was_built_is_kept_and_bounded(digits):
    joint = JointSpace(digits, FORMATS, kept=2)
    first, *others = list(digits.architecture.all())[:3]
    module, _ = joint.at(first, torch.zeros(2, 64))
    assert joint.at(first, torch.zeros(2, 64))[0] is module
    for each in others:
        joint.at(each, torch.zeros(2, 64))
    assert joint.at(first, torch.zeros(2, 64))[0] is not module


def test_excluded_sites_and_ties_may_be_missing_in_some_architectures(digits):
    joint = JointSpace(
        digits, FORMATS, exclude=("blocks.1.*",), ties=(("blocks.0.up", "blocks.0.down"), ("head", "stem"))
    )
    names = {each: joint.at(each, torch.zeros(2, 64))[1] for each in digits.architecture.all()}
    smallest, largest = names[digits.architecture.smallest()], names[digits.architecture.largest()]
    assert largest.names == ["stem", "blocks.0.up", "blocks.0.down", "head"]
    assert [tie.sites for tie in largest.ties] == [("blocks.0.up", "blocks.0.down"), ("stem", "head")]
    assert [tie.sites for tie in smallest.ties] == [("stem", "head")]
    with pytest.raises(InvalidInput, match="matches no site"):
        JointSpace(digits, FORMATS, exclude=("blocs.*",)).at(digits.architecture.largest(), torch.zeros(2, 64))


def test_what_is_no_family_or_builds_no_module_is_refused(digits):
    with pytest.raises(InvalidInput, match="a family has name"):
        JointSpace(nn.Linear(2, 2))
    with pytest.raises(InvalidInput, match="no dimension is called"):
        JointSpace(digits, FORMATS).at(Choices((("widht", 1),)), torch.zeros(2, 64))

    class Text(Stateless):
        def build(self, choices):
            return "network"

    with pytest.raises(UnsupportedModel, match="built str"):
        JointSpace(Text()).at(Text.architecture.largest(), torch.zeros(2, 6))


def test_a_joint_space_travels_without_its_networks():
    joint = JointSpace(Stateless(), FORMATS)
    joint.at(Stateless.architecture.largest(), torch.zeros(2, 6))
    state = copy.copy(joint).__getstate__()
    assert not state["_networks"]
    assert joint.at(Stateless.architecture.largest(), torch.zeros(2, 6))[1].names == ["0", "2", "4"]


def test_the_store_knows_spaces_and_scales_of_architectures(digits, digits_task, tmp_path):
    store = Store(f"sqlite:///{tmp_path}/store.db")
    choices = digits.architecture.largest()
    first = Subnets(JointSpace(digits, FORMATS), digits_task, Recipe(), store)
    space, scales = first.at(choices).space, first.calibration(choices).digest
    again = Subnets(JointSpace(digits, FORMATS), digits_task, Recipe(), store)
    assert again.at(choices).space == space
    assert again.calibration(choices).digest == scales
    assert [ran.ran for ran in again.ledger.ran] == [0, 0]
    worker = Subnets(JointSpace(digits, FORMATS), digits_task, Recipe())  # without a store, as in a worker
    assert worker.calibration(choices).digest == scales


@pytest.mark.parametrize(
    ("quality", "naive"),
    [
        ("kl", lambda p, y, out: functional.kl_div(out.log_softmax(-1), p.softmax(-1), reduction="none").sum(-1)),
        ("relative_error", lambda p, y, out: (out - p).norm(dim=1) / p.norm(dim=1)),
        ("cosine", lambda p, y, out: 1 - functional.cosine_similarity(out, p)),
        ("accuracy", lambda p, y, out: (out.argmax(-1) != y).double()),
        ("loss", lambda p, y, out: functional.cross_entropy(out, y, reduction="none")),
    ],
)
def test_architectures_are_judged_against_the_original_or_the_labels(cases, digits, quality, naive):
    task = cases["task"](quality)
    small = digits.architecture.smallest()
    net = Subnets(JointSpace(digits, FORMATS), task).at(small)
    found = FakeQuantEvaluator(net.task, net.space).evaluate({}, "validation")
    wanted = []
    with torch.no_grad():
        for batch in task.validation:
            reference, output = (model(batch.inputs[0]).double() for model in (task.model, net.module))
            wanted.append(naive(reference, batch.targets, output))
    assert np.allclose(found.values, torch.cat(wanted).numpy(), atol=1e-5)
    assert found.value > 1e-3  # a small network is not perfect, whatever it is compared with
    name = {"accuracy": "error", "loss": "loss"}.get(quality, f"{quality}_to_original")
    assert found.metric == net.task.metric == name


@pytest.mark.parametrize("quality", ["kl", "relative_error", "cosine"])
def test_losses_against_the_original_are_differentiable(cases, digits, quality):
    task = cases["task"](quality)
    net = Judge(task).task(digits.build(digits.architecture.smallest()))
    batch = net.calibration[0]
    loss = net.loss(batch(net.model), batch.targets)
    assert loss.item() > 0
    loss.backward()
    assert all(torch.isfinite(each.grad).all() for each in net.model.parameters())


def test_the_original_is_perfect_against_itself(cases):
    task = cases["task"]("kl")
    same = Judge(task).task(task.model)
    net = FakeQuantEvaluator(same, bf.SearchSpace.from_model(task.model, task.calibration[0], formats=["w8"]))
    assert net.evaluate({}, "holdout").value == pytest.approx(0, abs=1e-12)


def test_images_are_resized_as_the_architecture_asks(cases):
    images = cases["task"]("loss", images=lambda flat: flat.reshape(-1, 1, 8, 8))
    family = cases["Digits"](resolutions=(6, 8))
    subnets = Subnets(JointSpace(family, FORMATS), images)
    small = subnets.at(family.architecture.smallest())
    assert {batch.inputs[0].shape[-1] for batch in small.task.validation} == {6}
    wanted = functional.interpolate(images.holdout[1].inputs[0], (6, 6), mode="bilinear", align_corners=False)
    assert torch.equal(small.task.holdout[1].inputs[0], wanted)
    assert torch.equal(small.task.holdout[1].targets, images.holdout[1].targets)
    large = subnets.at(family.architecture.largest())
    assert large.task.validation[0].inputs[0] is images.validation[0].inputs[0]


def test_what_is_no_image_cannot_be_resized():
    assert resized(Batch((torch.zeros(2, 3),)), None).inputs[0].shape == (2, 3)
    named = resized(Batch({"pixels": torch.zeros(2, 1, 4, 4)}), 2)
    assert named.inputs["pixels"].shape == (2, 1, 2, 2)
    with pytest.raises(InvalidInput, match="2 x 2 pixels, input 0 has shape"):
        resized(Batch((torch.zeros(2, 3),)), 2)


def test_workers_get_the_task_and_the_family_alone():
    task = bf.Task(
        Stateless().build(Stateless.architecture.largest()),
        calibration=[torch.randn(4, 6)],
        validation=[torch.randn(4, 6), torch.randn(4, 6)],
        quality="kl",
    )
    subnets = Subnets(JointSpace(Stateless(), FORMATS), task)
    plain = len(pickle.dumps(subnets.__getstate__()["judge"].original))
    for each in Stateless.architecture.all():
        subnets.calibration(each)
    state = subnets.__getstate__()
    assert not state["_made"]
    assert not state["_calibrations"]
    assert state["store"] is None
    assert len(pickle.dumps(state["judge"])) < plain + 2000
