"""Squared norms of single samples' weight gradients against autograd, sample by sample."""

import bitfront as bf
import pytest
import torch
from bitfront.proxies.recording import Recorder
from bitfront.proxies.sample_norms import Norms, separable
from torch import nn


class Shifted(nn.Conv2d):
    """A convolution that does something else than its settings say."""

    def forward(self, x):
        return super().forward(x.roll(1, -1))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


class TimeFirst(nn.Module):
    """Transposes inside: the layer sees [time, samples, features]."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x.transpose(0, 1)).tanh().transpose(0, 1)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(5, 4, padding_idx=0)

    def forward(self, index):
        return self.words(index).cumsum(1).tanh()


def inputs(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


WORDS = torch.randint(0, 5, (4, 6), generator=torch.Generator().manual_seed(2))
CASES = {
    "linear": (nn.Sequential(nn.Linear(6, 3)), inputs(4, 6), True),
    "positions": (nn.Sequential(nn.Linear(12, 12), nn.GELU()), inputs(4, 3, 12), True),
    "many positions": (nn.Sequential(nn.Linear(3, 2), nn.GELU()), inputs(4, 30, 3), True),
    "conv2d": (nn.Sequential(nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), groups=2)), inputs(4, 4, 7, 8), True),
    "depthwise": (nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.ReLU(inplace=True)), inputs(4, 4, 6, 6), True),
    "conv1d": (nn.Sequential(nn.Conv1d(4, 6, 3, 2, 1)), inputs(4, 4, 9), True),
    "few positions": (nn.Sequential(nn.Conv2d(8, 9, 3)), inputs(4, 8, 4, 4), True),
    "called twice": (Twice(), inputs(4, 6), True),
    "embedding": (Words(), WORDS, True),
    "time first": (TimeFirst(), inputs(4, 4, 6), False),
    "of its own": (nn.Sequential(Shifted(2, 3, 2)), inputs(4, 2, 5, 5), False),
    "circular": (nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")), inputs(4, 2, 5, 5), False),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(2, 3, 2)), inputs(4, 2, 5, 5), False),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_gradient_of_each_sample(case, monkeypatch):
    model, data, separates = CASES[case]
    task = bf.Task(model, calibration=[data], validation=[data, data], quality="relative_error")
    space = bf.SearchSpace.from_model(model, data, formats=["w8"])
    recorder = Recorder(model, space, space.sites[0].modules, outputs=True)
    with recorder.run(task.calibration[0]) as run:
        assert separable(model, run, space.sites, torch.Generator().manual_seed(0)) == ({0} if separates else set())
        seed = torch.randn(run.output.shape, generator=torch.Generator().manual_seed(3))
        calls = list(run.calls)
        gradients = run.gradients([call.output for call in calls], seed, again=True)
        found = Norms(model, run).of(calls, gradients)
        monkeypatch.setattr("bitfront.proxies.sample_norms._PIECE", 1)  # one sample at a time
        pieces = Norms(model, run).of(calls, gradients)
        wanted = []
        for sample in range(4):
            alone = torch.zeros_like(seed)
            alone[sample] = seed[sample]
            (gradient,) = run.gradients(run.weights, alone, again=True)
            wanted.append(float(gradient.double().square().sum()))
    if separates:
        assert found.tolist() == pytest.approx(wanted, rel=1e-4)
        assert pieces.tolist() == pytest.approx(wanted, rel=1e-4)


def test_a_layer_without_gradient_is_left_to_autograd():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with torch.no_grad():
        model[1].weight.zero_()
    data = inputs(4, 3)
    task = bf.Task(model, calibration=[data], validation=[data, data], quality="relative_error")
    space = bf.SearchSpace.from_model(model, data, formats=["w8"])
    modules = [module for site in space.sites for module in site.modules]
    with Recorder(model, space, modules, outputs=True).run(task.calibration[0]) as run:
        rows = separable(model, run, space.sites, torch.Generator().manual_seed(0))
    assert [space.sites[row].name for row in rows] == ["1"]
