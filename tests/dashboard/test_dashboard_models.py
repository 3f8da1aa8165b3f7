"""Trust, comparison, devices, downloads, reproduction, words and joint fronts: numbers against naive references."""

import io
import json
import runpy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bitfront.architecture import Genome
from bitfront.dashboard import compare_model, device_model, downloads, figure_words, reproduction, trust_model
from bitfront.dashboard.figures.front_plane import front_plane, lower_left
from bitfront.dashboard.figures.hover import customdata, hover, hovers
from bitfront.dashboard.figures.layer_map import layer_map
from bitfront.dashboard.joint_front import JointFront, read_any_front
from bitfront.dashboard.view import of_front
from bitfront.errors import InvalidInput
from bitfront.service.device_document import device_detail, device_rows
from bitfront.space import Configuration
from scipy.stats import spearmanr

HERE = Path(__file__).parent
VIEW = runpy.run_path(str(HERE / "test_answers.py"))["view"]
MAKE = runpy.run_path(str(HERE.parent / "front_documents.py"))["front_document"]


def area(points):
    """The dominated area below (1, 1) by rectangles between sorted coordinates."""
    xs, total = [*sorted({x for x, _ in points}), 1.0], 0.0
    for left, right in pairwise(xs):
        total += (right - left) * max(0.0, 1.0 - min(y for x, y in points if x <= left))
    return total


def unit(values, of):
    return [(value - min(of)) / (max(of) - min(of)) for value in values]


def test_ranks_are_spearmans():
    found = VIEW(points=40)
    told = trust_model.ranks(found)[0]
    sums = [sum(found.sensitivities["sqnr"][i, c] for i, c in enumerate(row)) for row in found.choices]
    assert trust_model.scores(found, "sqnr") == pytest.approx(sums)
    assert told.value == pytest.approx(spearmanr(sums, found.quality["validation"][:, 0]).statistic)
    assert told.low <= told.value <= told.high
    assert trust_model.ranks(VIEW(points=3)) == []


def test_growth_is_the_dominated_area():
    draw = np.random.default_rng(0)
    price, quality = draw.uniform(1, 2, size=15), draw.uniform(1, 2, size=15)
    at, volume = trust_model.growth(quality, price)
    assert at.tolist() == list(range(1, 16))
    points = list(zip(unit(price, price), unit(quality, quality), strict=True))
    assert volume == pytest.approx([area(points[:n]) for n in at])
    assert len(trust_model.growth(quality[:1], price[:1])[0]) == 0


def test_proposers_and_work():
    found = VIEW(points=4, origins=("exact:1", "exact:2", "nsga2", "exact:1"), pareto=np.array([1, 0, 1, 0], bool))
    table = trust_model.proposers_table(found).set_index("proposer")
    assert table.loc["exact", ["measured", "on the front"]].tolist() == [3, 1]
    assert table["share of the work"].sum() == pytest.approx(1)
    event = {"kind": "evaluation", "at": 12.0, "content": {"seconds": 2.0, "split": "validation", "configuration": "a"}}
    work = trust_model.work_of([event, {"kind": "log", "at": 1.0, "content": {}}])
    assert work.to_dict("records") == [
        {"worker": "local", "start": 10.0, "end": 12.0, "split": "validation", "id": "a"}
    ]


def test_compared_shares_one_box():
    views = [VIEW(seed=1, points=20), VIEW(seed=2, points=20)]
    table = compare_model.compared(views, "size_mb", "validation")
    prices = np.concatenate([view.prices["size_mb"][:, 0] for view in views])
    qualities = np.concatenate([view.quality["validation"][:, 0] for view in views])
    change = np.log if qualities.max() > 30 * qualities.min() else np.array
    for view, volume in zip(views, table["hypervolume"], strict=True):
        price = unit(view.prices["size_mb"][:, 0], prices)
        quality = unit(change(view.quality["validation"][:, 0]), change(qualities))
        assert volume == pytest.approx(area(list(zip(price, quality, strict=True))))
    assert compare_model.shared_prices(views) == ["size_mb"]
    assert compare_model.shared_prices([]) == []
    assert compare_model.compared(views, "size_mb", "holdout")["hypervolume"].isna().all()


def test_devices_as_tables():
    rows = device_rows()
    table = device_model.devices_table(rows)
    assert sorted(table["device"]) == sorted(row["device"] for row in rows)
    measured = {row["device"]: sum(each["rows"] for each in row["tables"]) for row in rows}
    for name, count in zip(table["device"], table["measured kernels"], strict=True):
        assert (0 if pd.isna(count) else count) == measured[name]
    detail = device_detail("cpu")
    assert len(device_model.kernels_table(detail)) == len(detail["kernels"])
    assert (
        f"{sum(each['rows'] for each in detail['kernels']):,} measured" in figure_words.coverage_words(detail)
        or not (detail["kernels"])
    )


