"""A small real model from its exports to prices: timing, operators outside the sites, what is kept, what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnxruntime")

from bitfront.errors import InvalidInput
from bitfront.exporters import export
from bitfront.hw_models import Kernel, price
from bitfront.hw_models.cpu_kernels import build, layer_data
from bitfront.hw_models.network import (
    Export,
    Network,
    WholeModel,
    additivity,
    fit,
    measure_network,
    mixtures,
    other_operators,
    time_exports,
    uniform_designs,
)
from bitfront.hw_models.network.exports import LoadedExport
from bitfront.space import Configuration, SearchSpace


class Attention(nn.Module):
    """A projection with a bias, a softmax of products of activations, a projection."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(32, 48), nn.Linear(48, 32)

    def forward(self, x):
        x = self.first(x)
        weights = torch.softmax(x @ x.transpose(1, 2), dim=-1)
        return self.last(torch.sigmoid(weights @ x))


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    torch.manual_seed(0)
    model, x = Attention().eval(), torch.randn(1, 16, 32)
    space = SearchSpace.from_model(model, x, formats=["w4", "bf16"])
    folder = tmp_path_factory.mktemp("exports")

    def written(label, configuration):
        path = folder / f"{label.replace(' ', '')}.onnx"
        export(model, configuration, path, target="onnx", example_inputs=x, space=space)
        return Export(label, configuration.to_dict(), path)

    floats = written("float", Configuration(())).path
    chosen = {**uniform_designs(space), **mixtures(space, 1)}
    return space, floats, [written(label, each) for label, each in chosen.items()], (x.numpy(),)


@pytest.fixture(scope="module")
def network(case):
    space, floats, exports, feeds = case
    steps = []
    found = measure_network(space, floats, exports, feeds, rounds=5, advance=steps.append)
    assert sum(steps) == 5 * len(exports)
    return found


def test_operators_outside_the_sites(case):
    _, floats, _, feeds = case
    found = other_operators(floats, feeds, runs=5)
    assert found.nodes["Softmax"] == 1
    assert found.nodes["Sigmoid"] == 1
    assert sum(count for op, count in found.nodes.items() if "MatMul" in op) == 2  # of two activations each
    assert "Add" not in found.nodes  # the biases belong to the sites
    assert found.total == pytest.approx(sum(found.ms.values()))
    assert found.total > 0


def test_measurements_and_what_is_kept(case, network, tmp_path):
    _, _, exports, _ = case
    assert [each.label for each in network.exports] == [each.label for each in exports]
    for each in network.exports:
        assert each.ms > 0
        assert each.wall_ms > 0
        assert each.samples == 5
    network.to_json(tmp_path / "network.json")
    again = Network.from_json(tmp_path / "network.json")
    assert again.to_dict() == network.to_dict()
    assert again.graph.edges.dtype == np.int64


