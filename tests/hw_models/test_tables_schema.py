"""The schema of latency tables: columns, defaults, refusals, digests, files of the first version."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from bitfront.errors import InvalidInput
from bitfront.hw_models import KernelRow, MeasuredTable
from bitfront.hw_models.tables import LatencyTable
from bitfront.hw_models.tables.kernel_formats import PAIRS
from bitfront.hw_models.tables.schema import COLUMNS, IDENTITY, conform
from hypothesis import given, settings
from hypothesis import strategies as st

NEW = [
    "m",
    "n",
    "k",
    "batch",
    "mode",
    "cache",
    "driver",
    "clock_mhz",
    "memory_clock_mhz",
    "power_w",
    "source",
    "licence",
]


def products(**columns):
    base = {
        "device": "nvidia-l4",
        "runtime": "torch",
        "runtime_version": "2.13",
        "op": "Gemm",
        "weight_format": ["bf16", "fp8", "int4"],
        "activation_format": ["bf16", "fp8", "bf16"],
        "m": [1, 2, 3],
        "n": [64, 128, 256],
        "k": [32, 32, 64],
        "median_ms": [0.1, 0.2, 0.3],
    }
    return pd.DataFrame(base | columns)


def kernel_row(**columns):
    values = {
        item.name: {"str": "x", "int": 1, "float": 0.5, "bool": True}[item.type]
        for item in dataclasses.fields(KernelRow)
    }
    return KernelRow(**(values | {"op": "Conv", "attributes": "{}", "schema_version": 2} | columns))


def test_columns_are_the_fields_of_a_row_and_what_the_issue_asks_for():
    assert list(COLUMNS) == [item.name for item in dataclasses.fields(KernelRow)]
    asked = (
        "device hardware runtime runtime_version op weight_format activation_format m n k shape attributes batch min_ms"
    )
    asked += (
        " median_ms p90_ms p99_ms mean_ms std_ms samples stable clock_mhz driver threads date digest mode cache source"
    )
    assert set(asked.split()) <= set(COLUMNS)


def test_defaults_types_and_order():
    made = conform(products(), "here")
    assert list(made.columns) == list(COLUMNS)
    assert made["shape"].tolist() == ["1x32;64x32", "2x32;128x32", "3x64;256x64"]
    assert made["mean_ms"].isna().all()
    assert made["p90_ms"].isna().all()
    assert made["stable"].all()
    assert {str(made[name].dtype) for name in ("m", "samples", "threads")} == {"int64"}
    assert made["digest"].is_unique
    assert made["digest"].str.fullmatch("[0-9a-f]{16}").all()


def test_sizes_follow_from_the_shape():
    shapes = ["4x16;8x16", "2x5x16;8x16", "4x16;16x8", "1x3x8x8;4x3x3x3"]
    frame = (
        products()
        .drop(columns=["m", "n", "k"])
        .loc[[0, 0, 0, 0]]
        .assign(shape=shapes, op=["Gemm", "MatMul", "Gemm", "Conv"])
    )
    made = conform(frame, "here")
    assert made[["m", "n", "k"]].to_numpy().tolist() == [[4, 8, 16], [10, 8, 16], [4, 8, 16], [0, 0, 0]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"median_ms": [0.1, 0.0, 0.3]}, r"here, row 2: the time is 0.0 ms, expected a positive number \(1 such row;"),
        ({"median_ms": [0.1, 0.2, np.nan]}, "here, row 3: the time is nan ms"),
        ({"median_ms": [np.inf, -1.0, 1.0]}, r"here, row 1: the time is inf ms.*2 such rows"),
        ({"median_ms": [0.1, "fast", 0.3]}, "here, row 2, column median_ms: 'fast' is not a number"),
        ({"m": [1, 2.5, 3]}, "here, row 2, column m: 2.5 is not a whole number, 0 or more"),
        ({"k": [1, -2, 3]}, "here, row 2, column k: -2 is not a whole number"),
        ({"n": [1, 2, 0]}, "here, row 3: a product with m=3, n=0, k=64; all three must be at least 1"),
        ({"stable": [True, "maybe", False]}, "here, row 2, column stable: 'maybe' is not true or false"),
    ],
)
def test_bad_values_are_named_with_their_row(columns, message):
    with pytest.raises(InvalidInput, match=message):
        conform(products(**columns), "here")


def test_missing_columns_are_named():
    with pytest.raises(
        InvalidInput,
        match=r"here lacks the columns runtime, .*shape \(or m, n and k\), median_ms \(or mean_ms\); it has device, m:",
    ):
        conform(pd.DataFrame({"device": ["cpu"], "m": [1]}), "here")


def test_what_identifies_a_kernel_changes_its_digest_and_nothing_else_does():
    def digest(**columns):
        return conform(products(**columns), "here")["digest"][0]

    others = {digest(**{name: [9] * 3 if name == "threads" else [f"other {name}"] * 3}) for name in IDENTITY}
    assert len(others | {digest()}) == len(IDENTITY) + 1
    assert digest(median_ms=[9.0] * 3, date="2026-11-22", clock_mhz=1700.0) == digest()


def test_a_file_of_the_first_version_still_loads(tmp_path):
    new = MeasuredTable((kernel_row(digest="a"), kernel_row(digest="b", op="Gemm", shape="4x16;8x16")))
    old = new.to_frame().drop(columns=NEW).assign(schema_version=1)
    old.to_parquet(tmp_path / "old.parquet")
    rows = MeasuredTable.from_parquet(tmp_path / "old.parquet")
    assert [row.schema_version for row in rows] == [1, 1]
    assert (rows.rows[0].mode, rows.rows[0].source, rows.rows[0].m) == ("eager", "this machine", 0)
    table = LatencyTable.from_parquet(tmp_path / "old.parquet")
    assert table.frame["digest"].tolist() == ["a", "b"]
    assert table.frame[["m", "n", "k"]].iloc[1].tolist() == [4, 8, 16]


def test_a_row_as_the_store_kept_it_before_still_loads():
    kept = {name: value for name, value in dataclasses.asdict(kernel_row()).items() if name not in NEW}
    assert KernelRow(**kept).licence == ""


def test_rows_and_columns_are_the_same_table(tmp_path):
    rows = MeasuredTable((kernel_row(digest="a"), kernel_row(digest="b", median_ms=2.0)))
    table = LatencyTable.from_rows(rows)
    assert table.rows().rows == rows.rows
    table.to_parquet(tmp_path / "t.parquet")
    again = LatencyTable.from_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(again.frame, table.frame, check_dtype=False)
    assert again.digest == table.digest
    shuffled = LatencyTable(table.frame.iloc[::-1].reset_index(drop=True))
    assert shuffled.digest == table.digest
    assert LatencyTable(table.frame.assign(n=7)).digest != table.digest


def test_products_of_a_table():
    frame = products(
        weight_format=["bf16", "int4", "fp8"],
        activation_format=["bf16", "bf16", "fp8"],
        attributes=["{}", '{"block_size": [32]}', '{"row_scales": [1]}'],
        mean_ms=[0.4, 0.5, 0.6],
    )
    table = LatencyTable.from_frame(
        pd.concat([frame, products(stable=False), products(op="Conv", shape="1x3x8x8;4x3x3x3")])
    )
    assert table.kernels.tolist()[:3] == ["bf16", "int4_wo_g32", "fp8_row"]
    found = table.gemms()
    assert (found.format.tolist(), found.ms.tolist(), found.m.tolist()) == (["bf16"], [0.1], [1])
    assert len(table.gemms("nvidia-l4")) == 1
    assert len(table.gemms("nvidia-a10")) == 0


def test_each_product_has_one_price():
    base = products(mode=["graph", "graph", "eager"], weight_format="bf16", activation_format="bf16")
    twice = products(mode="eager", weight_format="bf16", activation_format="bf16", median_ms=[7.0, 8.0, 9.0])
    found = LatencyTable.from_frame(pd.concat([twice, base])).gemms()
    assert found.ms.tolist() == [0.1, 0.2]  # graphs where there are any, never a mixture
    assert LatencyTable.from_frame(twice).gemms().ms.tolist() == [7.0, 8.0, 9.0]
    caches = [products(cache=kind, median_ms=[time] * 3) for kind, time in (("cold", 2.0), ("warm", 1.0))]
    assert LatencyTable.from_frame(pd.concat(caches)).gemms().ms.tolist() == [2.0] * 3
    later = [products(driver=version, median_ms=[time] * 3) for version, time in (("570", 2.0), ("580", 1.0))]
    assert LatencyTable.from_frame(pd.concat(later)).gemms().ms.tolist() == [1.0] * 3


def test_the_mean_counts_where_there_is_no_median():
    table = LatencyTable.from_frame(products(median_ms=[np.nan, 0.2, np.nan], mean_ms=[1.0, 2.0, 3.0]))
    assert table.gemms().ms.tolist() == [1.0, 0.2, 3.0]


SIZE = st.integers(1, 10**6)
PRODUCT = st.tuples(st.sampled_from(sorted(PAIRS)), SIZE, SIZE, SIZE)
TIMES = st.floats(1e-6, 1e6)


@settings(max_examples=12, deadline=None)
@given(st.dictionaries(PRODUCT, TIMES, min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_any_table_survives_parquet_and_shuffling(tmp_path_factory, content, random):
    keys = list(content)
    frame = products().iloc[[0] * len(keys)].reset_index(drop=True)
    frame = frame.assign(
        weight_format=[PAIRS[kernel][0] for kernel, *_ in keys],
        activation_format=[PAIRS[kernel][1] for kernel, *_ in keys],
        **{name: [key[place] for key in keys] for place, name in enumerate("mnk", start=1)},
        median_ms=list(content.values()),
    )
    table = LatencyTable.from_frame(frame)
    found = table.gemms()
    rows = zip(
        found.format.tolist(), found.m.tolist(), found.n.tolist(), found.k.tolist(), found.ms.tolist(), strict=True
    )
    assert {tuple(row[:4]): row[4] for row in rows} == content
    path = tmp_path_factory.mktemp("tables") / "t.parquet"
    order = random.sample(range(len(keys)), len(keys))
    LatencyTable(table.frame.iloc[order].reset_index(drop=True)).to_parquet(path)
    assert LatencyTable.from_parquet(path).digest == table.digest
