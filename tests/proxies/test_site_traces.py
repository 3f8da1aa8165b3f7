"""Traces of all sites against explicit Hessians; the errors they claim; probes that are restricted to some sites."""

import copy

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.evaluators import objective
from bitfront.proxies.layer_calls import pieces
from bitfront.proxies.site_traces import Setting, estimate
from torch import nn

NEVER = staticmethod(lambda values, errors: np.zeros(values.shape[1], dtype=bool))
ALWAYS = staticmethod(lambda values, errors: np.ones(values.shape[1], dtype=bool))


class Net(nn.Module):
    """Convolution, batch-norm, an activation (in place), a depthwise convolution, a linear layer."""

    def __init__(self, activation, classes=3):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.activation = activation
        self.depthwise = nn.Conv2d(4, 4, 2, groups=4)
        self.fc = nn.Linear(4, classes)

    def forward(self, x):
        return self.fc(self.depthwise(self.activation(self.norm(self.conv(x)))).flatten(1))


class Tokens(nn.Module):
    """Embedding tied to the output head."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.mix = nn.Linear(4, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, index):
        return self.head(torch.tanh(self.mix(self.embed(index))))


def images(quality, activation=None, formats=("w4", "w4a8"), samples=5, **settings):
    torch.manual_seed(0)
    model = Net(activation or nn.Tanh(), **settings.pop("net", {}))
    data = [(torch.randn(samples, 1, 4, 4), torch.randint(0, 3, (samples,))) for _ in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality=quality, **settings)
    return task, bf.SearchSpace.from_model(model, data[0], formats=list(formats))


def tokens():
    torch.manual_seed(0)
    model = Tokens()
    data = [(torch.randint(0, 5, (4, 6)), torch.randint(0, 5, (4, 6))) for _ in range(3)]
    for _, targets in data:
        targets[::2, -1] = -100
    task = bf.Task(model, calibration=data[:1], validation=data[1:], quality="perplexity")
    return task, bf.SearchSpace.from_model(model, data[0], formats=["w4"])


CASES = {
    "kl": lambda: images("kl"),
    "relative error": lambda: images("relative_error"),
    "cosine": lambda: images("cosine"),
    "cross-entropy, tanh": lambda: images("loss"),
    "cross-entropy, relu": lambda: images("loss", nn.ReLU(inplace=True)),
    "accuracy": lambda: images("accuracy"),
    "a loss of its own": lambda: images("loss", loss=lambda y, t: (y.tanh().sum(1) - t).square().mean()),
    "tokens": tokens,
}


def second_derivatives(gradient, tensor):
    """The sum of the second derivatives of every element by itself."""
    if gradient is None or not gradient.requires_grad:
        return 0.0
    flat, total = gradient.flatten(), 0.0
    for index in range(len(flat)):
        (row,) = torch.autograd.grad(flat[index], tensor, retain_graph=True, allow_unused=True)
        total += 0.0 if row is None else float(row.flatten()[index])
    return total


def explicit(task, space, batches, rounded=()):
    """Traces over weights and activations [2, sites] by differentiating every element twice, in float64."""
    model = copy.deepcopy(task.model).double()
    found = np.zeros((2, len(space.sites)))
    total = sum(len(batch) for batch in batches)
    for batch in batches:
        seen = {}
        hooks = [model.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name, seen=seen: (seen.setdefault(name, args[0].clone().requires_grad_(True)),)
        ) for name in rounded]  # fmt: skip
        inputs = [each.double() if each.is_floating_point() else each for each in batch.inputs]
        output = model(*inputs)
        for hook in hooks:
            hook.remove()
        loss = objective(task, output, output.detach(), batch.targets)
        keys = [((0, row), model.get_parameter(site.parameter)) for row, site in enumerate(space.sites)]
        for row, site in enumerate(space.sites):
            keys += [((1, row), seen[name]) for name in site.modules if name in seen]
        gradients = torch.autograd.grad(loss, [each for _, each in keys], create_graph=True, allow_unused=True)
        for (key, tensor), gradient in zip(keys, gradients, strict=True):
            found[key] += second_derivatives(gradient, tensor) * len(batch) / total
    return found


def run(task, space, estimator="auto", probes=256, seed=0, size=3, open_sites=ALWAYS, rounded=(), **settings):
    setting = Setting(estimator, probes, settings.pop("tolerance", 0.0), settings.pop("full_batch", False), seed)
    return estimate(task, space, pieces(task, 100, size, "test"), rounded, setting, open_sites.__func__)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("estimator", ["auto", "hutchinson"])
def test_unbiased_for_the_explicit_hessian(case, estimator):
    task, space = CASES[case]()
    rounded = () if case == "tokens" else ("depthwise", "fc")
    wanted = explicit(task, space, pieces(task, 100, 3, "test"), rounded)
    found = run(task, space, estimator, 512, rounded=rounded)
    assert np.abs(wanted[0]).min() > 0
    deviation = np.abs(found.values - wanted)
    assert np.all(deviation <= 4.5 * found.errors + 1e-5 * np.abs(wanted)), (found.values, wanted, found.errors)
    assert np.all(found.errors[0] < 0.75 * np.abs(wanted[0])), "the check above has no teeth"
    assert found.reached == set(range(len(space.sites)))


def test_few_outputs_make_relu_networks_exact():
    for quality in ("kl", "loss"):
        task, space = images(quality, nn.ReLU(inplace=True))
        wanted = explicit(task, space, pieces(task, 100, 3, "test"))
        found = run(task, space, probes=3)  # as many as there are classes
        assert found.values == pytest.approx(wanted, rel=1e-5)
        assert np.all(found.errors == 0)
        assert found.backward == 3 * 5


@pytest.mark.parametrize("estimator", ["hutch++", "xtrace"])
@pytest.mark.parametrize("size", [5, 3])
def test_estimators_by_site_agree_with_the_explicit_hessian(estimator, size):
    task, space = images("loss")
    wanted = explicit(task, space, pieces(task, 100, size, "test"), ("fc",))
    found = run(task, space, estimator, probes=24, size=size, rounded=("fc",))
    assert np.all(np.abs(found.values - wanted) <= 6 * found.errors + 1e-5 * np.abs(wanted))
    exact = run(task, space, estimator, probes=3 * 36, size=size)
    assert exact.values[0] == pytest.approx(wanted[0], rel=1e-4)
    assert np.all(exact.errors[0] == 0)


@pytest.mark.parametrize(("quality", "estimator"), [("kl", "hutchinson"), ("loss", "auto"), ("relative_error", "auto")])
def test_the_error_is_that_of_the_estimate(quality, estimator):
    task, space = images(quality, net={"classes": 40})  # too many classes for exact answers
    wanted = explicit(task, space, pieces(task, 100, 3, "test"))[0]
    found = [run(task, space, estimator, probes=12, seed=seed) for seed in range(40)]
    rows = found[0].errors[0] > 1e-6 * wanted  # in its last layer the relative error has no noise
    scores = np.array([(each.values[0] - wanted)[rows] / each.errors[0][rows] for each in found])
    assert np.abs(scores.mean(0)).max() < 4.5 / np.sqrt(40)
    assert np.all((scores.std(0) > 0.6) & (scores.std(0) < 1.6)), scores.std(0)


def test_restricted_probes_are_unbiased_and_quieter():
    task, space = images("kl", net={"classes": 40})
    wanted = explicit(task, space, pieces(task, 100, 5, "test"))[0]
    fc = space.names.index("fc")

    def only_fc(values, errors):
        return np.arange(values.shape[1]) == fc

    kept, everything = [], []
    for seed in range(40):
        kept.append(run(task, space, "hutchinson", 36, seed, 5, staticmethod(only_fc)))
        everything.append(run(task, space, "hutchinson", 36, seed, 5))
    at_fc = np.array([each.values[0, fc] for each in kept])
    assert abs(at_fc.mean() - wanted[fc]) < 4 * at_fc.std() / np.sqrt(40)
    assert at_fc.std() < 0.9 * np.std([each.values[0, fc] for each in everything])
    start = [run(task, space, "hutchinson", 36, seed, 5, NEVER) for seed in range(3)]
    others = np.arange(len(space.sites)) != fc
    for first, later in zip(start, kept, strict=False):
        assert np.array_equal(first.values[0, others], later.values[0, others])
        assert first.values[0, fc] != later.values[0, fc]


def test_drawing_stops_at_the_tolerance_and_spends_no_more_than_it_may():
    task, space = images("relative_error", net={"classes": 40})
    few = run(task, space, probes=2000, tolerance=0.1)
    assert np.all(few.errors[0] <= 0.1 * few.values[0])
    assert few.backward < 2000
    bounded = run(task, space, probes=7, tolerance=1e-6)
    assert bounded.backward == 7 * 5
    assert np.all(bounded.errors[0, :2] > 1e-6 * bounded.values[0, :2])


def test_one_vector_for_all_micro_batches_probes_the_full_batch():
    task, space = images("kl", samples=6)
    wanted = explicit(task, space, pieces(task, 100, 1, "test"))[0]
    shared = np.array([run(task, space, "hutchinson", 8, seed, 1, full_batch=True).values[0] for seed in range(20)])
    own = np.array([run(task, space, "hutchinson", 8, seed, 1).values[0] for seed in range(20)])
    assert np.all(np.abs(shared.mean(0) - wanted) < 4.5 * shared.std(0) / np.sqrt(20))
    assert np.all(own.std(0) < shared.std(0))


def test_half_precision_comes_close_to_single():
    task, space = images("loss", nn.ReLU(), formats=("w4",))
    single = run(task, space)
    task.model.bfloat16()
    data = [(batch.inputs[0].bfloat16(), batch.targets) for batch in task.calibration]
    half = bf.Task(task.model, calibration=data, validation=[*data, *data], quality="loss")
    for estimator in ("auto", "hutchinson"):
        found = run(half, bf.SearchSpace.from_model(task.model, data[0], formats=["w4"]), estimator)
        assert np.all(np.abs(found.values[0] - single.values[0]) <= 4.5 * found.errors[0] + 0.05 * single.values[0])


def test_the_gauss_newton_matrix_alone_leaves_out_the_rest_and_needs_a_known_loss():
    task, space = images("loss")
    whole, alone = run(task, space), run(task, space, "gauss_newton")
    assert np.all(alone.values[0] > 0)
    assert np.all(alone.errors == 0)
    before_tanh = np.array([name == "conv" for name in space.names])
    assert np.array_equal(alone.values[0, ~before_tanh], whole.values[0, ~before_tanh])  # nothing is left out there
    assert alone.values[0, before_tanh] < 0.5 * whole.values[0, before_tanh]
    task, space = images("loss", loss=lambda y, t: (y.sum(1) - t).square().mean())
    with pytest.raises(bf.errors.InvalidInput, match="not the mean cross-entropy"):
        run(task, space, "gauss_newton")
