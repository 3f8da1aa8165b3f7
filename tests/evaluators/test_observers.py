"""Observers against their definitions, and what all of them promise."""

import itertools

import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.evaluators.observers import OBSERVERS, Entropy, MeanSquaredError, MinMax, MovingAverage, Percentile
from bitfront.evaluators.observers.protocol import extremes
from bitfront.evaluators.quantizers import Range, activation_quantizer
from bitfront.evaluators.recipe import ACTIVATIONS
from bitfront.formats import Format
from hypothesis import given, settings
from hypothesis import strategies as st

A8, A8S, A4, A4S = (Format.parse(name).activation for name in ("w8a8", "w8a8s", "w8a4", "w8a4s"))
E4M3, E2M1 = Format.parse("fp8").activation, Format.parse("w8ae2m1").activation
NVFP4, A8C, A4C = (Format.parse(name).activation for name in ("nvfp4", "w8a8c", "w4a4c"))
STATIC = (A8, A8S, A4, A4S, E4M3, E2M1)
CLIPPING = ("percentile", "mse", "entropy")


def columns(value):
    return value.reshape(-1, 1)


def shown(observer, *batches):
    """The observer after it has seen batches; each is one tensor, or a tuple of them for several calls."""
    for batch in batches:
        for value in batch if isinstance(batch, tuple) else (batch,):
            observer.observe(value, extremes(value))
        observer.end_batch()
    return observer


def ends(found):
    return float(found.low), float(found.high)


def squared_error(value, target, low, high):
    """On the values themselves, in float64."""
    rounded = activation_quantizer(target, Range(torch.tensor(low), torch.tensor(high)))(value)
    return float((rounded.double() - value.double()).square().sum())


SHAPES = {
    "normal": lambda: torch.randn(20_000),
    "relu": lambda: torch.randn(20_000).relu(),
    "heavy": lambda: torch.distributions.StudentT(3.0).sample((20_000,)),
    "skewed": lambda: torch.nn.functional.silu(3 * torch.randn(20_000)),
    "shifted": lambda: torch.randn(20_000) + 6,
    "outlier": lambda: torch.cat([torch.randn(20_000), torch.tensor([70.0, -9.0])]),
}


@pytest.fixture(params=SHAPES)
def value(request):
    torch.manual_seed(3)
    return SHAPES[request.param]()


def test_every_name_of_a_recipe_is_an_observer():
    assert set(OBSERVERS) == set(ACTIVATIONS)


def test_minmax_is_the_range_of_all_calls_and_batches():
    observer = shown(MinMax(), columns(torch.tensor([1.0, 2.0])), (columns(torch.tensor([-3.0])), torch.ones(1, 1)))
    for target in (*STATIC, NVFP4):
        assert ends(observer.range(target)) == (-3, 2)


def test_moving_average_against_the_recurrence():
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(9, 2)), rng.normal(size=(4, 2))) for _ in range(6)]
    observer = shown(MovingAverage(0.7), *[tuple(torch.tensor(each).float() for each in batch) for batch in batches])
    low, high = (np.array([pick(np.concatenate(batch), 0) for batch in batches]) for pick in (np.min, np.max))
    expected = low[0], high[0]
    for step in range(1, 6):
        expected = tuple(0.7 * old + 0.3 * new[step] for old, new in zip(expected, (low, high), strict=True))
    found = observer.range(A8C)
    assert found.low.numpy() == pytest.approx(expected[0], rel=1e-5)
    assert found.high.numpy() == pytest.approx(expected[1], rel=1e-5)


def test_moving_average_of_a_batch_that_did_not_reach_the_module():
    observer = shown(MovingAverage(), columns(torch.tensor([-1.0, 1.0])), (), columns(torch.tensor([-1.0, 2.0])))
    assert ends(observer.range(A8)) == pytest.approx((-1, 1.1))


@pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan")])
def test_momentum_out_of_range(momentum):
    with pytest.raises(InvalidInput, match=r"in \[0, 1\), got"):
        MovingAverage(momentum)


@pytest.mark.parametrize("percentile", [50, 100.1, 0.9999, float("nan")])
def test_percentile_out_of_range(percentile):
    with pytest.raises(InvalidInput, match="above 50 and at most 100, got"):
        Percentile(percentile)