def test_downloads_read_back():
    found = VIEW(points=7)
    assert Configuration.from_dict(json.loads(downloads.configuration_json(found, 3))).to_dict() == found.config(3)
    frame = pd.read_csv(io.StringIO(downloads.points_frame(found).to_csv(index=False)))
    assert frame["id"].tolist() == list(found.ids)
    assert frame["size_mb"].to_numpy() == pytest.approx(found.prices["size_mb"][:, 0])
    assert frame.iloc[3][found.names].to_dict() == found.config(3)


def test_lines_that_reproduce_a_point(monkeypatch):
    found = VIEW(points=5)
    monkeypatch.setenv("BITFRONT_DASHBOARD_SERVER", "http://127.0.0.1:1")
    assert "bitfront export x --point p2" in reproduction.command_lines("job:x", found, 2)
    assert "bitfront front 'a b'" in reproduction.command_lines("run:a b", found, 2)
    lines = reproduction.python_lines("job:x", found, 2)
    compile(lines, "lines", "exec")
    given = lines.partition("from_dict(")[2].partition(")")[0]
    assert json.loads(given) == found.config(2)


def test_hover_tells_values_intervals_and_formats():
    found = VIEW(points=6, feasible=np.array([True] * 5 + [False]))
    found.quality["validation"][:, 1:] = found.quality["validation"][:, :1] * [0.9, 1.1]
    every = hovers(found, np.arange(6))
    for row, text in enumerate(every):
        assert text == hover(found, row)
        value = found.quality["validation"][row, 0]
        assert f"validation kl: {value:.4g} [{0.9 * value:.4g}, {1.1 * value:.4g}] nats" in text
        assert f"size_mb: {found.prices['size_mb'][row, 0]:.4g} MB" in text
        for column, name in enumerate(found.formats):
            some = int((found.choices[row] == column).sum())
            assert (f"{name}: {some} layer" in text) == (some > 0)
        assert ("misses a constraint" in text) == (row == 5)
    assert customdata(found, [4, 2])[:, 0].tolist() == ["p4", "p2"]


def test_words_count_what_is_drawn():
    found = VIEW(points=30, pareto=np.arange(30) < 4, feasible=np.arange(30) > 1)
    told = figure_words.front_words(found, "size_mb", "quality", "validation")
    assert "30 points: 4 Pareto-optimal in the objectives, 26 dominated, 0 uniform, 2 missing a constraint" in told
    steps = lower_left(found.prices["size_mb"][:, 0], found.quality["validation"][:, 0])
    assert f"{len(steps)} point" in told
    assert figure_words.front_words(found, "size_mb", "quality", "holdout") == "No point has both values."
    hollow = [
        t for t in front_plane(found, "size_mb").data if t.marker.symbol == "circle-open" and t.name != "selected"
    ]
    assert {row[0] for trace in hollow for row in trace.customdata} == {"p0", "p1"}


@pytest.fixture
def joint(tmp_path):
    """A joint front: the largest network, and one that lacks a layer and has another in its place."""
    document = MAKE(points=16)
    sites = document["model"]["sites"]
    other = [*sites[:-1], {**sites[-1], "name": "_small_fc", "elements": 5}]
    document |= {"kind": "joint", "architectures": {"a": {"sites": sites}, "b": {"sites": other}, "c": {"sites": None}}}
    for index, point in enumerate(document["points"]):
        small = index % 2 == 1 and point["baseline"] is None
        point |= {"architecture": {"width": 4 if small else 8}, "architecture_digest": "b" if small else "a"}
        if small:
            point["config"]["_small_fc"] = point["config"].pop("_fc")
    (tmp_path / "front.json").write_text(json.dumps(document))
    return tmp_path / "front.json", document


def test_points_of_a_joint_front_have_networks_of_their_own(joint):
    path, document = joint
    front = read_any_front(path)
    assert isinstance(front, JointFront)
    found = of_front("x", front)
    assert len(found) == 16
    for row, point in enumerate(document["points"]):
        assert found.config(row) == point["config"]
        own = found.own(row)
        assert set(own.names) == set(point["config"])
        assert own.config(row) == point["config"]
        cells = sum(len(trace.x) for trace in layer_map(own, row, None, None).data)
        assert cells == 2 * len(point["config"])
        assert found.histogram[row].sum() == len(point["config"])
        lines = reproduction.python_lines("run:x", found, row)
        compile(lines, "lines", "exec")
        genome, _ = json.JSONDecoder().raw_decode(lines, lines.index("from_dict(") + len("from_dict("))
        assert Genome.from_dict(genome).configuration.to_dict() == point["config"]
    frame = downloads.points_frame(found)
    small = [index for index, point in enumerate(document["points"]) if point["architecture_digest"] == "b"]
    assert frame["_small_fc"].notna().to_numpy().nonzero()[0].tolist() == small
    path.write_text(json.dumps({**document, "architectures": {"a": {"sites": 3}}}))
    with pytest.raises(InvalidInput, match=r"at architectures\.a\.sites"):
        read_any_front(path)
