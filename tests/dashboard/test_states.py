"""Odd states of every page that decides: told in words, never an exception; and the server that goes away."""

import json
import runpy
from pathlib import Path

import bitfront.dashboard
import numpy as np
import pytest
from bitfront.dashboard import PATHS_VARIABLE, SERVER_VARIABLE
from bitfront.dashboard.view import of_columns
from bitfront.service.api import create_app
from bitfront.service.client import Client
from bitfront.service.job_columns import columns_of
from bitfront.service.settings import Settings
from bitfront.store import Access, Queue, Store
from streamlit.testing.v1 import AppTest

APP = Path(bitfront.dashboard.__file__).parent
ROOT = Path(__file__).parents[2]
MAKE = runpy.run_path(str(ROOT / "tests" / "front_documents.py"))["front_document"]
RUNNING = runpy.run_path(str(ROOT / "tests" / "service" / "conftest.py"))["running"]
DECIDE = ["front_page.py", "point_page.py", "trust_page.py", "compare_page.py"]
EVIL = "<script>alert(1)</script> ![x](http://127.0.0.1/x.png) " + "long " * 80
SHOWN = ("markdown", "caption", "warning", "subheader", "info", "success", "error")


def opened(name, client=None, **query):
    test = AppTest.from_file(str(APP / name), default_timeout=60)
    if client is not None:
        test.session_state["bitfront_client"], test.session_state["bitfront_user"] = client, "vic"
    for key, value in query.items():
        test.query_params[key] = value
    test.run()
    assert not test.exception
    return test


def told(test):
    return " ".join(str(element.value) for kind in SHOWN for element in test.get(kind)).replace("\\", "")


