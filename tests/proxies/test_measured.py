"""Measured perturbation against a plain loop over copies of the model."""

import copy
import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, NonFiniteOutput
from bitfront.evaluators import FakeQuantEvaluator, Recipe, calibrate
from bitfront.formats import Format
from bitfront.proxies.measured import MeasuredKL, MeasuredLoss, MeasuredQuality
from bitfront.proxies.measured_sample import seeded_sample
from bitfront.proxies.measured_sites import increases, one_by_one, sampled_task
from bitfront.task import Batch
from torch import nn
from torch.nn import functional

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images, tokens = CASES["images"], CASES["tokens"]


def plain(task, space, calibration, batches, judge):
    """Every (site, format): copy the model, round weight and input, run everything: [samples, sites, formats]."""
    each = np.full((sum(len(batch) for batch in batches), len(space.sites), len(space.formats)), np.nan)
    for row, site in enumerate(space.sites):
        for column, name in enumerate(space.formats):
            if not site.offers(name):
                continue
            model, target = copy.deepcopy(task.model), Format.parse(name)
            weight = model.get_parameter(site.parameter)
            if not target.weight.is_wide:
                weight.data = calibration.quantize(site, weight.data, target.weight).dequantize()
            if target.activation is not None:
                for module in site.modules:
                    quantizer = calibration.activation(module, target.activation)
                    model.get_submodule(module).register_forward_pre_hook(
                        lambda module, args, quantizer=quantizer: (quantizer(args[0]),)
                    )
            with torch.no_grad():
                found = [judge(batch(model).double(), batch(task.model).double(), batch.targets) for batch in batches]
            each[:, row, column] = torch.cat(found).numpy()
    return each