def test_unreadable_networks(network, tmp_path):
    with pytest.raises(InvalidInput, match="no measured network"):
        Network.from_json(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(InvalidInput, match="is not JSON"):
        Network.from_json(tmp_path / "text.json")
    with pytest.raises(InvalidInput, match="version 1"):
        Network.from_dict({**network.to_dict(), "schema_version": 0})
    with pytest.raises(InvalidInput, match="not a measured network"):
        Network.from_dict({key: value for key, value in network.to_dict().items() if key != "exports"})


def test_prices_with_a_network(case, network):
    space, _, exports, _ = case
    alone = price(space, metrics=["latency_ms"], seconds=0.5)
    table = price(space, metrics=["latency_ms"], tables=[alone.measured], network=network)["latency_ms"]
    assert table.rows == ()
    assert table.base > alone["latency_ms"].base  # softmax, sigmoid, products of activations
    assert "fitted to 3 whole models" in table.provenance
    assert isinstance(table.whole, WholeModel)
    choices = np.stack([space.choice(each.formats) for each in exports])
    measured = np.array([each.ms for each in network.exports])
    value, low, high = table.whole.predict(choices)
    assert np.all((low < value) & (value < high))
    again = WholeModel.from_arrays(table.whole.to_arrays())
    np.testing.assert_array_equal(again.predict(choices)[2], high)
    fitted = np.array([True, True, False])
    report = additivity(table.whole, [each.label for each in exports], choices, measured, fitted)
    np.testing.assert_allclose(report.parts_ms, table.whole.terms.of(choices).sum(axis=1))
    assert np.all(report.layers_ms < report.parts_ms)
    assert json.dumps(report.summary(held_out=False))
    with pytest.raises(InvalidInput, match="1 exports are held out"):
        report.summary()
    assert len(report.figure().data) == 4
    assert report.factors.index[0] == "other operators"


def test_figures_of_the_report(case, network):
    """Errors by hand; an export that the model was fitted to is foretold from the others."""
    space, _, exports, _ = case
    whole = price(space, metrics=["latency_ms"], seconds=0.2, network=network)["latency_ms"].whole
    choices = np.stack([space.choice(each.formats) for each in exports])
    measured = np.array([1.0, 2.0, 3.0])
    with_two = additivity(whole, list("abc"), choices, measured, np.array([True, True, False]))
    only_second = fit(with_two.parts[1:2], measured[1:2]).predict(with_two.parts[:1])[0]
    assert with_two.learned_ms[0] == pytest.approx(float(only_second[0]))
    report = additivity(whole, list("abc"), choices, measured, np.array([True, False, False]))
    told = report.summary()
    foretold = whole.predict(choices)[0]
    error = np.mean(np.abs(foretold[1:] / measured[1:] - 1))
    assert told["learned_mape_percent"] == pytest.approx(100 * error)
    inside = (report.low_ms[1:] <= measured[1:]) & (measured[1:] <= report.high_ms[1:])
    assert told["interval_coverage_percent"] == pytest.approx(100 * inside.mean())
    assert list(report.table.index) == list("abc")
    with pytest.raises(InvalidInput, match="differ in length"):
        additivity(whole, ["a"], choices, measured, np.zeros(3, bool))


def test_a_network_of_something_else_is_refused(case, network):
    space = case[0]
    with pytest.raises(InvalidInput, match="batch 1, asked is 2"):
        price(space, batch=2, metrics=["latency_ms"], network=network)
    other = SearchSpace.from_model(nn.Linear(4, 3), torch.zeros(1, 4), formats=["w4"])
    with pytest.raises(InvalidInput, match="2 other sites, asked is the 1 of this space"):
        price(other, metrics=["latency_ms"], network=network)
    elsewhere = dataclasses.replace(network, hardware="another processor")
    with pytest.raises(InvalidInput, match="measured on another processor"):
        price(space, metrics=["latency_ms"], network=elsewhere)
    with pytest.raises(InvalidInput, match="leave it out for nvidia-h100-sxm"):
        price(space, device="nvidia-h100-sxm", metrics=["latency_ms"], network=network)


def test_formats_of_the_same_kernel_stand_for_each_other(case, network):
    x = torch.randn(1, 16, 32)
    wide = SearchSpace.from_model(Attention(), x, formats=["w2", "bf16"])
    table = price(wide, metrics=["latency_ms"], seconds=0.2, network=network)["latency_ms"]
    assert "fitted to 3 whole models" in table.provenance
    lacking = SearchSpace.from_model(Attention(), x, formats=["w2"])
    with pytest.raises(InvalidInput, match="whose kernel no format of this space runs"):
        price(lacking, metrics=["latency_ms"], seconds=0.2, network=network)


def test_inputs_and_rounds_that_do_not_fit(case):
    space, floats, exports, feeds = case
    with pytest.raises(InvalidInput, match="at least 3"):
        time_exports(exports, floats, feeds, rounds=2)
    with pytest.raises(InvalidInput, match="has the inputs x; got y"):
        LoadedExport(floats, {"y": feeds[0]})
    with pytest.raises(InvalidInput, match="got 2 arrays"):
        LoadedExport(floats, (*feeds, *feeds))
    partial = [Export("partial", {"first": "w4"}, exports[0].path)]
    with pytest.raises(InvalidInput, match="does not give a format for each"):
        measure_network(space, floats, partial, feeds)


def test_slower_exports_measure_slower(tmp_path):
    """The ratio to the reference is what tells two models apart."""
    paths = {}
    for width in (16, 512):
        kernel = Kernel("MatMul", "fp32", "fp32", (1, 256, 64), (width, 64), 0)
        paths[width] = tmp_path / f"{width}.onnx"
        paths[width].write_bytes(build(kernel, layer_data(kernel)))
    feeds = {"x": np.zeros((1, 256, 64), np.float32)}
    timed = time_exports([Export(str(width), {}, path) for width, path in paths.items()], paths[16], feeds, rounds=15)
    assert timed[1].ms > 3 * timed[0].ms
    given = time_exports([Export("a", {}, paths[16])], paths[16], feeds, rounds=15, reference_ms=5.0)
    assert given[0].ms == pytest.approx(5.0, rel=0.5)
