"""report.html holds the numbers, needs no network, and cannot be made to run what a document says."""

import json
import re
import runpy
from pathlib import Path

import pytest
from bitfront.errors import InvalidInput
from bitfront.service.report import write_report

MAKE = runpy.run_path(str(Path(__file__).parents[1] / "front_documents.py"))["front_document"]
SPEC = re.compile(r"<script type='application/json'>(.*?)</script>", re.DOTALL)


@pytest.fixture
def document():
    return MAKE()


def _page(document, tmp_path):
    write_report(document, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    start, end = page.index("<script>"), page.index("</script></head>")
    return page[:start] + page[end:]  # without Plotly's own code


def test_answers_what_to_ship(document, tmp_path):
    page = _page(document, tmp_path)
    head = page[: page.index("The front")]
    for text in (
        "What should I ship for efficientnet-lite0?",
        "Ship p030: held-out KL divergence 1.185 [1.019, 1.351] nats, 28.25 ms (measured), 2.512 MB",
        "uniform w4 has 3.1 times as much",
        "size ≤ 3 MB",
        "[2.302, 3.051]",
        "export/model.onnx",
        "0.0021",
    ):
        assert text in head
    assert re.findall(r"<th>((?:best: |uniform ).*?)</th>", head) == [
        "best: p030",
        *(f"uniform {name}" for name in ("w2", "w4", "w8", "bf16")),
    ]
    for text in ("onnxruntime 1.22, 1 thread", "Example CPU", "0.960", "12.4", "efficientnet_lite0"):
        assert text in page[page.index("How it was made") :]


def test_figures_are_embedded_and_nothing_is_fetched(document, tmp_path):
    page = _page(document, tmp_path)
    specs = [json.loads(text) for text in SPEC.findall(page)]
    titles = [spec["layout"]["xaxis"]["title"]["text"] for spec in specs]
    assert titles[:2] == ["latency (ms)", "size (MB)"]
    assert len(specs) == 6
    assert page.count("<div class='plot'") == 6
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", page)
    assert "http" not in re.sub(SPEC, "", page)
    full = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert full.count("<script>") >= 2
    assert 3e6 < len(full) < 8e6


def _poison(value, evil):
    """Every string that is no key of the schema becomes hostile."""
    if isinstance(value, dict):
        return {key: _poison(item, evil) for key, item in value.items()}
    if isinstance(value, list):
        return [_poison(item, evil) for item in value]
    return value + evil if isinstance(value, str) else value


def test_everything_of_the_document_is_escaped(document, tmp_path):
    evil = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    page = _page(_poison(document, evil), tmp_path)
    assert "<script>alert" not in page
    assert "<img" not in page
    assert page.count("<script") == page.count("<div class='plot'") + 1
    assert "&lt;script&gt;alert(1)" in page
    for spec in SPEC.findall(page):
        assert "<" not in spec


def test_hostile_keys_are_escaped(document, tmp_path):
    evil = "<script>alert(1)</script>"
    for part in ("sensitivity", "price_tables", "proxies", "environment", "constraints", "job"):
        document[part] = {evil: next(iter(document[part].values()))}
    for point in document["points"]:
        point["prices"][evil] = point["prices"]["size_mb"]
    page = _page(document, tmp_path)
    assert evil not in page


def test_nothing_recommended_is_said(document, tmp_path):
    document |= {"best": None, "best_reason": "no configuration meets 0.1 MB; the smallest has 1.3 MB", "exports": []}
    page = _page(document, tmp_path)
    assert "No configuration can be recommended." in page
    assert "the smallest has 1.3 MB" in page
    assert "Nothing was exported." in page


def test_a_bare_document_is_enough(tmp_path):
    bare = {"schema_version": 1, "name": "x", "metric": "kl", "model": {"name": "x"}, "points": []}
    assert "What should I ship for x?" in _page(bare, tmp_path)


def test_a_bad_document_leaves_the_old_report(document, tmp_path):
    (tmp_path / "report.html").write_text("old")
    del document["points"][0]["config"]
    with pytest.raises(InvalidInput, match=r"points\.0\.config"):
        write_report(document, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_failures_times_and_notes_are_told(document, tmp_path):
    document["notes"] = ["stopped after 900 s with 12 candidates left"]
    page = _page(document, tmp_path)
    assert "Note: Stopped after 900 s with 12 candidates left." in page
    assert "outputs are not finite" in page
    assert "180.5" in page


@pytest.mark.parametrize(("size", "told"), [(2_999_999, False), (3_060_358, True), (None, False)])
def test_a_file_above_the_limit_is_told(document, tmp_path, size, told):
    document["exports"][0]["bytes_on_disk"] = size
    assert ("is larger than the limit of 3 MB" in _page(document, tmp_path)) == told


def _searched(document):
    line = {"round": "uniform baselines", "proposed": 4, "measured": 4, "evaluations": 4, "hypervolume": 0.5}
    later = {"round": "round 1", "proposed": 8, "measured": 6, "evaluations": 10, "hypervolume": 0.625, "best": 0.0311}
    arms = [
        {"name": "level_switch", "evaluations": 5, "improved": 2, "credit": 0.75, "shares": [5]},
        {"name": "nsga2", "evaluations": 1, "improved": 0, "credit": None, "shares": [1]},
    ]
    surrogate = {"kind": "pairs", "points": 10, "pairs": 3, "left_out_spearman": 0.912}
    surrogate["coverage"] = {"asked": 0.9, "reached": 0.875, "predictions": 8}
    document["search"] = {
        "rounds": [line | {"best": None, "gap": None}, later | {"gap": 0.125}],
        "evaluations": 10,
        "proposers": arms,
        "surrogate": surrogate,
        "screened": 7,
        "ended": "target reached: quality 0.0311 <= 0.04",
    }
    document["recipe"] = {
        "name": "bias_correction=True",
        "tried": [
            {"name": "default", "value": 1.1, "low": 1.0, "high": 1.2, "samples": 16, "whole": False},
            {"name": "bias_correction=True", "value": 0.6, "low": 0.5, "high": 0.7, "samples": 64, "whole": True},
        ],
        "left_out": {"equalization=smoothquant": "no normalization before a linear layer"},
    }
    document["stages"] = [{"stage": "refine", "detail": "", "ran": 6, "reused": 2, "seconds": 3.5, "saved": 1.0}]
    return document


def test_how_the_search_went_is_told(document, tmp_path):
    page = _page(_searched(document), tmp_path)
    for text in (
        "2 rounds, 10 configurations measured on all validation data. 7 more were screened out",
        "It ended because: target reached: quality 0.0311 &lt;= 0.04.",
        "with 3 interactions of two layers",
        "Spearman ρ 0.912",
        "Of 8 predictions made before the measurement, 88% held in their interval (asked: 90%)",
        "bias_correction=True (chosen)",
        "16, then left behind",
        "no normalization before a linear layer",
        "<td>refine</td><td>6</td><td>2</td>",
    ):
        assert text in page
    specs = [json.loads(text) for text in SPEC.findall(page)]
    assert len(specs) == 8
    progress, shares = (spec["data"] for spec in specs[-2:])
    assert [trace["name"] for trace in progress] == ["hypervolume", "gap to the predicted front (right axis)"]
    assert progress[1]["x"] == [10]
    assert progress[1]["y"] == [12.5]
    assert [trace["x"] for trace in shares] == [[2, 0], [3, 1]]


def test_a_tie_is_told_and_only_once(document, tmp_path):
    document["best_against_uniform"] = {"tie": True, "rival": "uniform-w4", "difference": None}
    rival = next(point["id"] for point in document["points"] if point["baseline"] == "w4")
    document["best_against_uniform"]["rival"] = rival
    assert "A tie: on held-out data the interval of the difference to uniform w4 holds 0." in _page(document, tmp_path)
    document["best_reason"] += ", a tie with uniform w4: the interval holds 0"
    assert "A tie:" not in _page(document, tmp_path)
