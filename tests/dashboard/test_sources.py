"""What the pages can look at: jobs with the token of a person, and runs in folders."""

import numpy as np
from streamlit.testing.v1 import AppTest


def script():
    import streamlit as st
    from bitfront.dashboard.sources import load_view, sources
    from bitfront.dashboard.text import plain

    found = sources()
    st.session_state["found"] = found
    st.session_state["views"] = {source.key: load_view(source.key) for source in found}
    st.write(plain(str(len(found))))


def test_nothing_is_shown_before_the_login(connected):
    page = AppTest.from_function(script, default_timeout=60).run()
    assert not page.exception
    assert page.title[0].value == "Sign in"
    page.text_input(key="token_field").set_value("bf_wrong")
    page.button[0].click().run()
    assert "does not accept" in page.error[0].value
    assert "found" not in page.session_state
    assert not page.exception


def test_a_token_opens_the_jobs(connected):
    page = AppTest.from_function(script, default_timeout=60).run()
    page.text_input(key="token_field").set_value(connected.tokens["vic"])
    page.button[0].click().run()
    assert not page.exception
    keys = {source.key.partition(":")[2]: source for source in page.session_state["found"]}
    assert set(connected.jobs.values()) <= set(keys)  # other tests submit jobs of their own
    views = {name: page.session_state["views"][f"job:{key}"] for name, key in connected.jobs.items()}
    finished, reason = views["finished"]
    assert reason == ""
    assert finished.best in finished.rows
    assert np.isfinite(finished.predicted[:, 0]).any()
    running, _ = views["running"]
    assert len(running) == 19  # the float model is no point
    assert running.best is None
    empty, _ = views["empty"]
    assert len(empty) == 0
    assert empty.prices["size_mb"].shape == (0, 3)
    for name in ("queued", "starting", "failed"):
        view, reason = views[name]
        assert view is None
        assert "neither prices nor scores yet" in reason


def test_without_a_server_there_is_no_login(monkeypatch, tmp_path):
    from bitfront.dashboard import PATHS_VARIABLE, SERVER_VARIABLE

    monkeypatch.delenv(SERVER_VARIABLE, raising=False)
    monkeypatch.setenv(PATHS_VARIABLE, str(tmp_path))
    page = AppTest.from_function(script, default_timeout=60).run()
    assert not page.exception
    assert page.session_state["found"] == []


def test_exports_have_no_front_and_are_no_sources(connected):
    from bitfront.service.client import Client
    from bitfront.service.export_order import submission
    from bitfront.store import Queue

    queue = Queue(connected.store)
    asked = submission(connected.store, queue.job(connected.jobs["finished"]), "best", "onnx", owner="sam", key=None)
    made, _ = queue.submit(asked)
    with Client(connected.url, connected.tokens["sam"]) as client:
        kinds = {job.id: job.kind for job in client.jobs()}
        assert kinds[made.id] == "export"
        assert kinds[connected.jobs["finished"]] == "search"
        page = AppTest.from_function(script, default_timeout=60)
        page.session_state["bitfront_client"] = client
        page.run()
        assert f"job:{made.id}" not in {source.key for source in page.session_state["found"]}
        client.cancel(made.id)
