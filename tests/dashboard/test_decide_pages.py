"""The pages Front and Point on real jobs in every state: no exception, the right point, kept over pages."""

import json
from pathlib import Path

import bitfront.dashboard
import pytest
from bitfront.service.client import Client
from streamlit.testing.v1 import AppTest

APP = Path(bitfront.dashboard.__file__).parent


@pytest.fixture
def page(connected):
    """Open a page signed in as vic, with a link to a job of the server."""
    clients = []

    def open_page(name, job=None, **query):
        test = AppTest.from_file(str(APP / name), default_timeout=60)
        clients.append(Client(connected.url, connected.tokens["vic"]))
        test.session_state["bitfront_client"], test.session_state["bitfront_user"] = clients[-1], "vic"
        if job is not None:
            test.query_params["source"] = f"job:{connected.jobs[job]}"
        for key, value in query.items():
            test.query_params[key] = value
        test.run()
        assert not test.exception
        return test

    yield open_page
    for client in clients:
        client.close()


def spec(test, index=0):
    return json.loads(test.get("plotly_chart")[index].proto.spec)


@pytest.mark.parametrize("name", ["front_page.py", "point_page.py"])
@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("queued", "neither prices nor scores"),
        ("starting", "neither prices nor scores"),
        ("failed", "neither prices nor scores"),
        ("empty", "othing has been measured"),
    ],
)
def test_what_cannot_be_shown_is_said(page, name, job, said):
    test = page(name, job)
    told = " ".join(each.value for each in [*test.info, *test.error])
    assert said in told
    assert not test.get("plotly_chart")


def test_the_front_of_a_finished_job(page, connected):
    test = page("front_page.py", "finished")
    figure = spec(test)
    ids = {row[0] for trace in figure["data"] for row in trace.get("customdata", [])}
    assert {"uniform-w2", "uniform-w4", "uniform-w8"} <= ids
    with Client(connected.url, connected.tokens["vic"]) as client:
        columns = client.columns(connected.jobs["finished"])
    assert ids == set(columns["ids"])
    assert test.session_state["point"] in ids
    assert any(trace.get("name") == "best" for trace in figure["data"])


def test_a_running_job_with_html_in_its_name(page):
    test = page("front_page.py", "running")
    assert len({row[0] for trace in spec(test)["data"] for row in trace.get("customdata", [])}) == 19
    for element in [*test.markdown, *test.caption, *test.subheader]:
        assert "<script" not in element.value.replace("\\<", "")


def test_a_slider_answers_with_the_exact_optimum(page):
    test = page("front_page.py", "finished")
    slider = next(each for each in test.slider if each.label.startswith("size"))
    slider.set_value(slider.min + 0.4 * (slider.max - slider.min)).run()
    assert not test.exception
    assert any("Exact optimum of the scores" in each.value for each in test.info)
    assert any(trace.get("name") == "best within the budgets" for trace in spec(test)["data"])
    slider = next(each for each in test.slider if each.label.startswith("size"))
    slider.set_value(slider.min).run()
    assert not test.exception


def test_the_chosen_point_is_kept_on_the_next_page(page):
    test = page("point_page.py", "finished", point="uniform-w4")
    assert test.session_state["point"] == "uniform-w4"
    squares = [t for t in spec(test)["data"] if t["type"] == "scatter"]
    assert {cell[0] for trace in squares for cell in trace["customdata"]} == {"uniform-w4"}
    assert {trace["name"] for trace in squares} >= {"4 bit"}
    assert len(test.code) == 2
    assert "uniform-w4" in test.code[0].value
    compile(test.code[1].value.replace("inputs", "None"), "lines", "exec")


def test_a_link_to_nothing_falls_back(page):
    test = page("point_page.py", "finished", point="<script>")
    assert "script" not in test.session_state["point"]
    assert spec(test)["data"]
