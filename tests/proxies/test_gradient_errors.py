"""Blocks of sites, sites without gradient, half precision, and that the model stays as it was."""

import runpy
from pathlib import Path

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, NonFiniteOutput, UnsupportedModel
from bitfront.evaluators import calibrate
from bitfront.proxies import gradient_errors
from bitfront.proxies.gradient_errors import Setting, blocks, mean_and_error, passes, products
from torch import nn

CASES = runpy.run_path(str(Path(__file__).parent / "fisher_cases.py"))
PROXIES = ["empirical_fisher", "sampled_fisher", "gauss_newton_diagonal", "output_fisher", "fit", "delta_loss"]


@pytest.mark.parametrize("limit", [1, 300, 400, 10**9])
def test_blocks_cover_every_site_once_within_the_limit(limit):
    _, space, _ = CASES["images"]("loss")
    found = [row for block in blocks(space, limit) for row in block]
    assert found == list(range(len(space.sites)))
    assert len(list(blocks(space, limit))) == {1: 2, 300: 2, 400: 2, 10**9: 1}[limit]


@pytest.mark.parametrize("proxy", ["sampled_fisher", "output_fisher", "delta_loss"])
def test_scores_do_not_depend_on_the_blocks(proxy, monkeypatch):
    task, space, calibration = CASES["images"]("kl")
    whole = bf.sensitivity(task, space, proxy, calibration=calibration)
    steps = []
    monkeypatch.setattr(gradient_errors, "ERROR_BYTES", 1)
    cut = bf.sensitivity(task, space, proxy, calibration=calibration, advance=steps.append)
    np.testing.assert_allclose(cut.values, whole.values, rtol=1e-6)
    assert sum(steps) == passes(task, space, 64) == 2 * 5
    assert cut.forward_passes == 2 * whole.forward_passes


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("quality", ["kl", "loss"])
def test_model_is_left_as_it_was_and_the_seed_decides(proxy, quality):
    task, space, calibration = CASES["images"](quality)
    task.model.conv.weight.requires_grad_(False)
    before = CASES["fingerprint"](task.model)
    state = torch.random.get_rng_state()
    first, again = (bf.sensitivity(task, space, proxy, calibration=calibration, seed=3) for _ in range(2))
    assert np.array_equal(first.values, again.values)
    assert np.array_equal(first.error, again.error)
    assert CASES["unchanged"](task.model, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not task.model.conv.weight.requires_grad
    assert task.model.fc.weight.requires_grad
    assert not task.model.training
    assert all(parameter.grad is None for parameter in task.model.parameters())
    assert all(not module._forward_pre_hooks and not module._forward_hooks for module in task.model.modules())


@pytest.mark.parametrize("proxy", PROXIES)
def test_formats_that_change_nothing_score_zero_and_coarser_ones_score_more(proxy):
    task, space, calibration = CASES["images"]("loss", formats=("w2", "w4", "w4a4", "w8", "fp32"))
    scores = bf.sensitivity(task, space, proxy, calibration=calibration)
    table = scores.table
    assert np.all(table["fp32"] == 0)
    assert np.all(table["w2"] > table["w4"])
    assert np.all(table["w4"] > table["w8"])
    assert np.all(table["w4a4"] != table["w4"])
    if proxy != "output_fisher":  # there the two errors can cancel
        assert np.all(table["w4a4"] > table["w4"])
    assert np.all(scores.values >= 0)
    assert np.all(scores.error >= 0)
    assert scores.additive
    assert scores.backward_passes == scores.forward_passes == 5


@pytest.mark.parametrize("proxy", PROXIES)
def test_proxies_describe_themselves(proxy):
    kind = bf.proxies.proxies()[proxy]
    assert kind.gradients == 1
    assert kind.additive
    assert "arXiv" in kind.source or "eq." in kind.source
    assert set(vars(kind(samples=3))) >= {"samples"}
    assert vars(kind(samples=3))["samples"] == 3


@pytest.mark.parametrize("proxy", ["empirical_fisher", "gauss_newton_diagonal", "output_fisher", "fit"])
def test_half_precision_models_score_like_float_ones(proxy):
    task, space, calibration = CASES["images"]("loss")
    wanted = bf.sensitivity(task, space, proxy, calibration=calibration)
    model = CASES["Net"]()
    model.load_state_dict(task.model.state_dict())
    data = [(batch.inputs[0].bfloat16(), batch.targets) for batch in task.calibration]
    half = bf.Task(model.bfloat16(), calibration=data, validation=data * 2, quality="loss")
    found = bf.sensitivity(half, bf.SearchSpace.from_model(model, data[0], formats=["w4"]), proxy)
    np.testing.assert_allclose(found.table["w4"], wanted.table["w4"], rtol=0.1)


class Heads(nn.Module):
    """A head that is computed and dropped, and a trunk that may be cut off from gradients."""

    def __init__(self, cut):
        super().__init__()
        self.trunk = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)
        self.unused = nn.Linear(4, 2)
        self.cut = cut

    def forward(self, x):
        x = self.trunk(x)
        return self.head(x.detach() if self.cut else x), self.unused(x)


@pytest.mark.parametrize("proxy", PROXIES)
def test_an_unused_head_scores_zero_and_a_cut_trunk_is_refused(proxy):
    torch.manual_seed(0)
    data = [(torch.randn(3, 4), torch.randint(0, 3, (3,))) for _ in range(3)]
    for cut in (False, True):
        model = Heads(cut)
        task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="loss")
        space = bf.SearchSpace.from_model(model, data[0], formats=["w3"])
        if cut:
            with pytest.raises(UnsupportedModel, match=r"no gradient reaches site trunk.*choose a proxy without"):
                bf.sensitivity(task, space, proxy)
        else:
            table = bf.sensitivity(task, space, proxy).table["w3"]
            assert table["unused"] == 0
            assert table["trunk"] > 0
            assert table["head"] > 0


def test_gradients_that_overflow_name_the_site():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    data = [(torch.full((2, 4), 1e25), torch.randint(0, 3, (2,))) for _ in range(3)]
    with torch.no_grad():
        model[0].weight.mul_(1e-25)
        model[0].bias.zero_()
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="loss")
    space = bf.SearchSpace.from_model(model, data[0], formats=["w4"])
    with pytest.raises(NonFiniteOutput, match="site 0"):
        bf.sensitivity(task, space, "empirical_fisher")


def test_one_sample_shows_no_standard_error():
    task, space, calibration = CASES["images"]("loss")
    each = products(task, space, calibration, Setting("fit", "data", samples=1), 0, None)
    values, error = mean_and_error(each)
    assert error is None
    assert np.array_equal(values, each[0])
    with pytest.raises(InvalidInput, match="samples and draws of at least 1"):
        Setting("fit", "data", samples=0)


def test_transformer_layers_are_scored_and_the_kernel_choice_is_kept():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    data = [torch.randn(3, 5, 16) for _ in range(3)]
    task = bf.Task(layer, calibration=data[:1], validation=data[1:], quality="relative_error")
    space = bf.SearchSpace.from_model(layer, data[0], formats=["w4"])
    before = torch.backends.cuda.flash_sdp_enabled(), torch.backends.mha.get_fastpath_enabled()
    calibration = calibrate(task, space)
    for proxy in ("gauss_newton_diagonal", "output_fisher", "fit"):
        assert np.all(bf.sensitivity(task, space, proxy, calibration=calibration).values > 0)
    assert (torch.backends.cuda.flash_sdp_enabled(), torch.backends.mha.get_fastpath_enabled()) == before
