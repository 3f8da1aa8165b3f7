"""The pages Jobs and Submit on a real server: what each state offers, refusals, forms, YAML with mistakes."""

from pathlib import Path

import bitfront.dashboard
import pytest
import yaml
from bitfront.dashboard.job_form import Form, job_of, marked_lines, yaml_of
from bitfront.dashboard.job_model import ACTIONS, STATES, duration, fraction, stage_text
from bitfront.service.client import Client
from bitfront.service.client_views import JobView
from bitfront.service.job import parse_job
from streamlit.testing.v1 import AppTest

APP = Path(bitfront.dashboard.__file__).parent


@pytest.fixture
def page(connected):
    """Open a page signed in as somebody."""
    clients = []

    def open_page(name, who="sam", job=None):
        test = AppTest.from_file(str(APP / name), default_timeout=60)
        clients.append(Client(connected.url, connected.tokens[who]))
        test.session_state["bitfront_client"], test.session_state["bitfront_user"] = clients[-1], who
        if job is not None:
            test.query_params["source"] = f"job:{connected.jobs[job]}"
        test.run()
        assert not test.exception
        return test

    yield open_page
    for client in clients:
        client.close()


@pytest.mark.parametrize("job", ["finished", "queued", "failed", "running", "starting", "empty"])
def test_every_state_offers_what_may_be_asked(page, connected, job):
    test = page("jobs_page.py", job=job)
    table = test.dataframe[0].value.set_index("id")
    assert set(connected.jobs.values()) <= set(table.index)
    with Client(connected.url, connected.tokens["sam"]) as client:
        state = client.show(connected.jobs[job]).state
    offered = {button.label.lower() for button in test.button if button.key.startswith("act/")}
    assert offered == set(ACTIONS[state])
    if job == "failed":
        assert "no weights" in test.code[0].value
        assert not any("<script" in each.value.replace("\\<", "") for each in test.markdown)


def test_a_job_of_somebody_else_is_refused_by_the_server(page, connected):
    test = page("jobs_page.py", who="sam", job="queued")  # ada's
    test.button(key="act/cancel").click().run()
    assert not test.exception
    assert any("belongs to ada" in error.value for error in test.error)
    with Client(connected.url, connected.tokens["ada"]) as client:
        assert client.show(connected.jobs["queued"]).state == "queued"


def test_pause_and_resume(page, connected):
    test = page("jobs_page.py", who="ada", job="queued")
    test.button(key="act/pause").click().run()
    assert {button.key for button in test.button} >= {"act/resume", "act/cancel"}
    test.button(key="act/resume").click().run()
    assert {button.key for button in test.button} >= {"act/pause", "act/cancel"}


def test_filters(page, connected):
    test = page("jobs_page.py")
    test.text_input(key="filter_owner").set_value("ada").run()
    assert test.dataframe[0].value["id"].tolist() == [connected.jobs["queued"]]
    test.text_input(key="filter_owner").set_value("")
    test.multiselect(key="filter_states").set_value(["failed"]).run()
    assert test.dataframe[0].value["id"].tolist() == [connected.jobs["failed"]]
    test.text_input(key="filter_name").set_value("no job is called so").run()
    assert test.info[0].value == "No job passes these filters."


def test_the_form_makes_a_job_that_the_server_takes(page, connected):
    test = page("submit_page.py")
    assert test.success[0].value.startswith("The server would take it")
    job = yaml.safe_load(test.code[0].value)
    parse_job(job)
    test.multiselect(key="form_formats").set_value([]).run()
    assert not test.exception
    assert any("formats" in error.value for error in test.error)
    assert not test.get("button") or all(button.key != "submit" for button in test.button)


def test_mistakes_in_yaml_are_marked(page):
    test = page("submit_page.py")
    test.segmented_control(key="submit_way").set_value("YAML").run()
    test.text_area(key="yaml_text").set_value("model: {zoo: digits_resnet20}\nserch: {}\n").run()
    assert not test.exception
    assert "line 2, column 1" in test.error[0].value.replace("\\", "")
    assert "→   2  serch: {}" in test.code[0].value


def test_a_viewer_cannot_submit(page):
    test = page("submit_page.py", who="vic")
    assert any("viewer" in error.value for error in test.error)
    assert all(button.key != "submit" for button in test.button)


def test_submitting_queues_the_job(page, connected):
    test = page("submit_page.py", who="ada")
    test.segmented_control(key="submit_way").set_value("YAML").run()
    text = "name: from_the_page\nmodel: {zoo: digits_resnet20}\nsearch: {evaluations: 9}\n"
    test.text_area(key="yaml_text").set_value(text).run()
    test.button(key="submit").click().run()
    with Client(connected.url, connected.tokens["ada"]) as client:
        made = list(client.jobs(name="from_the_page"))
        assert len(made) == 1
        client.cancel(made[0].id)


def test_forms_are_jobs():
    plain = job_of(Form("n", "minilm_l6", budgets={"size_mb": 9.0}, target=None))
    assert parse_job(yaml.safe_load(yaml_of(plain))).constraints == {"size_mb": 9.0}
    digest = "a" * 64
    sent = job_of(Form("", digest, exported=True, data={"calibration": digest, "validation": digest}))
    assert parse_job(sent).model.exported == f"upload:{digest}"
    lines = marked_lines("a: 1\nb: 2", [{"line": 2, "message": "no"}, {"line": None, "message": "all"}]).splitlines()
    assert lines == ["! all", "    1  a: 1", "→   2  b: 2", "       ^ no"]


def test_words_for_progress():
    assert set(ACTIONS) == set(STATES)
    assert duration(3725.4) == "1:02:05"
    assert duration(None) == ""
    job = JobView(
        "1", "n", "running", progress={"evaluated": 5, "evaluations": 20, "stage": "search", "eta_seconds": 80}
    )
    assert fraction(job) == 0.25
    assert stage_text(job) == "search, about 0:01:20 left"
    assert fraction(JobView("1", "n", "queued")) is None
