"""What the figures carry: every point once, with its id, its interval and the colour of its format."""

import math
import runpy
from pathlib import Path

import pytest
from bitfront.service import palette
from bitfront.service.agreement_figure import agreement_figure, rank_correlation
from bitfront.service.front_document import Front
from bitfront.service.front_figure import front_figure, lower_front
from bitfront.service.layer_figures import layer_map, points_map, sensitivity_figure

MAKE = runpy.run_path(str(Path(__file__).parents[1] / "front_documents.py"))["front_document"]
GROUPS = ("dominated", "Pareto-optimal", "uniform", "best")


@pytest.fixture
def document():
    return MAKE()


@pytest.fixture
def front(document):
    return Front.parse(document)


def _trace(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def _measured(figure):
    """Id -> (x, y, error_y.array, error_y.arrayminus, error_x.array) over the groups of measured points."""
    found = {}
    for trace in figure.data:
        if trace.name in GROUPS:
            bars = zip(trace.error_y.array, trace.error_y.arrayminus, trace.error_x.array, strict=True)
            for x, y, bar, data in zip(trace.x, trace.y, bars, trace.customdata, strict=True):
                assert data[0] not in found
                found[data[0]] = (x, y, *bar)
    return found


@pytest.mark.parametrize("price", ["size_mb", "latency_ms", "avg_bits"])
def test_front_shows_every_point_once_with_its_intervals(document, front, price):
    drawn = _measured(front_figure(front, price))
    assert drawn.keys() == {point["id"] for point in document["points"]}
    for point in document["points"]:
        quality, cost = point["measured"]["validation"], point["prices"][price]
        expected = (
            cost["value"],
            quality["value"],
            quality["high"] - quality["value"],
            quality["value"] - quality["low"],
            cost["high"] - cost["value"],
        )
        assert drawn[point["id"]] == pytest.approx(expected)


def test_front_groups_marks_and_axes(document, front):
    figure = front_figure(front, "size_mb", selected="p028")
    assert [data[0] for data in _trace(figure, "best").customdata] == [document["best"]]
    uniform = _trace(figure, "uniform")
    assert uniform.text == ("uniform w2", "uniform w4", "uniform w8", "uniform bf16")
    assert uniform.marker.color == tuple(palette.format_colour(f) for f in ("w2", "w4", "w8", "bf16"))
    assert _trace(figure, "selected").customdata[0][0] == "p028"
    dominated = {data[0] for data in _trace(figure, "dominated").customdata}
    assert dominated == {p["id"] for p in document["points"] if not p["pareto"] and not p["baseline"]}
    for name in ("dominated", "Pareto-optimal"):
        trace = _trace(figure, name)
        for symbol, data in zip(trace.marker.symbol, trace.customdata, strict=True):
            assert (symbol == "circle") == front.by_id[data[0]].feasible
    assert figure.layout.yaxis.type == "log"
    assert figure.layout.xaxis.title.text == "size (MB)"
    assert figure.layout.yaxis.title.text == "KL divergence (nats), validation"
    assert [shape.x0 for shape in figure.layout.shapes] == [3.0]
    assert len(_trace(figure, "predicted front (additive model)").x) == len(document["predicted_front"])
    assert len(_trace(figure, "predicted").x) == len(document["points"])


def test_step_line_falls_and_is_dominated_by_nothing(front):
    figure = front_figure(front, "latency_ms")
    line = _trace(figure, "measured front")
    assert line.line.shape == "hv"
    assert all(a < b for a, b in zip(line.x, line.x[1:], strict=False))
    assert all(a > b for a, b in zip(line.y, line.y[1:], strict=False))
    for x, y, *_ in _measured(figure).values():
        assert any(a <= x and b <= y for a, b in zip(line.x, line.y, strict=True))
    assert not any(trace.name == "predicted front (additive model)" for trace in figure.data)


def test_hover_tells_metrics_with_units_intervals_and_bits(front):
    text = dict(_trace(front_figure(front, "size_mb"), "best").customdata)["p030"]
    for part in (
        "p030",
        "nats",
        "latency_ms: 28.25 [27.41, 29.38] ms (measured)",
        "size_mb: 2.512 MB",
        "w2: 1 layer,",
        "█",
    ):
        assert part in text


def test_roofline_stands_on_the_axis(document):
    for point in document["points"]:
        point["prices"]["latency_ms"]["source"] = "roofline"
    figure = front_figure(Front.parse(document), "latency_ms")
    assert figure.layout.xaxis.title.text == "latency (ms), roofline"


def test_holdout_shows_only_what_was_validated(document, front):
    drawn = _measured(front_figure(front, "size_mb", split="holdout"))
    assert drawn.keys() == {p["id"] for p in document["points"] if p["measured"]["holdout"]}


def test_zero_sits_on_the_edge_of_a_logarithmic_axis(document):
    document["points"][3]["measured"]["validation"] |= {"value": 0.0, "low": 0.0, "high": 0.0}
    figure = front_figure(Front.parse(document), "size_mb")
    y = _measured(figure)["p003"][1]
    assert 0 < y < min(other[1] for key, other in _measured(figure).items() if key != "p003")
    assert math.log10(y) >= figure.layout.yaxis.range[0]


def test_narrow_values_get_a_linear_axis(document):
    for index, point in enumerate(document["points"]):
        point["measured"]["validation"] |= {"value": 0.2 + index / 100, "low": 0.19, "high": 0.7}
    assert front_figure(Front.parse(document), "size_mb").layout.yaxis.type == "linear"


@pytest.mark.parametrize("kept", [0, 1])
def test_few_or_no_points(document, kept):
    document["points"] = document["points"][:kept]
    front = Front.parse(document)
    assert len(_measured(front_figure(front, "size_mb"))) == kept
    agreement_figure(front)
    points_map(front, "size_mb")


def test_unmeasured_points_are_left_out(document):
    document["points"][8]["measured"]["validation"]["value"] = None
    document["points"][9]["measured"]["validation"] = None
    del document["points"][10]["prices"]["size_mb"]
    drawn = _measured(front_figure(Front.parse(document), "size_mb"))
    assert len(drawn) == len(document["points"]) - 3


def _squares(figure, names):
    return [tuple(data[:3]) for trace in figure.data if trace.name in names for data in trace.customdata]


def test_layer_map_is_the_configuration(document, front):
    figure = layer_map(front, front.by_id["p030"])
    config = next(p["config"] for p in document["points"] if p["id"] == "p030")
    assert sorted(_squares(figure, document["model"]["formats"])) == sorted(("p030", s, f) for s, f in config.items())
    assert figure.layout.yaxis.ticktext == tuple(site["name"] for site in document["model"]["sites"])
    assert figure.layout.height > 15 * len(config)
    for name in ("w2", "w4", "w8"):
        assert _trace(figure, name).marker.color == palette.format_colour(name)
    ties = [trace for trace in figure.data if trace.name.startswith("tied")]
    assert [{data[1] for data in tie.customdata} for tie in ties] == [
        set(t["sites"]) for t in document["model"]["ties"]
    ]
    assert [tie.showlegend for tie in ties] == [True, False]


def test_points_map_orders_columns_by_price(document, front):
    figure = points_map(front, "size_mb")
    wanted = [p for p in document["points"] if p["pareto"] or p["baseline"] or p["id"] == document["best"]]
    wanted.sort(key=lambda p: p["prices"]["size_mb"]["value"])
    squares = _squares(figure, document["model"]["formats"])
    assert sorted(squares) == sorted((p["id"], s, f) for p in wanted for s, f in p["config"].items())
    assert len(figure.layout.xaxis.ticktext) == len(wanted)
    assert sum("★" in text for text in figure.layout.xaxis.ticktext) == 1


def test_points_map_keeps_best_and_uniform_when_thinned(front):
    figure = points_map(front, "size_mb", list(front.points), limit=10)
    ids = {data[0] for trace in figure.data for data in trace.customdata}
    assert len(ids) == 10
    assert {"p000", "p001", "p002", "p003", "p030"} <= ids
    assert "(10 of 40)" in figure.layout.xaxis.title.text


def test_sensitivity_handles_zero_and_null(document, front):
    figure = sensitivity_figure(front, "hessian_trace")
    cells = {tuple(data[:2]): (x, data[2]) for t in figure.data for x, data in zip(t.x, t.customdata, strict=True)}
    assert len(cells) == 50 * 4 - 1
    assert ("_conv_stem", "w2") not in cells
    assert cells["_blocks.1._expand_conv", "bf16"][1] == 0
    assert 0 < cells["_blocks.1._expand_conv", "bf16"][0] < min(x for x, value in cells.values() if value > 0)
    values = document["sensitivity"]["hessian_trace"]["values"]
    assert cells["_fc", "w4"] == (values[-1][1], values[-1][1])


def test_agreement_tells_the_rank_correlation(front):
    figure = agreement_figure(front)
    assert figure.layout.annotations[0].text == "Spearman ρ = 0.992, 40 points"
    assert {data[0] for t in figure.data if t.customdata is not None for data in t.customdata} == set(front.by_id)


def test_names_are_escaped(document):
    name = "<b onmouseover=alert(1)>"
    document["model"]["sites"][0]["name"] = name
    for point in document["points"]:
        point["config"][name] = point["config"].pop("_conv_stem")
        point["origin"] = name
    front = Front.parse(document)
    figure = layer_map(front, front.best_point)
    assert name not in figure.layout.yaxis.ticktext
    assert not any(name in data[3] for trace in figure.data if trace.name == "w8" for data in trace.customdata)
    assert all(name not in data[1] for data in _trace(front_figure(front, "size_mb"), "best").customdata)


def test_unknown_format_names_are_grey_and_colours_distinct():
    assert palette.format_colour("int4x") == palette.UNKNOWN
    assert len(set(palette.BITS_COLOURS.values())) == len(palette.BITS_COLOURS)
    assert palette.format_colour("w8a8") == palette.format_colour("w8")


def test_predicted_front_has_a_band_and_is_drawn_only_where_it_is_a_front(document):
    for entry in document["predicted_front"]:
        entry["cost"]["latency_ms"] = 20 + entry["cost"]["size_mb"] % 2
    front = Front.parse(document)
    figure = front_figure(front, "size_mb")
    low, high = [trace for trace in figure.data if trace.name == "± 1 standard deviation"]
    line = _trace(figure, "predicted front (additive model)")
    assert all(a < b < c for a, b, c in zip(low.y, line.y, high.y, strict=True))
    names = [trace.name for trace in front_figure(front, "latency_ms").data]
    assert "predicted front (additive model)" not in names
    assert "predicted" in names


def test_labels_of_neighbouring_uniform_points_do_not_meet(document):
    document["points"][1]["measured"]["validation"]["value"] = document["points"][2]["measured"]["validation"]["value"]
    document["points"][1]["prices"]["size_mb"]["value"] = document["points"][2]["prices"]["size_mb"]["value"]
    uniform = _trace(front_figure(Front.parse(document), "size_mb"), "uniform")
    assert uniform.textposition[1] != uniform.textposition[2]
    assert uniform.textposition[3].endswith("left")


def test_formats_that_quantize_activations_are_crossed(document):
    document["model"]["formats"][2] = "w8a8"
    for site in document["model"]["sites"]:
        site["formats"] = document["model"]["formats"]
    for point in document["points"]:
        point["config"] = {site: "w8a8" if name == "w8" else name for site, name in point["config"].items()}
    front = Front.parse(document)
    figure = layer_map(front, front.best_point)
    assert _trace(figure, "w8a8").marker.symbol == "square-x"
    assert _trace(figure, "w4").marker.symbol == "square"


def test_lower_front_drops_dominated_duplicates_and_nan():
    xs = [1.0, 1.0, 2.0, 3.0, math.nan, 0.5, 4.0]
    ys = [5.0, 5.0, 6.0, 1.0, 0.0, math.inf, 1.0]
    assert lower_front(xs, ys) == [0, 3]


def test_rank_correlation_against_the_closed_form():
    # Spearman 1904: 1 - 6 sum d^2 / (n (n^2 - 1)) without ties
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert rank_correlation([1, 2, 3], [math.exp(x) for x in (1, 2, 3)]) == pytest.approx(1)
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 2, 3], [7, 7, 7]) is None
