"""The sampled Fisher against the expectation over all labels."""

import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.proxies.sampled_fisher import SampledFisher
from torch.nn import functional

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))


def expected(task, space, calibration, positions):
    """The diagonal Fisher from every label's probability, position by position, times squared errors."""
    model = CASES["doubled"](task.model)
    inputs = task.calibration[0].inputs[0]
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    fisher = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for sample in range(len(inputs)):
        logits = model(inputs[sample : sample + 1]).flatten(0, -2)
        logp = functional.log_softmax(logits, -1)
        for position in positions(sample, len(logits)):
            for label in range(logits.shape[-1]):
                gradients = torch.autograd.grad(logp[position, label], list(model.parameters()), retain_graph=True)
                weight = float(logp[position, label].detach().exp()) / len(positions(sample, len(logits))) / len(inputs)
                for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
                    fisher[name] += weight * gradient.square()
    return np.array(
        [
            [
                0.5 * float((fisher[site.parameter] * CASES["weight_error"](task, space, calibration, site, name)
                             .square()).sum())
                for name in space.formats
            ]
            for site in space.sites
        ]
    )  # fmt: skip


@pytest.mark.parametrize("quality", ["kl", "accuracy"])
def test_is_unbiased_for_the_expectation_over_labels(quality):
    task, space, calibration = CASES["images"](quality, formats=("w3", "w4"))
    wanted = expected(task, space, calibration, lambda sample, count: range(count))
    each = np.stack(
        [SampledFisher(draws=40).score(task, space, calibration, seed=seed, advance=None).values for seed in range(15)]
    )
    error = each.std(0, ddof=1) / len(each) ** 0.5
    assert np.all(np.abs(each.mean(0) - wanted) < 4 * error)
    assert np.all(error < 0.05 * wanted)


def test_sequences_average_over_the_positions_that_count():
    task, space, calibration = CASES["tokens"]("perplexity")
    wanted = expected(task, space, calibration, lambda sample, count: range(count - 1 + sample % 2))
    found = SampledFisher(draws=500).score(task, space, calibration, seed=0, advance=None)
    assert found.values == pytest.approx(wanted, rel=0.15)


def test_standard_error_covers_the_drawing_noise():
    """Over many seeds the spread of the scores is what each of them reports, less the spread between samples."""
    task, space, calibration = CASES["images"]("kl", formats=("w4",))
    task.calibration[0] = task.calibration[0].piece(0, 1)
    task.calibration = [bf.task.Batch.of((task.calibration[0].inputs[0].repeat(20, 1, 1, 1), None))]
    found = [SampledFisher().score(task, space, calibration, seed=seed, advance=None) for seed in range(40)]
    spread = np.stack([each.values for each in found]).std(0, ddof=1)
    reported = np.sqrt(np.mean([each.error**2 for each in found], axis=0))
    np.testing.assert_allclose(reported, spread, rtol=0.4)


def test_more_draws_cost_backward_passes_alone():
    task, space, calibration = CASES["images"]("kl")
    found = SampledFisher(samples=4, draws=3).score(task, space, calibration, seed=0, advance=None)
    assert (found.forward_passes, found.backward_passes) == (4, 12)
    assert vars(SampledFisher(samples=4, draws=3)) == {"samples": 4, "draws": 3}


def test_other_seeds_draw_other_labels():
    task, space, calibration = CASES["images"]("kl")
    one, other = (bf.sensitivity(task, space, "sampled_fisher", calibration=calibration, seed=s) for s in (0, 1))
    assert not np.array_equal(one.values, other.values)


def test_a_loss_that_is_no_likelihood_of_the_outputs_is_refused():
    def doubled(output, targets):
        return functional.cross_entropy(2 * output, targets)

    task, space, calibration = CASES["images"]("loss", loss=doubled)
    with pytest.raises(InvalidInput, match="not the mean cross-entropy"):
        bf.sensitivity(task, space, "sampled_fisher", calibration=calibration)
