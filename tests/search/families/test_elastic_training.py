"""Training of the supernet: phases, the sandwich rule against plain autograd, seeds, kills and checkpoints."""

import copy
import runpy
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bitfront.errors import Conflict, InvalidInput
from bitfront.search.families.elastic import ElasticNet, Phase, progressive_shrinking, resized, train
from bitfront.search.families.elastic.phases import opened_space
from bitfront.search.families.elastic.sandwich import sandwich, sandwich_backward

CASE = Path(__file__).parent / "elastic_case.py"
RECIPE, draw = (runpy.run_path(str(CASE))[name] for name in ("RECIPE", "draw"))


def trained(recipe=RECIPE, net=None, **options):
    net = net or ElasticNet(recipe.shape, seed=recipe.seed)
    train(net, recipe, draw, **options)
    return net


def same(one, other):
    others = other.state_dict()
    return all(torch.equal(value, others[name]) for name, value in one.state_dict().items())


@pytest.fixture(scope="module")
def reference():
    return trained()


def test_phases_open_kernel_then_depth_then_expansion():
    phases = progressive_shrinking(RECIPE.shape, largest_steps=5, steps=3, largest_rate=0.1, rate=0.05)
    assert [phase.name for phase in phases] == ["largest", "kernel 2", "depth 2", "depth 3", "expansion 2"]
    assert [phase.steps for phase in phases] == [5, 3, 3, 3, 3]
    space = RECIPE.shape.architecture

    def values(phase, name):
        return opened_space(space, phase).by_name[name].values

    assert [values(phase, "resolution") for phase in phases] == [(6, 8)] * 5
    assert [values(phase, "stage1.block1.kernel") for phase in phases] == [(5,), *[(3, 5)] * 4]
    assert [values(phase, "stage1.depth") for phase in phases] == [(3,), (3,), (2, 3), (1, 2, 3), (1, 2, 3)]
    assert [values(phase, "stage1.block1.expansion") for phase in phases] == [*[(3,)] * 4, (1, 3)]
    assert opened_space(space, phases[-1]) == space


def test_what_is_open_is_part_of_the_whole_space():
    space = RECIPE.shape.architecture
    for phase in RECIPE.phases:
        part = opened_space(space, phase)
        for seed in range(10):
            choices = part.sample(np.random.default_rng(seed))
            assert space.choices(choices) == choices


def test_a_sandwich_is_largest_smallest_and_random_without_repeats():
    space = RECIPE.shape.architecture
    found = sandwich(space, 3, np.random.default_rng(0))
    assert found[:2] == [space.largest(), space.smallest()]
    assert len(set(found)) == len(found) == 5
    closed = opened_space(replace_resolution(space), RECIPE.phases[0])
    assert sandwich(closed, 3, np.random.default_rng(0)) == [closed.largest()]


def replace_resolution(space):
    return replace(
        space, dimensions=tuple(replace(d, values=(8,)) if d.name == "resolution" else d for d in space.dimensions)
    )


def test_gradients_are_those_of_labels_and_of_distillation_from_the_largest():
    net = ElasticNet(RECIPE.shape).double().train()
    space = RECIPE.shape.architecture
    batch, targets = draw(torch.Generator().manual_seed(0))
    batch = batch.double()
    architectures = sandwich(space, 2, np.random.default_rng(0))
    loss = sandwich_backward(net, architectures, batch, targets)
    found = {name: parameter.grad for name, parameter in net.named_parameters()}

    plain = ElasticNet(RECIPE.shape).double().train()
    logits = [plain.activate(each)(resized(batch, each["resolution"])) for each in architectures]
    teacher = torch.exp(logits[0]) / torch.exp(logits[0]).sum(1, keepdim=True)
    entropy = [-torch.log(torch.exp(one) / torch.exp(one).sum(1, keepdim=True)) for one in logits]
    hard = torch.stack([row[target] for row, target in zip(entropy[0], targets, strict=True)]).mean()
    soft = sum((teacher.detach() * one).sum(1).mean() for one in entropy[1:])
    torch.autograd.backward(hard + soft)
    assert loss == pytest.approx(float(hard.detach()))
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-10, rtol=1e-8)