@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99, 100.0])
def test_percentile_against_numpy(value, percentile):
    observer = shown(Percentile(percentile), columns(value))
    values, width = value.double().numpy(), float(value.abs().max()) / 4096
    asymmetric, symmetric = observer.range(A8), observer.range(A8S)
    for found, data, percent in (
        (float(asymmetric.high), values, percentile),
        (float(asymmetric.low), values, 100 - percentile),
        (float(max(symmetric.high, -symmetric.low)), abs(values), percentile),
    ):
        # definitions of a quantile differ by one order statistic
        low, high = (np.percentile(data, np.clip(percent + by, 0, 100)) for by in (-100 / len(data), 100 / len(data)))
        assert low - width <= found <= high + width
    if percentile == 100:
        assert ends(asymmetric) == pytest.approx((values.min(), values.max()), abs=1e-6)


def test_a_fixed_share_is_clipped():
    torch.manual_seed(0)
    value = torch.randn(100_000)
    low, high = ends(shown(Percentile(99), columns(value)).range(A8))
    assert int((value > high).sum()) == pytest.approx(1000, abs=3)
    assert int((value < low).sum()) == pytest.approx(1000, abs=3)


@pytest.mark.parametrize("target", STATIC, ids=str)
def test_mse_against_a_search_over_the_values(value, target):
    found = shown(MeanSquaredError(), columns(value)).range(target)
    low, high = min(float(value.min()), 0.0), max(float(value.max()), 0.0)
    shares = np.geomspace(1, 1 / 64, 40)
    if target.symmetric:
        top = max(-low, high)
        tried = [(-top * share, top * share) for share in shares]
    else:
        shares = shares[::2]
        tried = [(low * one, high * other) for one, other in itertools.product(shares if low else [1.0], shares)]
    # no candidate of a coarse exhaustive search is better, on the values and not their histogram
    best = min(squared_error(value, target, *each) for each in tried)
    assert squared_error(value, target, *ends(found)) <= 1.02 * best


def test_mse_moves_both_ends():
    torch.manual_seed(0)
    value = torch.cat([torch.randn(50_000), torch.tensor([-40.0, 25.0])])
    low, high = ends(shown(MeanSquaredError(), columns(value)).range(A4))
    assert -4 < low < -2
    assert 2 < high < 4


