"""What every zero-cost proxy of whole networks promises."""

import copy
import math

import pytest
import torch
from bitfront.errors import InvalidInput, NonFiniteOutput, UnsupportedModel
from bitfront.proxies.architecture import architecture_proxies, get_architecture_proxy
from bitfront.proxies.architecture.passes import finite
from bitfront.task import Batch
from torch import nn

NAMES = sorted(architecture_proxies())
IMAGES = 6


class Dropped(nn.Module):
    """Functional rectifiers in place, dropout, a frozen layer, keyword inputs."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.second, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, 3)
        self.drop = nn.Dropout(0.5)
        self.second.requires_grad_(False)

    def forward(self, images, scale):
        value = nn.functional.relu_(self.norm(self.first(images * scale)))
        value = torch.relu(self.second(value))
        return self.head(self.drop(value.mean((2, 3))))


def network(seed=0):
    torch.manual_seed(seed)
    return Dropped()


def batch(samples=IMAGES, seed=1):
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(samples, 2, 7, 7, generator=draw)
    return Batch({"images": images, "scale": torch.ones(samples, 1, 1, 1)}, torch.arange(samples) % 3)


def state(module):
    flags = [
        (name, each.training, len(each._forward_hooks), len(each._forward_pre_hooks))
        for name, each in module.named_modules()
    ]
    kept = {name: each.clone() for name, each in module.state_dict().items()}
    tracked = [each.track_running_stats for each in module.modules() if isinstance(each, nn.BatchNorm2d)]
    return flags, tracked, [each.requires_grad for each in module.parameters()], kept


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_proxy_leaves_everything_as_it_was_and_repeats_itself(name, training):
    module, data, proxy = network().train(training), batch(), get_architecture_proxy(name)
    module.norm.eval()
    before, inputs = state(module), {key: each.clone() for key, each in data.inputs.items()}
    rng = torch.random.get_rng_state()
    scores = {proxy.score(module, data, None, 0) for _ in range(2)}
    after = state(module)
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert after[:3] == before[:3]
    assert all(torch.equal(after[3][key], each) for key, each in before[3].items())
    assert all(each.grad is None for each in module.parameters())
    assert all(
        torch.equal(data.inputs[key], each) and not data.inputs[key].requires_grad for key, each in inputs.items()
    )
    assert len(scores) == 1
    assert math.isfinite(scores.pop())
    # neither the mode that it comes in nor gradients being off changes the score
    with torch.no_grad():
        assert proxy.score(copy.deepcopy(module).train(not training), data, None, 0) == proxy.score(
            module, data, None, 0
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_proxy_says_what_it_needs(name):
    proxy = get_architecture_proxy(name)
    assert proxy.name == name
    assert proxy.summary
    assert proxy.source
    unlabelled = Batch(batch().inputs)
    if proxy.labels:
        with pytest.raises(InvalidInput, match="no targets"):
            proxy.score(network(), unlabelled, None, 0)
    else:
        assert proxy.score(network(), unlabelled, None, 0) == proxy.score(network(), batch(), None, 0)


@pytest.mark.parametrize("name", [name for name in NAMES if get_architecture_proxy(name).labels])
def test_the_loss_given_is_used(name):
    def double(outputs, targets):
        return 2 * nn.functional.cross_entropy(outputs, targets)

    proxy = get_architecture_proxy(name)
    plain, doubled = proxy.score(network(), batch(), None, 0), proxy.score(network(), batch(), double, 0)
    power = {"snip": 2, "grad_norm": 2, "grasp": 4, "fisher": 4, "zico": 1}[name]
    assert doubled == pytest.approx(power * plain, rel=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("params", "synflow")])
def test_inputs_that_do_not_fit_are_refused_in_one_line(name):
    wrong = Batch((torch.randn(4, 5),), torch.zeros(4).long())
    kinds = (UnsupportedModel, RuntimeError) if name == "zen" else UnsupportedModel
    with pytest.raises(kinds):
        get_architecture_proxy(name).score(nn.Sequential(nn.Linear(6, 3), nn.ReLU()), wrong, None, 0)


@pytest.mark.parametrize("name", ["jacov", "zen", "linear_regions"])
def test_whole_numbers_cannot_be_changed_a_little(name):
    tokens = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
    with pytest.raises(UnsupportedModel, match="whole numbers"):
        get_architecture_proxy(name).score(tokens, Batch((torch.randint(7, (4, 2)),)), None, 0)


@pytest.mark.parametrize("name", ["nwot", "synflow", "snip", "grad_norm", "grasp", "fisher", "zico", "ntk"])
def test_token_models_are_scored(name):
    torch.manual_seed(0)
    tokens = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 8), nn.GELU(), nn.Flatten(), nn.Linear(16, 3))
    data = Batch((torch.randint(7, (6, 2)),), torch.arange(6) % 3)
    assert math.isfinite(get_architecture_proxy(name).score(tokens, data, None, 0))


@pytest.mark.parametrize("name", ["nwot", "linear_regions"])
def test_a_network_without_rectifiers_is_refused(name):
    with pytest.raises(UnsupportedModel, match="rectified"):
        get_architecture_proxy(name).score(nn.Linear(3, 2), Batch((torch.randn(4, 3),)), None, 0)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(InvalidInput, match="did you mean 'synflow'"):
        get_architecture_proxy("synflo")


def test_scores_that_overflow_are_no_scores():
    assert finite(-math.inf, "x") == -math.inf
    for wrong in (math.nan, math.inf):
        with pytest.raises(NonFiniteOutput):
            finite(wrong, "x")
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    nn.init.constant_(module[0].weight, math.nan)
    with pytest.raises(NonFiniteOutput):
        get_architecture_proxy("snip").score(module, Batch((torch.ones(2, 2),), torch.tensor([0, 1])), None, 0)
