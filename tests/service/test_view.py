"""The typed document and the tables made of it."""

import copy
import json
import math
import runpy
from pathlib import Path

import pytest
from bitfront.errors import InvalidInput
from bitfront.service.front_document import Front, Surrogate, read_front
from bitfront.service.labels import count, label, limit_text, number, price_label
from bitfront.service.tables import comparison, difference, histogram, points_table

MAKE = runpy.run_path(str(Path(__file__).parents[1] / "front_documents.py"))["front_document"]


@pytest.fixture
def document():
    return MAKE()


@pytest.fixture
def front(document):
    return Front.parse(document)


def test_parses_everything(document, front):
    assert [p.id for p in front.points] == [p["id"] for p in document["points"]]
    assert front.best_point.id == document["best"]
    assert [p.baseline for p in front.baselines] == ["w2", "w4", "w8", "bf16"]
    assert front.price_metrics == ["latency_ms", "size_mb", "avg_bits"]


def test_keys_of_later_versions_are_ignored(document):
    document["new"] = document["points"][0]["new"] = 1
    assert Front.parse(document).points[0].id == "p000"


def test_null_and_nan_read_as_nan(document):
    document["points"][5]["measured"]["validation"]["value"] = None
    document["points"][6]["measured"]["validation"]["value"] = math.nan
    front = Front.parse(document)
    assert math.isnan(front.points[5].quality())
    assert math.isnan(front.points[6].quality())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("metric"), "at metric: Field required"),
        (lambda d: d["points"][3].pop("id"), r"at points\.3\.id"),
        (lambda d: d["points"][3]["prices"].update(size_mb="big"), r"at points\.3\.prices\.size_mb"),
        (lambda d: d.update(schema_version=2), "schema_version is 2, expected 1"),
        (lambda d: d.update(points=None), "at points"),
    ],
)
def test_what_is_wrong_is_named(document, change, message):
    change(document)
    with pytest.raises(InvalidInput, match=message):
        Front.parse(document)


@pytest.mark.parametrize("content", ["", '{"schema_version": 1, "name": "ha', "[]", "\x00", "[" * 100_000])
def test_half_written_file(tmp_path, content):
    path = tmp_path / "front.json"
    path.write_text(content)
    with pytest.raises(InvalidInput, match=r"front\.json is not JSON|schema_version"):
        read_front(path)


def test_reads_a_file_and_names_a_missing_or_large_one(tmp_path, document):
    path = tmp_path / "front.json"
    path.write_text(json.dumps(document))
    assert read_front(path).name == document["name"]
    with pytest.raises(InvalidInput, match="more than the 10 that are read"):
        read_front(path, limit_bytes=10)
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_front(tmp_path / "none.json")


def test_histogram_adds_up(front):
    for point in front.points:
        counts = histogram(front, point)
        assert counts["layers"].sum() == len(front.model.sites)
        assert counts["share"].sum() == pytest.approx(1)
    uniform = histogram(front, front.baselines[1])
    assert uniform.loc["w4"].tolist() == [50, 1]


def test_points_table_is_flat_and_complete(document, front):
    table = points_table(front)
    assert len(table) == len(document["points"])
    row, point = table.iloc[7], document["points"][7]
    assert row["size_mb"] == point["prices"]["size_mb"]["value"]
    assert row["kl_validation_low"] == point["measured"]["validation"]["low"]
    assert math.isnan(row["kl_holdout_value"]) == (point["measured"]["holdout"] is None)
    assert row["format:_fc"] == point["config"]["_fc"]
    assert table["best"].sum() == 1


def test_comparison_shows_best_once_also_when_uniform(document):
    document["best"] = "p001"
    front = Front.parse(document)
    table = comparison(front, [front.best_point, *front.baselines])
    assert list(table.index) == ["best: uniform w4", "uniform w2", "uniform w8", "uniform bf16"]
    assert table.loc["uniform w8", "constraints"] == "missed"
    assert "50 × w4" in table.loc["best: uniform w4", "layers per format"]


def test_difference_lists_the_changed_layers(front):
    one, other = front.by_id["p030"], front.by_id["p001"]
    table = difference(front, one, other)
    assert len(table) == sum(one.config[site] != other.config[site] for site in one.config)
    assert set(table["uniform w4"]) == {"w4"}


def test_roofline_is_said(document):
    changed = copy.deepcopy(document)
    for point in changed["points"]:
        point["prices"]["latency_ms"]["source"] = "roofline"
    assert price_label(Front.parse(document), "latency_ms") == "latency (ms)"
    assert price_label(Front.parse(changed), "latency_ms") == "latency (ms), roofline"


def test_numbers_keep_four_digits():
    assert [number(v) for v in (0.0123456, 12345.6, 3.0, math.nan)] == ["0.01235", "12,346", "3", "—"]
    assert label("latency_ms") == "latency (ms)"
    assert label("avg_bits") == "average weight bits"
    assert limit_text("size_mb", 3.0) == "size ≤ 3 MB"
    assert count(1, "layer") == "1 layer"


def test_predictions_carry_the_spread_of_the_surrogate(document, front):
    point = front.points[7]
    predicted = point.predicted["quality"]
    found = front.predicted(point)
    assert (found.low, found.value, found.high) == pytest.approx(
        (predicted / math.exp(0.25), predicted, predicted * math.exp(0.25))
    )
    document["surrogate"] = None
    bare = Front.parse(document).predicted(point)
    assert (bare.below, bare.above) == (0, 0)
    assert Surrogate(spread=math.log(2), offset=1.0).interval(3.0).high == pytest.approx(5.0)
