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
    assert "There is no job and no run yet" in _page("front_page.py").info[0].value


def test_front_opens_the_best_point(out):
    test = _page("front_page.py")
    assert test.selectbox(key="source_box").value == "run:out/demo"
    assert test.session_state["point"] == "p030"
    assert _ids(_chart(test, 0), "best") == ["p030"]
    assert _ids(_chart(test, 0), "selected") == ["p030"]


def test_a_link_chooses_run_and_point(out):
    test = _page("point_page.py", source="run:out/second", point="p005")
    assert test.selectbox(key="source_box").value == "run:out/second"
    assert test.selectbox(key="point_box").value == "p005"
    assert _map_points(_chart(test, 0)) == {"p005"}


@pytest.mark.parametrize("query", [{"source": "run:../../etc"}, {"source": "run:out/demo", "point": "<b>"}])
def test_a_wrong_link_falls_back(out, query):
    test = _page("point_page.py", **query)
    assert (test.selectbox(key="source_box").value, test.selectbox(key="point_box").value) == ("run:out/demo", "p030")


def test_choosing_a_point_changes_map_and_table(out):
    test = _page("point_page.py")
    test.selectbox(key="point_box").set_value("p002").run()
    assert not test.exception
    assert _map_points(_chart(test, 0)) == {"p002"}
    assert "chosen: uniform w8" in test.dataframe[0].value.columns
    assert test.query_params["point"] in ("p002", ["p002"])
    config = json.loads((out / "demo" / "front.json").read_text())["points"][2]["config"]
    table = next(each.value for each in test.dataframe if "format" in each.value.columns)
    assert dict(zip(table["layer"], table["format"], strict=True)) == config


def test_changing_the_run_starts_with_its_best_point(out):
    test = _page("point_page.py", source="run:out/demo", point="p002")
    test.selectbox(key="source_box").set_value("run:out/second").run()
    assert not test.exception
    best = json.loads((out / "second" / "front.json").read_text())["best"]
    assert test.selectbox(key="point_box").value == best


def test_broken_and_unfinished_runs_are_told(out):
    test = _page("front_page.py", source="run:out/half")
    assert "half\\-written" in test.error[0].value
    assert not test.get("plotly_chart")
    assert "stopped before the first front" in _page("front_page.py", source="run:out/started").info[0].value


def test_a_run_without_points_is_told(out):
    document = MAKE() | {"points": [], "best": None}
    (out / "half" / "front.json").write_text(json.dumps(document))
    for name in ("front_page.py", "point_page.py"):
        assert "othing has been measured" in _page(name, source="run:out/half").info[0].value


def test_a_front_that_is_written_again_is_read_again(out):
    test = _page("point_page.py")
    (out / "demo" / "front.json").write_text(json.dumps(MAKE(points=16)))
    test.run()
    assert not test.exception
    assert len(test.selectbox(key="point_box").options) == 16


def test_hostile_names_stay_text(out):
    for page in (
        _page("runs_page.py"),
        *(_page(name, source="run:out/second") for name in ("front_page.py", "point_page.py")),
    ):
        kinds = ("markdown", "caption", "warning", "subheader", "info", "success")
        texts = [element.value for kind in kinds for element in page.get(kind)]
        assert not any("![x](" in text or "<script>" in text for text in texts)


def _map_points(chart):
    squares = [trace for trace in chart["data"] if trace["type"] == "scatter"]
    return {cell[0] for trace in squares for cell in trace["customdata"]}


def test_streamlit_finds_no_pages_of_its_own():
    assert not (APP / "pages").exists()