def naive_divergence(value, target, low, high, bins):
    """KL of Migacz, bin by bin in float64, for a range of the format; values without exact zeros."""
    value = value[value != 0].double().numpy()
    top = 2.0 ** np.frexp(np.abs(value).max())[1]
    width = 2 * top / bins
    counts = np.bincount(np.floor(value / width).astype(int) + bins // 2, minlength=bins)
    middles = np.clip((np.arange(bins) - bins // 2 + 0.5) * width, value.min(), value.max())
    rounded = activation_quantizer(target, Range(torch.tensor(low), torch.tensor(high)))(
        torch.tensor(middles).float()
    ).numpy()
    middles = middles.astype(np.float32)
    inside = np.flatnonzero((counts > 0) & (middles >= np.float32(low)) & (middles <= np.float32(high)))
    if len(inside) < min(2**target.bits, np.count_nonzero(counts) / 2):
        return np.inf
    p, q = np.zeros(bins), np.zeros(bins)
    p[inside] = counts[inside]
    p[inside[0]] += counts[: inside[0]].sum()
    p[inside[-1]] += counts[inside[-1] + 1 :].sum()
    for code in set(rounded[inside]):
        members = inside[rounded[inside] == code]
        q[members] = counts[members].mean()
    p, q = p / p.sum(), q / q.sum()
    return sum(p[i] * np.log(p[i] / q[i]) for i in inside)


@pytest.mark.parametrize("target", [A8S, A4, A8, E2M1], ids=str)
def test_entropy_against_a_naive_search(value, target):
    found = shown(Entropy(), columns(value)).range(target)
    low, high = min(float(value.min()), 0.0), max(float(value.max()), 0.0)
    if target.symmetric:
        top = max(-low, high)
        tried = [(-top * share, top * share) for share in (1.0, 0.9, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)]
        top = max(-float(found.low), float(found.high))
        chosen = (-top, top)
    else:
        shares = (1.0, 0.8, 0.5, 0.2)
        tried = [(low * one, high * other) for one, other in itertools.product(shares if low else [1.0], shares)]
        chosen = min(float(found.low), 0.0), max(float(found.high), 0.0)
    best = min(naive_divergence(value, target, *each, 4096) for each in tried)
    assert np.isfinite(best)
    assert naive_divergence(value, target, *chosen, 4096) <= best * 1.0001 + 1e-9


def test_entropy_clips_a_lone_outlier_but_not_few_distinct_values():
    torch.manual_seed(0)
    lone = shown(Entropy(), columns(torch.cat([torch.randn(50_000), torch.tensor([80.0])])))
    levels = columns(torch.randint(0, 17, (50_000,)) / 6 - 0.8)
    for target in (A8, A8S, A4, E2M1):
        assert 2 < float(lone.range(target).high) < 12
        assert ends(shown(Entropy(), levels).range(target)) == ends(extremes(levels))


def test_entropy_refuses_one_scale_a_feature():
    with pytest.raises(InvalidInput, match="choose activations='mse' or 'percentile'"):
        shown(Entropy(), torch.randn(10, 2))


@pytest.mark.parametrize("name", ["minmax", "moving_average", "percentile", "mse"])
@pytest.mark.parametrize("target", [A8C, A4C], ids=str)
def test_features_are_as_tensors_of_their_own(name, target):
    torch.manual_seed(0)
    value = torch.randn(3000, 5) * torch.tensor([1.0, 100.0, 1e-4, 0.0, 3.0]) + torch.tensor([0, 0, 0, 0, 2.0])
    together = shown(OBSERVERS[name](), *value.split(700))
    found = together.range(target)
    assert found.low.shape == found.high.shape == (5,)
    for feature in range(5):
        alone = shown(OBSERVERS[name](), *value[:, feature : feature + 1].split(700)).range(target)
        assert (float(found.low[feature]), float(found.high[feature])) == pytest.approx(ends(alone), rel=1e-5)


@pytest.mark.parametrize("name", OBSERVERS)
@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    exponent=st.integers(-30, 30),
    shift=st.sampled_from([-3.0, 0.0, 3.0]),
    seed=st.integers(0, 2**31 - 1),
)
def test_ranges_lie_within_what_was_seen(name, sizes, exponent, shift, seed):
    generator = torch.Generator().manual_seed(seed)
    batches = [(torch.randn(size, 1, generator=generator) + shift) * 2.0**exponent for size in sizes]
    observer, values = shown(OBSERVERS[name](), *batches), torch.cat(batches)
    for target in (*STATIC, NVFP4):
        low, high = ends(observer.range(target))
        assert float(values.min()) <= low <= high <= float(values.max())


@pytest.mark.parametrize("name", CLIPPING)
def test_clipping_does_not_depend_on_order_or_batches(name, value):
    one, other = shown(OBSERVERS[name](), columns(value)), OBSERVERS[name]()
    shown(other, *columns(value).flip(0).split(1234))
    for target in (A8, A4S, E2M1):
        assert ends(one.range(target)) == ends(other.range(target))


@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize("exponent", [-20, 15])
def test_ranges_scale_with_the_values(name, exponent, value):
    one = shown(OBSERVERS[name](), columns(value)).range(A4)
    other = shown(OBSERVERS[name](), columns(value * 2.0**exponent)).range(A4)
    assert ends(other) == pytest.approx([end * 2.0**exponent for end in ends(one)], rel=1e-4)


@pytest.mark.parametrize("name", OBSERVERS)
def test_all_zeros(name):
    observer = shown(OBSERVERS[name](), torch.zeros(20, 1), torch.zeros(3, 1))
    for target in (*STATIC, NVFP4):
        assert ends(observer.range(target)) == (0, 0)


@pytest.mark.parametrize("name", CLIPPING)
def test_the_scale_of_a_tensor_in_nvfp4_covers_everything(name, value):
    assert ends(shown(OBSERVERS[name](), columns(value)).range(NVFP4)) == ends(extremes(columns(value)))