def many_images(quality):
    """Enough samples, and outputs close enough, for some to change their class."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Tanh(), nn.Linear(8, 5, bias=False))
    data = [(torch.randn(60, 8), torch.randint(0, 5, (60,))) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality=quality)
    space = bf.SearchSpace.from_model(model, data[0], formats=["w2", "w4a8", "fp32"])
    return task, space, calibrate(task, space)


def kl(output, reference, targets):
    p, q = reference.log_softmax(-1), output.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).reshape(len(output), -1).mean(1)


def half_square(output, reference, targets):
    difference, flat = (output - reference).flatten(1), reference.flatten(1)
    return 0.5 * difference.square().sum(1) / flat.square().sum(1)


def surprise(output, reference, targets):
    def loss(logits):
        each = functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none", ignore_index=-100)
        counts = (targets != -100).reshape(len(targets), -1)
        return each.reshape(counts.shape).sum(1) / counts.sum(1)

    return loss(output) - loss(reference)


def errors(output, reference, targets):
    return (output.argmax(-1) != targets).double() - (reference.argmax(-1) != targets).double()


@pytest.mark.parametrize(
    ("kind", "case", "quality", "judge"),
    [
        (MeasuredKL, images, "kl", kl),
        (MeasuredKL, images, "accuracy", kl),
        (MeasuredKL, images, "relative_error", half_square),
        (MeasuredKL, tokens, "loss", kl),
        (MeasuredLoss, images, "kl", kl),
        (MeasuredLoss, images, "accuracy", surprise),
        (MeasuredLoss, tokens, "perplexity", surprise),
        (MeasuredQuality, many_images, "accuracy", errors),
        (MeasuredQuality, tokens, "perplexity", surprise),
    ],
)
def test_scores_are_those_of_a_plain_loop(kind, case, quality, judge):
    task, space, calibration = case(quality)
    wanted = plain(task, space, calibration, task.calibration, judge)
    found = kind().score(task, space, calibration, seed=0, advance=None)
    np.testing.assert_allclose(found.values, wanted.mean(0), rtol=1e-4, atol=1e-7)
    spread = wanted.std(0, ddof=1) / np.sqrt(len(wanted))
    np.testing.assert_allclose(found.error, spread, rtol=1e-4, atol=1e-7)
    assert np.nanmax(np.abs(found.values)) > 1e-5  # something was measured


@pytest.mark.parametrize("case", [images, tokens])
def test_activation_reuse_gives_the_bits_of_whole_runs(case):
    task, space, calibration = case("kl")
    sampled = sampled_task(task, seeded_sample(task.calibration, 4, 3, 0, "x"), "kl")
    reused = FakeQuantEvaluator(sampled, space, calibration, replay="always")
    found, runs = one_by_one(reused, None)
    again, _ = one_by_one(FakeQuantEvaluator(sampled, space, calibration, replay="never"), None)
    assert not reused.not_replayed
    assert np.array_equal(found, again, equal_nan=True)
    assert runs == sum(name != "fp32" for site in space.sites for name in site.formats)


def test_a_site_costs_only_what_comes_after_it():
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(10)))
    data = [torch.randn(4, 6) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:])
    space = bf.SearchSpace.from_model(model, data[0], formats=["w2", "w4", "w8"])
    sampled = sampled_task(task, task.calibration, "kl")
    evaluator = FakeQuantEvaluator(sampled, space, calibrate(task, space), replay="always")
    one_by_one(evaluator, None)
    runner = evaluator.replayer.runner("calibration", 0)
    whole = len(runner.program.operations) * 30
    assert runner.operations_run < 0.6 * whole


def test_a_format_that_leaves_the_layer_alone_is_not_run():
    task, space, calibration = images("kl", ("w4", "bf16", "fp32"))
    found = MeasuredKL().score(task, space, calibration, seed=0, advance=None)
    assert np.all(found.values[:, 2] == 0)
    assert np.all(found.error[:, 2] == 0)
    assert np.all(found.values[:, 1] > 0)
    assert found.forward_passes == (4 + 1) * 5


def test_steps_are_reported_as_promised():
    task, space, calibration = images("kl", ("w2", "w4a8", "fp32"))
    steps = []
    MeasuredKL().score(task, space, calibration, seed=0, advance=steps.append)
    assert sum(steps) == MeasuredKL().steps(task, space)


def test_measured_loss_needs_no_labels_but_measured_accuracy_does():
    task, space, calibration = images("kl", labelled=False)
    first = MeasuredLoss().score(task, space, calibration, seed=0, advance=None)
    second = MeasuredKL().score(task, space, calibration, seed=0, advance=None)
    assert np.array_equal(first.values, second.values)
    task.quality = "accuracy"
    with pytest.raises(InvalidInput, match="needs targets"):
        MeasuredQuality().score(task, space, calibration, seed=0, advance=None)


def test_what_overflows_is_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    data = [torch.randn(4, 4) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:])
    space = bf.SearchSpace.from_model(model, data[0], formats=["w4"])
    found = calibrate(task, space, Recipe(weights="minmax"))
    scale = next(each for (site, _), each in found.weights.items() if site == "1").scale
    scale.fill_(float("inf"))
    with pytest.raises(NonFiniteOutput, match=r"1 in w4"):
        MeasuredKL().score(task, space, found, seed=0, advance=None)


def test_half_precision_keeps_the_model_and_is_finite():
    task, _, _ = images("kl")
    task.model.bfloat16()
    task.calibration = [Batch((batch.inputs[0].bfloat16(),), batch.targets) for batch in task.calibration]
    space = bf.SearchSpace.from_model(task.model, task.calibration[0], formats=["w2", "w8", "bf16"], ties="none")
    found = MeasuredKL().score(task, space, calibrate(task, space), seed=0, advance=None)
    assert np.all(found.values[:, 2] == 0)
    assert np.all(found.values[:, 0] > found.values[:, 1])


def test_the_sample_is_drawn_with_the_seed_and_bounded():
    batches = [Batch((torch.arange(10 * each, 10 * each + 7)[:, None].float(),)) for each in range(3)]
    first = seeded_sample(batches, 8, 3, 0, "x")
    again = seeded_sample(batches, 8, 3, 0, "x")
    other = seeded_sample(batches, 8, 3, 1, "x")
    assert [len(batch) for batch in first] == [3, 3, 2]
    rows = [torch.cat([batch.inputs[0] for batch in each])[:, 0].tolist() for each in (first, again, other)]
    assert rows[0] == rows[1] != rows[2]
    assert len(set(rows[0])) == 8
    assert rows[0] == sorted(rows[0])
    assert sum(len(batch) for batch in seeded_sample(batches, 100, 4, 0, "x")) == 21
    with pytest.raises(InvalidInput, match="at least 1"):
        seeded_sample(batches, 0, 4, 0, "x")


def test_small_inputs_are_run_in_larger_batches():
    small = [Batch((torch.zeros(4, 2048),)) for _ in range(5)]
    large = [Batch((torch.zeros(4, 9000),)) for _ in range(5)]
    assert [len(batch) for batch in seeded_sample(small, 20, None, 0, "x")] == [8, 8, 4]
    assert [len(batch) for batch in seeded_sample(large, 10, None, 0, "x")] == [4, 4, 2]


def test_samples_of_unequal_shape_are_not_joined():
    batches = [Batch({"a": torch.zeros(3, length)}, torch.zeros(3)) for length in (4, 5, 4)]
    found = seeded_sample(batches, 9, 6, 0, "x")
    assert sorted(tuple(batch.inputs["a"].shape) for batch in found) == [(3, 5), (6, 4)]
    assert all(batch.targets is not None and len(batch.targets) == len(batch) for batch in found)


def test_increases_of_several_sites_together():
    task, space, calibration = images("kl", ("w2", "w4"))
    evaluator = FakeQuantEvaluator(sampled_task(task, task.calibration, "kl"), space, calibration)
    alone, both = increases(evaluator, [{"conv": "w2"}, {"conv": "w2", "fc": "w2"}], None)
    assert np.array_equal(alone, evaluator.evaluate({"conv": "w2"}, "calibration").values)
    assert np.array_equal(both, evaluator.evaluate({"conv": "w2", "fc": "w2"}, "calibration").values)
