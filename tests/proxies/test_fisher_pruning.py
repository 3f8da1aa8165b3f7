"""Fisher pruning against its definition in float64."""

import runpy
from pathlib import Path

import numpy as np
import torch
from bitfront.formats import Format
from bitfront.proxies.fisher_pruning import FisherPruning
from torch.nn import functional

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
images, tokens, doubled = CASES["images"], CASES["tokens"], CASES["doubled"]


def test_it_is_half_the_squared_change_of_a_channels_removal():
    task, space, calibration = images("loss", ("w2", "w4", "fp32"))
    model, batch = doubled(task.model), task.calibration[0]
    draws = []
    for sample in range(len(batch)):
        conv = model.conv(batch.inputs[0][sample : sample + 1].double())
        fc = model.fc(torch.relu(conv).flatten(1))
        loss = functional.cross_entropy(fc, batch.targets[sample : sample + 1])
        slopes = torch.autograd.grad(loss, [conv, fc])
        conv, fc = conv.detach(), fc.detach()
        by_channel = (conv * slopes[0]).sum((0, 2, 3)), (fc * slopes[1]).sum(0)
        draws.append([0.5 * float(each.square().sum()) for each in by_channel])
    importance = np.mean(draws, axis=0)
    bits = np.array([Format.parse(name).weight_bits for name in space.formats])
    found = FisherPruning().score(task, space, calibration, seed=0, advance=None)
    np.testing.assert_allclose(
        found.values, (importance / importance.sum())[:, None] * (1 - bits / 32), rtol=1e-4, atol=1e-12
    )
    assert not found.additive


def test_features_of_all_tokens_are_summed_before_they_are_squared():
    task, space, calibration = tokens("loss")
    model, batch = doubled(task.model), task.calibration[0]
    draws = []
    for sample in range(len(batch)):
        embed = model.embed(batch.inputs[0][sample : sample + 1])
        mix = model.mix(embed)
        head = model.head(torch.tanh(mix))
        loss = functional.cross_entropy(head.flatten(0, 1), batch.targets[sample])
        outputs = [embed, mix, head]
        slopes = torch.autograd.grad(loss, outputs)
        outputs = [each.detach() for each in outputs]
        sums = [0.5 * float((y * g).sum((0, 1)).square().sum()) for y, g in zip(outputs, slopes, strict=True)]
        by_row = {"embed": sums[0] + sums[2], "mix": sums[1]}  # the table is used twice
        draws.append([by_row[site.modules[0]] for site in space.sites])
    importance = np.mean(draws, axis=0)
    found = FisherPruning().score(task, space, calibration, seed=0, advance=None)
    np.testing.assert_allclose(found.values[:, 0] / found.values[:, 0].sum(), importance / importance.sum(), rtol=1e-4)


def test_the_seed_is_that_of_the_drawn_gradients():
    task, space, calibration = images("kl", labelled=False)
    first, again, other = (
        FisherPruning().score(task, space, calibration, seed=seed, advance=None) for seed in (0, 0, 1)
    )
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.values, other.values)
