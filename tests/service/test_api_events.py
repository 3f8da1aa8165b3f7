"""Event streams and logs: in order, resumed without loss or repetition, ended with the job, closed with the client."""

import json
import socket
import threading
import time

import httpx
import pytest
import uvicorn
from bitfront.service.api import create_app
from bitfront.service.api import events as streams
from bitfront.service.settings import Settings
from bitfront.store import Access, Claims, Events, Queue, Submission
from fastapi.testclient import TestClient


@pytest.fixture
def viewer(store):
    access = Access(store)
    access.add_user("vic", "viewer")
    return {"Authorization": f"Bearer {access.new_token('vic')}"}


@pytest.fixture
def http(store, viewer):
    return TestClient(create_app(Settings(store=store.url), store), base_url="http://127.0.0.1:8765", headers=viewer)


@pytest.fixture
def ended(store):
    """A job that told 450 lines, more than two pages, and ended."""
    job, _ = Queue(store).submit(Submission("j", {}, owner="vic"))
    lease = Claims(store).claim("w")
    events = Events(store)
    events.add(job.id, [("stage", {"stage": "search", "state": "started", "total": 3})])
    events.add(job.id, [("log", {"line": f"line {index}"}) for index in range(450)])
    events.add(job.id, [("evaluation", {"value": float("nan")}), ("progress", {"status": "half way"})])
    events.add(job.id, [("stage", {"stage": "search", "state": "done", "seconds": 1.5})])
    Claims(store).finish(lease, "succeeded", "Done", "best p01")
    return job.id