def test_training_learns_every_sub_network(reference):
    images, targets = draw(torch.Generator().manual_seed(9))
    for choices in (reference.architecture.largest(), reference.architecture.smallest()):
        errors = []
        for net in (ElasticNet(RECIPE.shape, seed=RECIPE.seed), copy.deepcopy(reference)):
            net.train().activate(choices)
            with torch.no_grad():
                outputs = net(resized(images, choices["resolution"]))
            errors.append(float(torch.nn.functional.cross_entropy(outputs, targets)))
        assert errors[1] < 0.75 * errors[0]


def test_the_seed_decides_all(reference):
    state = torch.random.get_rng_state()
    seen = []
    again = trained(progress=lambda *told: seen.append(told))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not again.training
    assert again.active == again.architecture.largest()
    assert [step for step, _, _ in seen] == list(range(1, RECIPE.steps + 1))
    assert same(reference, again)
    assert not same(trained(replace(RECIPE, seed=1)), again)


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, reference):
    checkpoint = tmp_path / "deep" / "training.checkpoint"
    done = subprocess.run([sys.executable, str(CASE), str(checkpoint), "19"], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in checkpoint.parent.iterdir()] == ["training.checkpoint"]
    steps = []
    resumed = trained(checkpoint=checkpoint, every=3, progress=lambda step, *_: steps.append(step))
    assert steps[0] == 19, "the last multiple of 3 before the kill was stored"
    assert same(resumed, reference)
    assert same(trained(checkpoint=checkpoint, progress=pytest.fail), resumed)


@pytest.mark.parametrize("stop", [1, 8, 11, 24])
def test_stopping_at_any_step_changes_nothing(tmp_path, stop, reference):
    checkpoint = tmp_path / "checkpoint"

    def interrupt(step, _total, _loss):
        if step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(checkpoint=checkpoint, every=2, progress=interrupt)
    assert same(trained(checkpoint=checkpoint, every=5), reference)


def test_a_checkpoint_of_another_recipe_or_a_damaged_one_is_refused(tmp_path):
    checkpoint = tmp_path / "checkpoint"
    trained(checkpoint=checkpoint)
    other = replace(RECIPE, weight_decay=0.1)
    with pytest.raises(Conflict, match="another file"):
        trained(other, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(InvalidInput, match="remove it"):
        trained(checkpoint=checkpoint)


def test_kernel_matrices_are_not_decayed():
    phases = (Phase("largest", 2, 0.1, (("kernel", 1), ("depth", 1), ("expansion", 1)), samples=0),)
    net = trained(replace(RECIPE, phases=phases, weight_decay=0.5))
    for block in net.blocks.values():
        for matrix in block.depthwise.matrices.values():
            assert torch.equal(matrix, torch.eye(9))


@pytest.mark.parametrize(
    "change",
    [{"phases": ()}, {"batch": 1}, {"warmup": 1.0}, {"threads": 0}, {"weight_decay": -1.0}],
)
def test_impossible_recipes_are_refused(change):
    with pytest.raises(InvalidInput):
        replace(RECIPE, **change)


@pytest.mark.parametrize("change", [{"steps": 0}, {"learning_rate": 0.0}, {"open": (("depth", 0),)}, {"samples": -1}])
def test_impossible_phases_are_refused(change):
    with pytest.raises(InvalidInput):
        replace(RECIPE.phases[0], **change)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"batch": 17}, {"data": "x"}, {"weight_decay": 0.0}, {"warmup": 0.5}, {"threads": 2}]
)
def test_every_part_of_a_recipe_names_its_weights(change):
    changed = replace(RECIPE, **change)
    assert changed.digest != RECIPE.digest
    assert changed.cache_key() != RECIPE.cache_key()
