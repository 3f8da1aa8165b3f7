"""The data of one network: cuts, digests, what is refused, and the way from a measured and from a stored bench."""

from dataclasses import replace

import bitfront as bf
import numpy as np
import pandas as pd
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.proxies import Sensitivity
from bitfront.search import StoredBench, bench_configurations
from bitfront.search.evolution import BenchData
from bitfront.search.evolution.bench_data import common_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(24, 90), st.floats(0.2, 0.8))
def test_halves_share_nothing_and_are_alike_in_size(bench, seed, points, share):
    made = bench(points=points)
    first, second = made.halves(seed, share)

    def rows(part):
        return np.column_stack([part.choices, part.measured, part.sizes, part.rivals["mse"]]).tolist()

    assert sorted(rows(first) + rows(second)) == sorted(rows(made))
    assert len(first) == round(points * share)
    by_size = np.argsort(made.sizes, kind="stable")
    for block in np.array_split(by_size, len(first)):
        assert sum(size in first.sizes for size in made.sizes[block]) >= 1
    again = made.halves(seed, share)[0]
    np.testing.assert_array_equal(first.measured, again.measured)
    np.testing.assert_array_equal(first.rivals["mse"], again.rivals["mse"])


def test_the_digest_is_of_what_fitness_depends_on(bench):
    made = bench(points=40)
    assert made.digest == bench(points=40).digest
    assert replace(made, name="other", rivals={}).digest == made.digest
    assert replace(made, measured=made.measured * 2).digest != made.digest
    assert made.take(np.arange(30)).digest != made.digest


def test_what_does_not_fit_is_refused(bench):
    made = bench(points=40)
    with pytest.raises(InvalidInput, match="40 finite numbers"):
        replace(made, measured=np.full(40, np.nan))
    with pytest.raises(InvalidInput, match="mse must hold"):
        replace(made, rivals={"mse": np.zeros(3)})
    with pytest.raises(InvalidInput, match="statistics"):
        replace(made, choices=made.choices[:, :-1])
    allowed = made.statistics.allowed.copy()
    allowed[0, made.choices[0, 0]] = False
    with pytest.raises(InvalidInput, match="does not offer"):
        replace(made, statistics=replace(made.statistics, allowed=allowed))
    with pytest.raises(InvalidInput, match="leaves no half"):
        made.halves(0, 0.001)


def test_inputs_that_all_networks_have(bench):
    one, other = bench("one"), bench("other", seed=2)
    less = replace(other, statistics=replace(other.statistics, tensors={"weight": other.statistics.tensors["weight"]}))
    assert "gradient" in common_inputs([one, other])
    assert "gradient" not in common_inputs([one, less])
    for benches, message in (([], "no bench"), ([one, one], "same name")):
        with pytest.raises(InvalidInput, match=message):
            common_inputs(benches)
    empty = replace(other.statistics, tensors={}, format_tensors={}, scalars={}, format_scalars={})
    with pytest.raises(InvalidInput, match="no input in common"):
        common_inputs([one, replace(other, statistics=empty)])


@pytest.fixture(scope="module")
def space():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    return bf.SearchSpace.from_model(model, torch.randn(2, 6), formats=["w2", "w4", "w8"])


def test_from_measured_configurations(space, statistics_of):
    statistics = statistics_of(tuple(space.names), space.formats)
    configurations = bench_configurations(space, 26)
    measured = {each: float(index) for index, each in enumerate(configurations)}
    table = np.random.default_rng(0).random(space.allowed.shape)
    pairs = {(0, 1): np.full((3, 3), 0.5)}
    scores = Sensitivity("toy", table, None, tuple(space.names), space.formats, 0.0, pairs=pairs)
    made = BenchData.of("net", space, measured, statistics, {"toy": scores})
    np.testing.assert_allclose(made.rivals["toy"], made.predict(table) + 0.5)
    sizes = bf.price(space, metrics=("size_mb",))
    np.testing.assert_allclose(made.sizes, [sizes.of(each)["size_mb"].value for each in configurations])
    with pytest.raises(InvalidInput, match="too few"):
        BenchData.of("net", space, dict(list(measured.items())[:9]), statistics)
    with pytest.raises(InvalidInput, match="other sites or formats"):
        BenchData.of("net", space, measured, statistics_of(("a", "b", "c"), space.formats))


def test_from_a_stored_bench(space, statistics_of, tmp_path):
    from bitfront.search import load_bench

    configurations = bench_configurations(space, 26)
    numbers = np.linspace(1.0, 2.0, len(configurations))
    columns = dict.fromkeys(("value", "low", "high", "seconds", "size_mb", "bops", "avg_bits"), numbers)
    texts = {"digest": [each.digest for each in configurations], "origin": "random", "split": "validation"}
    choices = np.stack([space.choice(each) for each in configurations])
    statistics = statistics_of(tuple(space.names), space.formats)
    StoredBench("net", "kl", choices, pd.DataFrame({**texts, **columns}), statistics, 0.0, {}).save(tmp_path / "bench")
    table = np.random.default_rng(0).random(space.allowed.shape)
    scores = Sensitivity("toy", table, None, tuple(space.names), space.formats, 0.0)
    made = BenchData.stored(load_bench(tmp_path / "bench"), {"toy": scores})
    np.testing.assert_allclose(made.rivals["toy"], made.predict(table))
    np.testing.assert_array_equal(made.measured, numbers)
    assert made.statistics.digest == statistics.digest