def messages(text):
    """Server-sent events as (id, event, data); comments and retry fields are left out."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            number = int(fields["id"]) if "id" in fields else None
            found.append((number, fields["event"], json.loads(fields["data"])))
    return found


def test_a_stream_tells_all_in_order_and_ends_with_the_job(http, ended):
    answer = http.get(f"/v1/jobs/{ended}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = messages(answer.text)
    numbered = [message for message in told if message[0] is not None]
    assert [number for number, _, _ in numbered] == sorted({number for number, _, _ in numbered})
    lines = [data["line"] for _, kind, data in numbered if kind == "log"]
    assert lines == [f"line {index}" for index in range(450)]
    assert told[-1][1] == "end"
    assert told[-1][2]["state"] == "succeeded"
    assert [data["value"] for _, kind, data in told if kind == "evaluation"] == [None]  # NaN is no JSON


def test_a_reader_that_comes_back_misses_nothing_and_hears_nothing_twice(http, ended):
    every = [number for number, _, _ in messages(http.get(f"/v1/jobs/{ended}/events").text) if number is not None]
    for cut in (1, 200, 399, 400, 401, len(every) - 1, len(every)):
        answer = http.get(f"/v1/jobs/{ended}/events", headers={"Last-Event-ID": str(every[cut - 1])})
        rest = [number for number, _, _ in messages(answer.text) if number is not None]
        assert rest == every[cut:]
    after = http.get(f"/v1/jobs/{ended}/events", params={"after": every[300]}).text
    assert [number for number, _, _ in messages(after) if number is not None] == every[301:]


@pytest.mark.parametrize("last", ["-1", "x", str(2**70), "1.5"])
def test_an_id_that_cannot_be_is_refused(http, ended, last):
    assert http.get(f"/v1/jobs/{ended}/events", headers={"Last-Event-ID": last}).status_code == 422


def test_streams_of_unknown_jobs_are_not_found(http):
    assert http.get("/v1/jobs/none/events").status_code == 404
    assert http.get("/v1/jobs/none/log").status_code == 404


def test_the_log_reads_like_the_file(http, ended):
    lines = http.get(f"/v1/jobs/{ended}/log").text.splitlines()
    told = [line.split(" ", 1)[1] for line in lines]
    assert told[:2] == ["search: started (3 steps)", "line 0"]
    assert told[-2:] == ["half way", "search: done in 1.5 s"]
    assert len(told) == 453


def test_the_log_is_structured_where_that_is_asked_for(http, ended):
    answer = http.get(f"/v1/jobs/{ended}/log", params={"structured": True})
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["kind"] for row in rows[-4:]] == ["log", "evaluation", "progress", "stage"]
    later = http.get(f"/v1/jobs/{ended}/log", params={"structured": True, "after": rows[-2]["id"]}).text
    assert [json.loads(line) for line in later.splitlines()] == rows[-1:]


@pytest.fixture
def server(store):
    """A real server, for what needs connections."""
    app = create_app(Settings(store=store.url, most_streams=2), store)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    yield app.state.bitfront, f"http://127.0.0.1:{port}"
    app.state.bitfront.stopping.set()
    server.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()


def until(true, seconds=15.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


def test_a_running_job_is_told_as_it_goes(server, store, viewer):
    _, url = server
    job, _ = Queue(store).submit(Submission("j", {}, owner="vic"))
    heard = []

    def listen():
        with httpx.stream("GET", f"{url}/v1/jobs/{job.id}/events", headers=viewer, timeout=30) as answer:
            heard.extend(answer.iter_lines())

    thread = threading.Thread(target=listen)
    thread.start()
    until(lambda: any('"queued"' in line for line in heard))
    claims = Claims(store)
    lease = claims.claim("w")
    until(lambda: any('"running"' in line for line in heard))
    Events(store).add(job.id, [("log", {"line": "hello"})])
    until(lambda: any("hello" in line for line in heard))
    claims.finish(lease, "failed", "Broken", "it broke")
    thread.join(timeout=15)
    assert not thread.is_alive()
    assert heard.count("event: end") == 1
    assert sum("hello" in line for line in heard) == 1


def test_a_client_that_leaves_is_noticed_and_streams_are_bounded(server, store, viewer):
    state, url = server
    job, _ = Queue(store).submit(Submission("j", {}, owner="vic"))
    path = f"{url}/v1/jobs/{job.id}/events"
    with httpx.Client(headers=viewer, timeout=30) as client:
        with client.stream("GET", path) as one, client.stream("GET", path) as two:
            lines = [one.iter_lines(), two.iter_lines()]  # what is no longer named is closed
            assert [next(each) for each in lines] == ["retry: 2000"] * 2
            assert state.open_streams == 2
            full = client.get(path)
            assert (full.status_code, full.headers["Retry-After"]) == (429, "10")
        until(lambda: state.open_streams == 0)
        assert "bitfront_event_streams 0.0" in client.get(f"{url}/metrics").text


def test_streams_end_when_the_server_stops_and_hold_nothing_up(server, store, viewer):
    state, url = server
    job, _ = Queue(store).submit(Submission("j", {}, owner="vic"))
    with httpx.stream("GET", f"{url}/v1/jobs/{job.id}/events", headers=viewer, timeout=30) as answer:
        lines = answer.iter_lines()
        next(lines)
        state.stopping.set()
        rest = list(lines)
    assert "event: end" not in rest


def test_many_streams_leave_room_for_other_requests(server, store, viewer, monkeypatch):
    """The database of the streams is slow; the other routes do not wait for them."""
    _, url = server
    job, _ = Queue(store).submit(Submission("j", {}, owner="vic"))
    slow = threading.Event()
    look = streams._look
    monkeypatch.setattr(streams, "_look", lambda *asked: (slow.wait(10), look(*asked))[1])
    with httpx.Client(headers=viewer, timeout=30) as client:
        path = f"{url}/v1/jobs/{job.id}/events"
        with client.stream("GET", path) as one, client.stream("GET", path) as two:
            assert (one.status_code, two.status_code) == (200, 200)
            assert client.get(f"{url}/v1/jobs").status_code == 200
            slow.set()


def test_a_stream_outlives_a_database_that_is_away(server, store, viewer, monkeypatch):
    from sqlalchemy.exc import OperationalError

    _, url = server
    job, _ = Queue(store).submit(Submission("j", {}, owner="vic"))
    look, failures = streams._look, []

    def away(*asked):
        if len(failures) < 2:
            failures.append(1)
            raise OperationalError("SELECT", {}, Exception("server closed the connection"))
        return look(*asked)

    monkeypatch.setattr(streams, "_look", away)
    monkeypatch.setattr(streams, "_EVERY", 0.05)
    with httpx.stream("GET", f"{url}/v1/jobs/{job.id}/events", headers=viewer, timeout=30) as answer:
        for line in answer.iter_lines():
            if line == "event: job":
                break
        else:
            pytest.fail("the stream ended")
    assert len(failures) == 2


def test_a_silent_stream_gives_signs_of_life(server, store, viewer, monkeypatch):
    monkeypatch.setattr(streams, "_ALIVE", 0.1)
    monkeypatch.setattr(streams, "_EVERY", 0.05)
    _, url = server
    job, _ = Queue(store).submit(Submission("j", {}, owner="vic"))
    with httpx.stream("GET", f"{url}/v1/jobs/{job.id}/events", headers=viewer, timeout=30) as answer:
        assert any(line == ": alive" for line in answer.iter_lines())
