"""size_mb, avg_bits, effective_bits, macs, bops against hand-computed figures and naive sums."""

import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.formats import Format
from bitfront.hw_models import METRICS, planned, price
from bitfront.space import SearchSpace
from torch import nn

EXACT = [metric for metric in METRICS if metric not in ("latency_ms", "energy_mj", "peak_activation_mb")]


@pytest.fixture(scope="module")
def space():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 16, 5))
    return SearchSpace.from_model(model.eval(), torch.zeros(2, 3, 4, 4), formats=["w3", "w5", "w4a8", "bf16", "fp32"])


def test_size_by_hand(space):
    sizes = price(space, metrics=["size_mb"])
    table = sizes.table["size_mb"]
    # convolution: 216 weights, 8 channels; 3-bit codes lie in 4 bits, 5-bit codes in 8; a scale takes 4 bytes
    assert table.loc["0", "w3"] == pytest.approx((216 / 2 + 8 * 4) / 1e6)
    assert table.loc["0", "w5"] == pytest.approx((216 + 8 * 4) / 1e6)
    assert table.loc["3", "bf16"] == pytest.approx(640 * 2 / 1e6)
    # outside the sites: two biases, four vectors of the normalisation, its counter (int64)
    assert sizes.base["size_mb"] == pytest.approx((8 * 4 + 5 * 4 + 4 * 8 * 4 + 8) / 1e6)
    everything = sizes.of(space.uniform("fp32"))["size_mb"]
    assert everything.value == pytest.approx((216 * 4 + 640 * 4 + 188) / 1e6)
    assert (everything.low, everything.high, everything.source) == (everything.value, everything.value, "exact")


def test_size_and_bits_of_groups_zero_points_and_blocks_by_hand():
    formats = ["w4g128", "w4g128z", "w2z", "nf4", "mxfp4", "nvfp4", "wmxfp6", "we4m3b128", "w8t"]
    space = SearchSpace.from_model(nn.Linear(256, 384, bias=False), torch.zeros(1, 256), formats=formats)
    n, rows = 256 * 384, 384
    expected = {
        "w4g128": n / 2 + n / 128 * 2,
        "w4g128z": n / 2 + n / 128 * 2.5,
        "w2z": n / 4 + rows * 4.5,
        "nf4": n / 2 + n / 64 * 4,
        "mxfp4": n / 2 + n / 32,
        "nvfp4": n / 2 + n / 16 + 4,
        "wmxfp6": n * 6 / 8 + n / 32,
        "we4m3b128": n + 6 * 4,
        "w8t": n + 4,
    }
    prices = price(space, metrics=["size_mb", "effective_bits"])
    for name, size in expected.items():
        found = prices.of(space.uniform(name))
        assert found["size_mb"].value == pytest.approx(size / 1e6), name
        assert found["effective_bits"].value == pytest.approx(8 * size / n), name


def test_bits_by_hand(space):
    prices = price(space, metrics=["avg_bits", "effective_bits"])
    mixed = prices.of({"0": "w3", "3": "w5"})
    assert mixed["avg_bits"].value == pytest.approx((216 * 3 + 640 * 5) / 856)
    assert mixed["effective_bits"].value == pytest.approx((216 * 3 + 640 * 5 + 32 * (8 + 5)) / 856)
    for name, configuration in space.uniforms().items():
        assert prices.of(configuration)["avg_bits"].value == pytest.approx(Format.parse(name).weight_bits)


def test_operations_by_hand(space):
    prices = price(space, batch=3, metrics=["macs", "bops"])
    convolution, linear = 3 * 16 * 8 * 27, 3 * 640
    assert prices.of(space.uniform("w3"))["macs"].value == convolution + linear
    assert prices.of({"0": "w4a8", "3": "w3"})["bops"].value == convolution * 4 * 8 + linear * 3 * 32
    assert prices.of(space.uniform("bf16"))["bops"].value == (convolution + linear) * 256


@pytest.mark.parametrize("metric", EXACT)
def test_of_is_base_plus_the_sum_over_sites(space, metric):
    prices = price(space, metrics=[metric])
    rng = np.random.default_rng(0)
    for _ in range(10):
        choice = rng.integers(0, len(space.formats), len(space.sites))
        naive = prices.base[metric] + sum(prices.costs[metric][site, column] for site, column in enumerate(choice))
        assert prices.of(space.configuration(choice))[metric].value == pytest.approx(naive)


def test_what_a_site_does_not_offer_is_nan():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3))
    space = SearchSpace.from_model(model, torch.zeros(1, 2, dtype=torch.long), formats=["w8a8", "w8"])
    prices = price(space, metrics=EXACT)
    for table in prices.values():
        assert np.array_equal(np.isnan(table.values), ~space.allowed)
        assert np.array_equal(table.sigma == 0, np.ones_like(space.allowed))


def test_tied_weights_count_once():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10, bias=False))
    model[1].weight = model[0].weight
    space = SearchSpace.from_model(model, torch.zeros(1, 2, dtype=torch.long), formats=["w8"])
    assert len(space.sites) == 1
    assert price(space, metrics=["size_mb"]).of(space.uniform("w8"))["size_mb"].value * 1e6 in (80, 40 + 16)


def test_mapping_protocol(space):
    prices = price(space, metrics=["macs", "avg_bits", "macs"])
    assert list(prices) == ["macs", "avg_bits"]
    assert len(prices) == 2
    assert prices["macs"].source == "exact"
    assert list(prices.table["macs"].columns) == list(space.formats)
    assert planned(space, metrics=["macs"]) == 0


def test_bad_questions(space):
    with pytest.raises(InvalidInput, match="nearest: size_mb"):
        price(space, metrics=["size"])
    with pytest.raises(InvalidInput, match="nvidia-h100-sxm"):
        price(space, device="nvidia-h100", metrics=["size_mb"])
    with pytest.raises(InvalidInput, match="batch=0"):
        price(space, batch=0)
    with pytest.raises(InvalidInput, match="list of names"):
        price(space, metrics="size_mb")
    with pytest.raises(InvalidInput, match="does not fit"):
        price(space, metrics=["macs"]).of({"0": "w3"})