@pytest.fixture
def vic(connected):
    with Client(connected.url, connected.tokens["vic"]) as client:
        yield client


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Run folders without a server: a usual run, one point only, nothing feasible, names of all kinds."""
    one = MAKE()
    best = one["points"][0]
    one |= {"points": [best], "best": best["id"]}
    none = MAKE(name="nothing fits") | {"constraints": {"size_mb": 1e-6}, "best": None}
    none["points"] = [point | {"feasible": False} for point in none["points"]]
    strange = MAKE(name=EVIL)
    text = json.dumps(strange).replace("_blocks.0._project_conv", json.dumps(EVIL)[1:-1])
    documents = {"usual": MAKE(), "one": one, "none": none, "strange": json.loads(text)}
    for name, document in documents.items():
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "front.json").write_text(json.dumps(document))
    monkeypatch.setenv(PATHS_VARIABLE, str(tmp_path / "out"))
    monkeypatch.delenv(SERVER_VARIABLE, raising=False)
    return tmp_path / "out"


@pytest.mark.parametrize("name", ["trust_page.py", "compare_page.py"])
@pytest.mark.parametrize("job", ["finished", "queued", "failed", "running", "empty", "starting"])
def test_trust_and_compare_in_every_state(connected, vic, name, job):
    test = opened(name, vic, source=f"job:{connected.jobs[job]}", **{"with": f"job:{connected.jobs[job]}"})
    if job in ("finished", "running"):
        assert test.get("plotly_chart")
        assert "<script" not in " ".join(each.value.replace("\\<", "") for each in test.caption)
    else:
        assert not test.get("plotly_chart")
        assert "othing has been measured" in told(test) or "neither prices nor scores" in told(test)


def test_jobs_on_one_plot(connected, vic):
    keys = [f"job:{connected.jobs[name]}" for name in ("finished", "running")]
    test = opened("compare_page.py", vic, **{"with": keys})
    figure = json.loads(test.get("plotly_chart")[0].proto.spec)
    assert len(figure["data"]) == 2
    table = test.dataframe[0].value
    assert table["points"].tolist()[1] == 19
    assert ((table["hypervolume"] > 0) & (table["hypervolume"] <= 1)).all()
    test.segmented_control(key="compare_split").set_value("holdout").run()
    assert not test.exception


def test_devices_of_the_server(connected, vic):
    test = opened("devices_page.py", vic, device="cpu")
    assert "cpu" in test.dataframe[0].value["device"].tolist()
    assert test.get("plotly_chart")
    assert "measured products" in told(test) or "No kernel has a table" in told(test)
    assert "script" not in told(opened("devices_page.py", vic, device="<script>"))


@pytest.mark.parametrize("name", DECIDE)
@pytest.mark.parametrize("run", ["usual", "one", "none", "strange"])
def test_run_folders_without_a_server(folder, name, run):
    key = f"run:out/{run}"
    test = opened(name, source=key, **{"with": key})
    assert test.get("plotly_chart")
    text = " ".join(str(element.value) for kind in SHOWN for element in test.get(kind))
    assert "<script>" not in text
    assert "![x](" not in text
    if name == "front_page.py" and run == "none":
        assert "40 missing a constraint" in told(test)
        assert "Measured: no configuration meets the budget" in told(test)
    if name == "front_page.py" and run == "one":
        assert "1 point:" in told(test)


def test_devices_without_a_server(folder):
    assert len(opened("devices_page.py").dataframe[0].value) > 1


def test_every_figure_is_told_in_words(folder):
    for name in DECIDE:
        test = opened(name, source="run:out/usual", **{"with": "run:out/usual"})
        assert "points" in told(test) or "layers with weights in" in told(test)
    assert "knee" in told(opened("front_page.py", source="run:out/usual"))


def test_a_job_that_is_gone_is_told(connected, vic):
    assert "job:0123456789ab is not here" in told(opened("front_page.py", vic, source="job:0123456789ab"))
    assert "not among those shown" in told(opened("jobs_page.py", vic, source="job:0123456789ab"))


@pytest.mark.parametrize("name", [*DECIDE, "devices_page.py", "jobs_page.py", "submit_page.py"])
def test_the_server_goes_away_and_comes_back(connected, name, monkeypatch):
    from bitfront.service.client import Unreachable

    with Client(connected.url, connected.tokens["vic"]) as client:
        test = opened(name, client)

        def lost(*_, **__):
            raise Unreachable("no server at http://127.0.0.1:1; start it")

        with monkeypatch.context() as gone:
            for method in ("jobs", "show", "columns", "devices", "device", "tables", "check", "log"):
                gone.setattr(Client, method, lost)
            test.run()
            assert not test.exception
            assert "no server at" in told(test)
            assert any(button.key == "again" for button in test.button)
        test.button(key="again").click().run()
        assert not test.exception
        assert "no server at" not in told(test)


@pytest.mark.parametrize("name", ["front_page.py", "jobs_page.py", "devices_page.py"])
def test_a_void_token_leads_to_the_login(connected, name):
    access = Access(connected.store)
    access.add_user("tim", "viewer")
    try:
        test = opened(name, Client(connected.url, access.new_token("tim")))
        assert "Sign in" not in [title.value for title in test.title]
        access.revoke_tokens("tim")
        test.run()
        assert not test.exception
        assert "Sign in" in [title.value for title in test.title]
        assert "expired or was revoked" in told(test)
        test.text_input(key="token_field").set_value(connected.tokens["vic"])
        next(button for button in test.button if button.label == "Sign in").click().run()
        assert not test.exception
        assert "Sign in" not in [title.value for title in test.title]
    finally:
        access.remove_user("tim")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A running job with 20,000 measured candidates, its server and a token."""
    place = tmp_path_factory.mktemp("large")
    import sys

    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        filled = runpy.run_path(str(ROOT / "benchmarks" / "service_data.py"))["filled"]
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    settings = Settings(store=f"sqlite:///{place}/store.db", outputs=str(place), uploads=str(place))
    store = Store(settings.store)
    job = filled(store, 20_000)
    access = Access(store)
    access.add_user("vic", "viewer")
    with RUNNING(create_app(settings, store)) as port:
        yield store, job, f"http://127.0.0.1:{port}", access.new_token("vic")
    store.close()


def test_twenty_thousand_candidates(large, connected, monkeypatch):
    store, job, url, token = large
    monkeypatch.setenv(SERVER_VARIABLE, url)
    with Client(url, token) as client:
        test = opened("front_page.py", client, source=f"job:{job}")
        figure = json.loads(test.get("plotly_chart")[0].proto.spec)
        drawn = {row[0] for trace in figure["data"] for row in trace.get("customdata", [])}
        assert 2_000 < len(drawn) < 5_000
        view = of_columns(columns_of(store, Queue(store).job(job), 20_000))
        assert {view.ids[row] for row in np.flatnonzero(view.pareto)} <= drawn
        assert f"3,000 of {int((~view.pareto).sum()):,} are drawn" in told(test)
        slider = test.slider[0]
        slider.set_value(slider.min + 0.5 * (slider.max - slider.min)).run()
        assert not test.exception
        assert "Exact optimum of the scores" in told(test)
        assert opened("trust_page.py", client, source=f"job:{job}").get("plotly_chart")
