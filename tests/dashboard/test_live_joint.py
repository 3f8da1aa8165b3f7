"""Pages of a job that searches architectures, while it runs: its front, its networks, and what it does not have."""

import json
import runpy
from pathlib import Path

import bitfront.dashboard
import numpy as np
import pytest
from bitfront.architecture import Genome
from bitfront.dashboard import PATHS_VARIABLE, SERVER_VARIABLE, reproduction
from bitfront.dashboard.front_summary import headline
from bitfront.dashboard.live_joint import of_live_joint
from bitfront.errors import Conflict
from bitfront.service.api import create_app
from bitfront.service.client import Client
from bitfront.store import Access
from streamlit.testing.v1 import AppTest

APP = Path(bitfront.dashboard.__file__).parent
SERVICE = Path(__file__).parents[1] / "service"
LIVE = runpy.run_path(str(SERVICE / "test_joint_live.py"))
RUNNING = runpy.run_path(str(SERVICE / "conftest.py"))["running"]
SHOWN = ("markdown", "caption", "warning", "subheader", "info", "success", "error")


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """A server with jobs ``running`` (some measured), ``begun`` (the float network alone) and ``queued``; a token."""
    with LIVE["joint_service"](tmp_path_factory.mktemp("live_joint")) as service:
        access = Access(service.store)
        access.add_user("vic", "viewer")
        jobs = {"begun": service.submit(name="begun", data={**LIVE["JOB"]["data"], "batch": 8})}
        service.work(LIVE["Watched"](lambda: None, last=1), held=True)
        jobs["running"] = service.submit(name="live")
        service.work(LIVE["Watched"](lambda: None, last=14), held=True)
        jobs["queued"] = service.submit(name="queued")
        with RUNNING(create_app(service.settings, service.store)) as port:
            yield f"http://127.0.0.1:{port}", access.new_token("vic"), jobs


@pytest.fixture
def client(joint):
    with Client(*joint[:2]) as client:
        yield client


@pytest.fixture
def opened(joint, client, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv(SERVER_VARIABLE, joint[0])
    monkeypatch.setenv(PATHS_VARIABLE, "")

    def open_page(name, job, **query):
        test = AppTest.from_file(str(APP / name), default_timeout=60)
        test.session_state["bitfront_client"], test.session_state["bitfront_user"] = client, "vic"
        for key, value in {"source": f"job:{joint[2][job]}", **query}.items():
            test.query_params[key] = value
        test.run()
        assert not test.exception
        return test

    return open_page


def told(test):
    return " ".join(str(element.value) for kind in SHOWN for element in test.get(kind)).replace("\\", "")


def test_the_view_says_what_the_server_said(client, joint):
    found = client.front_document(joint[2]["running"], networks=True)
    view = of_live_joint(found, "live", "nets")
    assert len(view) == len(found["points"]) > 3
    assert len({point["architecture_digest"] for point in found["points"]}) > 1
    for row, point in enumerate(found["points"]):
        assert view.config(row) == point["config"]
        assert view.architectures[row] == point["architecture"]
        assert view.own(row).config(row) == point["config"]
        layers = found["networks"][point["architecture_digest"]]
        assert [site.weight_shape for site in view.own(row).sites] == [tuple(layer["weight_shape"]) for layer in layers]
        assert view.quality["validation"][row, 0] == point["measured"]["validation"]["value"]
        assert np.isnan(view.quality["holdout"][row]).all()
        assert view.prices["size_mb"][row, 0] == point["prices"]["size_mb"]["value"]
        assert (view.pareto[row], view.feasible[row]) == (point["pareto"], point["feasible"])
        lines = reproduction.python_lines("job:x", view, row)
        genome, _ = json.JSONDecoder().raw_decode(lines, lines.index("from_dict(") + len("from_dict("))
        assert Genome.from_dict(genome).digest == point["digest"]
    assert f"{found['measured']} of {found['proposed']} candidates measured, {len(view)} of them" in headline(view)
    assert "bitfront export" not in reproduction.command_lines("job:x", view, 0)


def test_the_front_page_shows_the_points_so_far(opened, client, joint):
    test = opened("front_page.py", "running")
    figure = json.loads(test.get("plotly_chart")[0].proto.spec)
    ids = {str(data[0]) for trace in figure["data"] for data in trace.get("customdata") or []}
    assert {point["id"] for point in client.front_document(joint[2]["running"])["points"]} <= ids
    assert "on the front or uniform" in told(test)
    assert "running" in told(test)


def test_a_point_has_its_own_network_and_no_button_that_would_be_refused(opened, client, joint):
    points = client.front_document(joint[2]["running"])["points"]
    small = next(point for point in points if point["architecture"] != points[-1]["architecture"])
    test = opened("point_page.py", "running", point=small["id"])
    assert small["architecture"] in [frame.value.iloc[0].to_dict() for frame in test.dataframe if len(frame.value) == 1]
    assert "a server exports the best point alone" in told(test)
    assert "export" not in [button.key for button in test.button]


@pytest.mark.parametrize("name", ["trust_page.py", "compare_page.py", "jobs_page.py"])
@pytest.mark.parametrize("job", ["running", "begun", "queued"])
def test_the_other_pages_do_not_stumble(opened, name, job, joint):
    opened(name, job, **{"with": f"job:{joint[2][job]}"})


def test_no_growth_is_told_of_a_part_of_the_points(opened):
    test = opened("trust_page.py", "running")
    assert "once the job has ended" in told(test)
    assert "of the box" not in told(test)


@pytest.mark.parametrize("name", ["front_page.py", "point_page.py"])
@pytest.mark.parametrize(
    ("job", "what"), [("begun", "no quantized network has been measured yet"), ("queued", "nothing has been measured")]
)
def test_before_there_is_a_point_the_pages_say_so(opened, name, job, what):
    test = opened(name, job)
    assert what in told(test)
    assert not test.get("plotly_chart")


def test_no_view_without_a_point(client, joint):
    with pytest.raises(Conflict, match="is queued: nothing has been measured yet"):
        of_live_joint(client.front_document(joint[2]["queued"], networks=True), "queued", "nets")


def test_the_frame_of_the_client_has_the_architectures(client, joint):
    frame = client.front(joint[2]["running"])
    assert [set(each) for each in frame["architecture"]] == [{"width", "depth"}] * len(frame)
    assert frame["pareto"].any()
