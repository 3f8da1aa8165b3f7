"""Every proxy on a network with what real ones have: fused attention, tied weights, in-place and frozen parts."""

import copy

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import UnsupportedModel
from bitfront.evaluators import calibrate
from bitfront.proxies import proxies
from torch import nn
from torch.nn import functional

# formulas are tested beside them: which derivatives they take depends on the formula
GRADIENTS = sorted(name for name, kind in proxies().items() if kind.gradients and "formulas" not in kind.__module__)
FORMATS = ["w3", "w6", "w6a8"]


class Block(nn.Module):
    """Tokens to logits: batch normalization, attention by the fused kernel, an in-place activation, a tied head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 8)
        self.norm = nn.BatchNorm1d(8)
        self.mix, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.act, self.drop = nn.ReLU(inplace=True), nn.Dropout(0.5)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.embed.weight.requires_grad_(False)  # frozen
        self.mix.bias.requires_grad_(False)

    def forward(self, tokens):
        x = self.norm(self.embed(tokens).mT).mT
        q, k, v = self.mix(x)[:, None].chunk(3, -1)
        x = x + functional.scaled_dot_product_attention(q, k, v)[:, 0]
        return self.head(self.drop(self.act(self.out(x))))


def made(quality="kl", dtype=torch.float32, model=None):
    model = (model or Block()).to(dtype)
    generator = torch.Generator().manual_seed(1)
    data = [tuple(torch.randint(0, 11, (6, 5), generator=generator) for _ in range(2)) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:2], holdout=data[2:], quality=quality)
    space = bf.SearchSpace.from_model(model, data[0][0][:2], formats=FORMATS, ties="none")
    return task, space, calibrate(task, space)


@pytest.mark.parametrize("quality", ["kl", "loss"])
@pytest.mark.parametrize("name", GRADIENTS)
def test_it_is_scored_and_left_as_it_was(name, quality):
    task, space, calibration = made(quality)
    before = copy.deepcopy(task.model.state_dict())
    wanted_gradients = [each.requires_grad for each in task.model.parameters()]
    kernels = (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled())
    if name == "empirical_fisher" or quality == "loss":
        assert task.calibration[0].targets is not None
    found = proxies()[name]().score(task, space, calibration, seed=0, advance=None)
    assert np.isfinite(found.values[space.allowed]).all()
    assert np.abs(found.values[:, 0]).min() > 0 or name == "activation_trace"  # every site counts
    assert kernels == (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled())
    assert [each.requires_grad for each in task.model.parameters()] == wanted_gradients
    assert all(torch.equal(before[key], value) for key, value in task.model.state_dict().items())


@pytest.mark.parametrize("name", [name for name in GRADIENTS if name != "activation_trace"])
def test_half_precision_is_close_to_single(name):
    single = proxies()[name]().score(*made(), seed=0, advance=None).values
    half = proxies()[name]().score(*made(dtype=torch.bfloat16), seed=0, advance=None).values
    coarse = FORMATS.index("w3")
    assert np.isfinite(half[~np.isnan(half)]).all()
    assert np.array_equal(np.argsort(half[:, coarse])[-1:], np.argsort(single[:, coarse])[-1:])
    np.testing.assert_allclose(half[:, coarse], single[:, coarse], rtol=0.5)


class Opaque(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        raise RuntimeError("no derivative here")


class Closed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(11, 8), nn.Linear(8, 11)

    def forward(self, tokens):
        return Opaque.apply(self.head(self.embed(tokens)))


@pytest.mark.parametrize("name", GRADIENTS)
def test_what_cannot_be_differentiated_is_refused_with_proxies_that_need_no_gradients(name):
    task, space, calibration = made("loss", model=Closed())
    with pytest.raises(UnsupportedModel, match=r"without gradients: .*measured_kl.*weight_mse"):
        proxies()[name]().score(task, space, calibration, seed=0, advance=None)


def test_samples_go_to_the_sites_that_are_undecided():
    task, space, calibration = made("relative_error")
    proxy = proxies()["hessian_trace"]
    settings = {"probes": 256, "tolerance": 0.0, "batch": 6}
    every = proxy(undecided_only=False, **settings).score(task, space, calibration, seed=0, advance=None)
    found = proxy(undecided_only=True, **settings).score(task, space, calibration, seed=0, advance=None)
    settled = found.error[:, 0] > 2 * every.error[:, 0]  # few probes were spent there
    assert settled.any()
    assert not settled.all()
    np.testing.assert_allclose(found.error[~settled, 0], every.error[~settled, 0], rtol=0.2)
    bits = bf.price(space, metrics=["avg_bits"])["avg_bits"].values
    for budget in (3.5, 4.5, 5.5):  # what was saved changes no decision
        choices = [
            bf.allocate(each.values, {"bits": bits}, {"bits": budget}, allowed=space.allowed).choice.tolist()
            for each in (found, every)
        ]
        assert choices[0] == choices[1]
