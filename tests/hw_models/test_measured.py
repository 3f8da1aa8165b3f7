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
    asked = [
        (kernel.op, kernel.weight_format, kernel.activation_format, kernel.weight_shape) for kernel in runner.asked
    ]
    kinds = {("fp32", "fp32"), ("fp32", "bf16"), ("int8", "uint8")}
    shapes = [("Conv", (8, 3, 3, 3)), ("Conv", (8, 8, 1, 1)), ("Gemm", (4, 8))]
    expected = {(op, *kind, shape) for kind in kinds for op, shape in shapes}
    # where the output is not rounded: the float kernel on rounded input, of a pointwise layer the integer product
    expected |= {("Conv", "fp32", "uint8", (8, 3, 3, 3)), ("MatMul", "int8", "uint8", (8, 8))}
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


def layout(entered, left):
    """The part of a row's conversion that falls to the sides that are converted, by elements."""
    return CONVERSION * (entered + left)


#: Elements of input and output of the first site, 3 x 6 x 6 and 8 x 4 x 4: what enters is this share of its conversion.
ENTERS = 108 / (108 + 128)
SAME = 0.5  # of the others, whose input is as large as their output


def test_values_and_calls(space, runner):
    table = price(space, metrics=["latency_ms"], runner=runner)["latency_ms"]
    rows = dict(zip(space.names, table.values, strict=True))
    column = space.formats.index
    # the model's input enters the layout of float convolutions, or is rounded
    assert rows["a"][column("w2")] == rows["a"][column("fp32")] == pytest.approx(17.0 + layout(ENTERS, 0))
    assert rows["a"][column("w8a8")] == pytest.approx(12.0 + layout(ENTERS, 0))
    assert rows["b"][column("w6")] == 2 * 18.0
    assert rows["b"][column("w8a8")] == rows["b"][column("w4a8")] == 2 * (18.0 - 5.0)
    assert rows["c"][column("bf16")] == 18.5
    assert rows["head"][column("w8a8")] == 12.0 - 5.0
    assert (table.base, table.source) == (OVERHEAD, "measured")
    assert table.provenance.startswith("measured: cpu (test), fake 1, 1 thread, batch 1, 11 kernels, 2026-11-22;")
    assert "execution order, other operators not counted" in table.provenance


def test_like_neighbours_cost_the_sum(space, runner):
    table = price(space, metrics=["latency_ms"], runner=runner)["latency_ms"]
    uniform = space.choice(space.uniform("w4"))
    total = table.total(uniform)
    assert total.value == pytest.approx(OVERHEAD + 17 + 36 + 18 + 12 + layout(ENTERS, 0))
    assert total.value == pytest.approx(table.base + table.values[np.arange(4), uniform].sum())
    assert 0 < total.low < total.value < total.high
    assert total.high - total.value == pytest.approx(total.value - total.low)


def test_unlike_neighbours_cost_their_conversions(space, runner):
    table = price(space, metrics=["latency_ms"], runner=runner)["latency_ms"]

    def excess(**formats):
        choice = space.choice(formats)
        return table.total(choice).value - table.base - table.values[np.arange(4), choice].sum()

    alike = {"a": "fp32", "b": "w4", "c": "w2", "head": "fp32"}  # all run the float kernel
    assert excess(**alike) == pytest.approx(0.0)
    # the output of a leaves the layout (its output is 128 of 236 elements); b's two calls convert on both sides
    half = excess(**{**alike, "b": "bf16"})
    assert half == pytest.approx(layout(0, 1 - ENTERS) - 2 * layout(0, SAME))
    # a float reader: a runs its float kernel on rounded input, which takes 6 more and rounds by itself
    first = excess(**{**alike, "a": "w8a8"})
    assert first == pytest.approx(6.0)
    # b is pointwise: an integer product between transpositions, and its reader enters the layout
    product = 2 * (16.0 - 5.0 - (18.0 - 5.0)) - 2 * layout(SAME, 0) + 2 * layout(0, SAME)
    codes = layout(0, 1 - ENTERS) + 2 * layout(SAME, 0)
    assert excess(**{**alike, "b": "w8a8"}) == pytest.approx(product + codes + layout(SAME, 0))


def test_totals_of_many_choices(space, runner):
    prices = price(space, runner=runner)
    rng = np.random.default_rng(0)
    choices = np.stack([[rng.choice(np.flatnonzero(row)) for row in space.allowed] for _ in range(5)])
    for table in prices.tables.values():
        singly = [table.total(choice).value for choice in choices]
        np.testing.assert_allclose(table.totals(choices), singly)


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
