"""Measured latency with a runner that times nothing: look-up, sums, intervals, storage."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from bitfront.errors import InvalidInput, NotMeasured
from bitfront.hw_models import KernelRow, MeasuredTable, planned, price, site_kernel
from bitfront.space import SearchSpace
from torch import nn

FORMATS = ["w2", "w4", "w6", "w4a8", "w8a8", "bf16", "fp32"]
CONVERSION, SIGMA, OVERHEAD = 2.0, 0.1, 0.5


class FakeRunner:
    """Gives every kernel a time made of its shape and formats, and remembers what it was asked for."""

    def __init__(self):
        self.asked = []

    def digest(self, kernel):
        return kernel.digest("cpu", "test", "fake", "1", 1)

    def measure(self, kernels, seconds, advance=None):
        self.asked += kernels
        if advance:
            advance(31 * len(kernels))
        return [self.row(kernel) for kernel in kernels]

    @staticmethod
    def milliseconds(kernel):
        faster = {("int8", "uint8"): -5.0, ("fp32", "uint8"): 1.0, ("fp32", "bf16"): 0.5}
        return float(sum(kernel.weight_shape)) + faster.get((kernel.weight_format, kernel.activation_format), 0.0)

    def row(self, kernel):
        time = self.milliseconds(kernel)
        values = {item.name: time for item in dataclasses.fields(KernelRow) if item.type == "float"}
        values |= {"conversion_ms": CONVERSION if kernel.op == "Conv" else 0.0, "sigma_ms": SIGMA}
        return KernelRow(
            digest=self.digest(kernel),
            device="cpu",
            hardware="test",
            runtime="fake",
            runtime_version="1",
            threads=1,
            op=kernel.op,
            weight_format=kernel.weight_format,
            activation_format=kernel.activation_format,
            shape=kernel.shape,
            attributes=kernel.parameters,
            executed=kernel.op,
            samples=30,
            repeats=1,
            stable=True,
            date="2026-11-22",
            **{**values, "overhead_ms": OVERHEAD},
        )


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.c(self.b(self.b(self.a(x))))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def space():
    return SearchSpace.from_model(Net(), torch.zeros(1, 3, 6, 6), formats=FORMATS)


@pytest.fixture
def runner():
    return FakeRunner()


def test_equal_kernels_are_measured_once(space, runner):
    price(space, metrics=["latency_ms"], runner=runner)
    asked = [(kernel.weight_format, kernel.activation_format, kernel.weight_shape) for kernel in runner.asked]
    convolutions = {("fp32", "fp32"), ("fp32", "bf16"), ("int8", "uint8"), ("fp32", "uint8")}
    expected = {(*kind, shape) for kind in convolutions for shape in [(8, 3, 3, 3), (8, 8, 1, 1)]}
    expected |= {(*kind, (4, 8)) for kind in convolutions - {("fp32", "uint8")}}
    assert len(asked) == len(set(asked))
    assert set(asked) == expected


def test_second_price_measures_nothing(space, runner, tmp_path):
    steps = []
    assert planned(space, runner=runner) == 31 * 11
    first = price(space, runner=runner, advance=steps.append)
    assert sum(steps) == 31 * 11
    first.measured.to_parquet(tmp_path / "rows.parquet")
    stored = MeasuredTable.from_parquet(tmp_path / "rows.parquet")
    assert stored.rows == first.measured.rows
    again = FakeRunner()
    second = price(space, runner=again, tables=[stored])
    assert again.asked == []
    assert len(second.measured) == 0
    assert planned(space, runner=again, tables=[stored]) == 0
    assert np.array_equal(second.costs["latency_ms"], first.costs["latency_ms"], equal_nan=True)
    wider = price(space, batch=2, runner=again, tables=[stored])
    assert len(wider.measured) == len(again.asked) == 11


def test_rows_of_another_machine_are_not_used(space, runner):
    rows = price(space, runner=runner).measured

    class Other(FakeRunner):
        def digest(self, kernel):
            return kernel.digest("cpu", "another processor", "fake", "1", 1)

    other = Other()
    price(space, runner=other, tables=[rows])
    assert len(other.asked) == 11


def test_values_and_calls(space, runner):
    table = price(space, metrics=["latency_ms"], runner=runner)["latency_ms"]
    rows = dict(zip(space.names, table.values, strict=True))
    column = space.formats.index
    assert rows["a"][column("w2")] == rows["a"][column("fp32")] == 17.0
    assert rows["b"][column("w6")] == 2 * 18.0
    assert rows["b"][column("w8a8")] == rows["b"][column("w4a8")] == 2 * (18.0 - 5.0)
    assert rows["c"][column("bf16")] == 18.5
    assert rows["head"][column("w8a8")] == 12.0 - 5.0
    assert (table.base, table.source) == (OVERHEAD, "measured")
    assert table.provenance.startswith("measured: cpu (test), fake 1, 1 thread, batch 1, 11 kernels, 2026-11-22;")


def test_total_is_the_sum_and_the_interval_adds_standard_deviations(space, runner):
    prices = price(space, metrics=["latency_ms"], runner=runner)
    uniform = prices.of(space.uniform("w4"))["latency_ms"]
    assert uniform.value == pytest.approx(OVERHEAD + 17 + 36 + 18 + 12)
    margin = 1.959964 * SIGMA * (1 + 2 + 1 + 1)
    # only the first site converts (the last one, a product, has nothing to convert)
    assert uniform.low == pytest.approx(uniform.value - margin)
    assert uniform.high == pytest.approx(uniform.value + margin + CONVERSION)


def test_unlike_neighbours_widen_the_interval(space, runner):
    prices = price(space, metrics=["latency_ms"], runner=runner)
    mixed = prices.of({"a": "fp32", "b": "bf16", "c": "fp32", "head": "fp32"})["latency_ms"]
    margin = 1.959964 * SIGMA * 5
    assert mixed.high == pytest.approx(mixed.value + margin + 4 * CONVERSION)  # a, twice b, c
    alike = prices.of({"a": "fp32", "b": "w4", "c": "w2", "head": "fp32"})["latency_ms"]
    assert alike.high == pytest.approx(alike.value + margin + CONVERSION)  # all compute in float32
    integer = prices.of({"a": "w8a8", "b": "w4a8", "c": "w8a8", "head": "fp32"})["latency_ms"]
    # a and c may run in float on rounded input (6 ms more, and the layout), b lies between integer kernels
    assert integer.high == pytest.approx(integer.value + margin + 2 * (6.0 + CONVERSION))


def test_nan_where_not_offered(runner):
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3))
    space = SearchSpace.from_model(model, torch.zeros(1, 2, dtype=torch.long), formats=["w8a8", "w8"])
    table = price(space, metrics=["latency_ms"], runner=runner)["latency_ms"]
    for array in (table.values, table.sigma):
        assert np.array_equal(np.isnan(array), ~space.allowed)


def test_narrow_activations_are_refused(runner):
    space = SearchSpace.from_model(nn.Linear(4, 3), torch.zeros(1, 4), formats=["w4a4"])
    with pytest.raises(NotMeasured, match="offer w4a8 or w4 instead"):
        price(space, runner=runner)


def test_without_onnxruntime(space, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InvalidInput, match=r"pip install 'bitfront\[onnx\]'"):
        price(space)
    assert price(space, metrics=["size_mb"])["size_mb"].source == "exact"


def test_tables_merge_and_later_rows_win(space, runner):
    rows = price(space, runner=runner).measured
    newer = MeasuredTable((dataclasses.replace(rows.rows[0], median_ms=99.0),))
    merged = rows.merged(newer)
    assert len(merged) == len(rows)
    assert merged.find(rows.rows[0].digest).median_ms == 99.0
    assert merged.find("nothing") is None


def test_unreadable_tables(tmp_path):
    with pytest.raises(InvalidInput, match="no table"):
        MeasuredTable.from_parquet(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(InvalidInput, match="not a parquet file"):
        MeasuredTable.from_parquet(tmp_path / "text.parquet")
    pd.DataFrame({"digest": ["a"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(InvalidInput, match="lacks the columns device"):
        MeasuredTable.from_parquet(tmp_path / "other.parquet")


def test_batch_scales_the_first_dimension():
    space = SearchSpace.from_model(nn.Sequential(nn.Conv2d(3, 4, 1)), torch.zeros(2, 3, 5, 5), formats=["fp32"])
    assert site_kernel(space.sites[0], "fp32", batch=7).input_shape == (7, 3, 5, 5)
