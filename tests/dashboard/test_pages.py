"""The pages run on good, broken and hostile runs; a point is chosen by link, list and click."""

import json
import runpy
from pathlib import Path

import bitfront.dashboard
import pytest
from bitfront.dashboard import PATHS_VARIABLE
from streamlit.testing.v1 import AppTest

MAKE = runpy.run_path(str(Path(__file__).parents[1] / "front_documents.py"))["front_document"]
APP = Path(bitfront.dashboard.__file__).parent
EVIL = "<script>alert(1)</script> ![x](http://127.0.0.1/x.png)"


@pytest.fixture
def out(tmp_path, monkeypatch):
    """Two runs, a broken one and one without a front."""
    folder = tmp_path / "out"
    documents = {"demo": MAKE(), "second": MAKE(seed=1, points=20, name=EVIL)}
    for name, document in documents.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "front.json").write_text(json.dumps(document))
    for name, file, content in (("half", "front.json", '{"schema_version": 1, "na'), ("started", "run.log", "x")):
        (folder / name).mkdir()
        (folder / name / file).write_text(content)
    monkeypatch.setenv(PATHS_VARIABLE, str(folder))
    return folder


def _page(name, **query):
    test = AppTest.from_file(str(APP / name), default_timeout=60)
    for key, value in query.items():
        test.query_params[key] = value
    test.run()
    assert not test.exception
    return test


def _chart(test, index):
    return json.loads(test.get("plotly_chart")[index].proto.spec)


def _ids(spec, name):
    trace = next(trace for trace in spec["data"] if trace.get("name") == name)
    return [data[0] for data in trace["customdata"]]


def _layers(spec):
    rows = [data for t in spec["data"] if t.get("name") in ("w2", "w4", "w8", "bf16") for data in t["customdata"]]
    return {row[1]: row[2] for row in rows}, {row[0] for row in rows}


def test_the_app_opens_with_the_runs(out):
    test = _page("app.py")
    assert test.title[0].value == "Runs"
    table = test.dataframe[0].value.set_index("run")
    assert table["state"].to_dict() == {
        "out/demo": "finished",
        "out/half": "broken",
        "out/second": "finished",
        "out/started": "no front yet",
    }
    assert table.loc["out/demo", "best"] == "p030"
    assert "half\\-written" in test.warning[0].value


def test_no_runs_says_how_to_start_one(tmp_path, monkeypatch):
    monkeypatch.setenv(PATHS_VARIABLE, str(tmp_path))
    assert "bitfront run" in _page("runs_page.py").info[0].value
    assert _page("front_page.py").info[0].value == "No run yet."


def test_front_opens_the_best_point(out):
    test = _page("front_page.py")
    assert test.selectbox(key="run").value == "out/demo"
    assert test.selectbox(key="point").value == "p030"
    assert _ids(_chart(test, 0), "best") == ["p030"]
    layers, points = _layers(_chart(test, 1))
    document = json.loads((out / "demo" / "front.json").read_text())
    assert points == {"p030"}
    assert layers == next(p["config"] for p in document["points"] if p["id"] == "p030")
    assert [button.proto.label for button in test.get("download_button")] == [
        "Configuration (JSON)",
        "Front (CSV)",
        "Front (Parquet)",
    ]


def test_a_link_chooses_run_and_point(out):
    test = _page("front_page.py", run="out/second", point="p005")
    assert test.selectbox(key="run").value == "out/second"
    assert test.selectbox(key="point").value == "p005"
    assert _layers(_chart(test, 1))[1] == {"p005"}


@pytest.mark.parametrize("query", [{"run": "../../etc"}, {"run": "out/demo", "point": "<b>"}])
def test_a_wrong_link_falls_back(out, query):
    test = _page("front_page.py", **query)
    assert (test.selectbox(key="run").value, test.selectbox(key="point").value) == ("out/demo", "p030")


def test_choosing_a_point_changes_map_and_table(out):
    test = _page("front_page.py")
    test.selectbox(key="point").set_value("p002").run()
    assert not test.exception
    layers, points = _layers(_chart(test, 1))
    assert points == {"p002"}
    assert set(layers.values()) == {"w8"}
    assert _ids(_chart(test, 0), "selected") == ["p002"]
    assert "uniform w8" in test.dataframe[0].value.columns
    assert test.query_params["point"] in ("p002", ["p002"])


def test_changing_the_run_starts_with_its_best_point(out):
    test = _page("front_page.py", run="out/demo", point="p002")
    test.selectbox(key="run").set_value("out/second").run()
    assert not test.exception
    best = json.loads((out / "second" / "front.json").read_text())["best"]
    assert test.selectbox(key="point").value == best


def test_broken_and_unfinished_runs_are_told(out):
    test = _page("front_page.py", run="out/half")
    assert "half\\-written" in test.error[0].value
    assert not test.get("plotly_chart")
    assert "no front yet" in _page("front_page.py", run="out/started").info[0].value


def test_a_run_without_points_is_told(out):
    document = MAKE() | {"points": [], "best": None}
    (out / "half" / "front.json").write_text(json.dumps(document))
    assert "no measured point" in _page("front_page.py", run="out/half").info[0].value


def test_a_front_that_is_written_again_is_read_again(out):
    test = _page("front_page.py")
    (out / "demo" / "front.json").write_text(json.dumps(MAKE(points=16)))
    test.run()
    assert not test.exception
    assert len(test.selectbox(key="point").options) == 16


def test_hostile_names_stay_text(out):
    for page in (_page("runs_page.py"), _page("front_page.py", run="out/second")):
        kinds = ("markdown", "caption", "warning", "subheader")
        texts = [element.value for kind in kinds for element in page.get(kind)]
        assert not any("![x](" in text or "<script>" in text for text in texts)


def test_streamlit_finds_no_pages_of_its_own():
    assert not (APP / "pages").exists()
