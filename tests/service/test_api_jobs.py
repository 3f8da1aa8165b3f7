"""Jobs over HTTP: submission, lists by pages and filters, single views, what may be asked of a job in each state."""

import json
import threading

import pytest
import yaml
from bitfront.service.api import create_app
from bitfront.service.settings import Settings
from bitfront.store import Access, Claims, Queue, Store, Submission, Workers
from fastapi.testclient import TestClient

JOB = {
    "name": "digits",
    "model": {"zoo": "digits_resnet20"},
    "data": {"zoo": "digits_resnet20"},
    "objectives": ["quality", "size_mb"],
    "search": {"evaluations": 8, "seed": 1},
}


@pytest.fixture
def store(request, tmp_path):
    """SQLite; tests that use the fixture ``url`` run on PostgreSQL too."""
    both = "url" in request.fixturenames
    store = Store(request.getfixturevalue("url") if both else f"sqlite:///{tmp_path}/store.db")
    yield store
    store.close()


@pytest.fixture
def http(store):
    access = Access(store)
    access.add_user("sam", "submitter")
    token = {"Authorization": f"Bearer {access.new_token('sam')}"}
    settings = Settings(store=store.url, requests_per_minute=100_000)
    return TestClient(create_app(settings, store), base_url="http://127.0.0.1:8765", headers=token)


@pytest.mark.usefixtures("url")
def test_a_job_is_queued_as_yaml_or_json_and_shown_in_full(http, store):
    for content in (json.dumps(JOB), yaml.safe_dump(JOB)):
        answer = http.post("/v1/jobs", content=content, params={"priority": 3, "attempts": 2, "seconds": 600})
        assert answer.status_code == 201, answer.text
        made = answer.json()
        told = (made["name"], made["state"], made["owner"], made["priority"], made["most_attempts"])
        assert told == ("digits", "queued", "sam", 3, 2)
        assert made["most_seconds"] == 600
        shown = http.get(f"/v1/jobs/{made['id']}").json()
        assert shown["specification"]["search"]["evaluations"] == 8
        assert [each["type"] for each in shown["conditions"]] == ["Queued"]
        assert http.get(f"/v1/jobs/{made['id']}/conditions").json() == shown["conditions"]
        assert {name: shown[name] for name in made} == made
    line = Access(store).trail(1)[0]
    assert (line.user, line.action, line.target, line.outcome, line.detail) == (
        "sam", "submit", made["id"], "allowed", "digits",
    )  # fmt: skip


@pytest.mark.usefixtures("url")
def test_a_key_makes_one_job_of_many_submissions_at_once(http, store):
    answers = []

    def submit():
        answers.append(http.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "k-1"}))

    threads = [threading.Thread(target=submit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert Queue(store).counts() == {"queued": 1}
    other = http.post("/v1/jobs", json={**JOB, "name": "else"}, headers={"Idempotency-Key": "k-1"})
    assert (other.status_code, other.json()["error"]["type"]) == (409, "Conflict")


@pytest.mark.parametrize(
    ("job", "status", "told"),
    [
        ({**JOB, "unknown": 1}, 422, "unknown"),
        ({**JOB, "model": {"zoo": "none_such"}}, 422, "none_such"),
        ({**JOB, "model": {"factory": "os:system"}, "data": JOB["data"]}, 403, "os"),
        ({**JOB, "device": {"name": "no-such-gpu"}}, 422, "no-such-gpu"),
        ({**JOB, "search": {"evaluations": 10**9}}, 422, "evaluations"),
        ([1, 2], 422, "must hold keys"),
    ],
)
def test_a_job_that_cannot_be_is_refused_with_the_reason_and_an_audit_line(http, store, job, status, told):
    answer = http.post("/v1/jobs", json=job)
    assert answer.status_code == status, answer.text
    message = answer.json()["error"]["message"]
    assert told in message
    assert "\n" not in message
    line = Access(store).trail(1)[0]
    assert (line.action, line.outcome) == ("submit", "refused")
    assert told in line.detail
    assert Queue(store).counts() == {}


@pytest.mark.parametrize("query", [{"priority": 1000}, {"attempts": 0}, {"seconds": 0}, {"seconds": "nan"}])
def test_limits_out_of_range_are_refused(http, query):
    assert http.post("/v1/jobs", json=JOB, params=query).status_code == 422


@pytest.mark.usefixtures("url")
def test_pages_hold_every_job_once_the_newest_first(http, store):
    queue = Queue(store)
    made = [queue.submit(Submission(f"job-{i % 3}", {}, owner=("sam", "sue")[i % 2]))[0].id for i in range(23)]
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page = http.get("/v1/jobs", params={"limit": 5, **({"cursor": cursor} if cursor else {})}).json()
        seen += [job["id"] for job in page["jobs"]]
        cursor, pages = page["cursor"], pages + 1
    assert pages == 5
    assert seen == made[::-1]
    assert page["counts"] == {"queued": 23}
    exact = http.get("/v1/jobs", params={"limit": 23}).json()
    assert exact["cursor"] is None


@pytest.mark.usefixtures("url")
def test_lists_are_filtered_by_state_owner_and_name(http, store):
    queue = Queue(store)
    a = queue.submit(Submission("alpha_1", {}, owner="sam"))[0].id
    b = queue.submit(Submission("beta%", {}, owner="sue"))[0].id
    c = queue.submit(Submission("alpha_2", {}, owner="sue"))[0].id
    queue.pause(b)
    queue.cancel(c)

    def ids(**query):
        return {job["id"] for job in http.get("/v1/jobs", params=query).json()["jobs"]}

    assert ids() == {a, b, c}
    assert ids(state="queued") == {a}
    assert ids(state=["queued", "paused"]) == {a, b}
    assert ids(owner="sue") == {b, c}
    assert ids(owner="sue", state="cancelled") == {c}
    assert ids(name="alpha") == {a, c}
    assert ids(name="%") == {b}
    assert ids(name="_") == {a, c}


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(
    "query",
    [
        *({"limit": value} for value in (0, 501)),
        *({"cursor": value} for value in ("x", "nan_1", "1e999_a", "1.0_")),
        *({"state": "odd"}, {"name": "a\x00b"}, {"owner": "\x00"}),
    ],
)
def test_questions_that_cannot_be_are_refused(http, query):
    answer = http.get("/v1/jobs", params=query)
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "InvalidInput")


@pytest.mark.parametrize("path", ["", "/conditions", "/artifacts", "/log", "/front", "/candidates", "/events"])
def test_unknown_jobs_are_not_found(http, path):
    answer = http.get(f"/v1/jobs/0123456789ab{path}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "NotFound")


@pytest.mark.parametrize(
    ("state", "verb", "status", "after"),
    [
        ("queued", "pause", 200, "paused"),
        ("queued", "cancel", 200, "cancelled"),
        ("queued", "resume", 409, "queued"),
        ("queued", "retry", 409, "queued"),
        ("running", "pause", 200, "running"),
        ("running", "cancel", 200, "running"),
        ("running", "resume", 409, "running"),
        ("running", "retry", 409, "running"),
        ("paused", "pause", 200, "paused"),
        ("paused", "cancel", 200, "cancelled"),
        ("paused", "resume", 200, "queued"),
        ("paused", "retry", 409, "paused"),
        ("failed", "pause", 409, "failed"),
        ("failed", "cancel", 409, "failed"),
        ("failed", "resume", 409, "failed"),
        ("failed", "retry", 200, "queued"),
        ("cancelled", "cancel", 200, "cancelled"),
        ("cancelled", "pause", 409, "cancelled"),
        ("cancelled", "resume", 409, "cancelled"),
        ("cancelled", "retry", 200, "queued"),
        ("succeeded", "pause", 409, "succeeded"),
        ("succeeded", "cancel", 409, "succeeded"),
        ("succeeded", "resume", 409, "succeeded"),
        ("succeeded", "retry", 409, "succeeded"),
    ],
)
def test_what_may_be_asked_of_a_job_in_each_state(http, store, state, verb, status, after):
    queue, claims = Queue(store), Claims(store)
    job = queue.submit(Submission("j", {}, owner="sam"))[0].id
    if state in ("running", "failed", "succeeded"):
        lease = claims.claim("w")
        if state != "running":
            claims.finish(lease, state, "Test")
    elif state in ("paused", "cancelled"):
        getattr(queue, {"paused": "pause", "cancelled": "cancel"}[state])(job)
    answer = http.post(f"/v1/jobs/{job}/{verb}")
    assert answer.status_code == status, answer.text
    found = http.get(f"/v1/jobs/{job}").json()
    assert found["state"] == after
    if state == "running" and status == 200:
        assert found["wish"] == answer.json()["wish"] == verb


def test_progress_and_workers_are_shown(http, store):
    queue, claims, workers = Queue(store), Claims(store), Workers(store)
    job = queue.submit(Submission("j", {}, owner="sam"))[0].id
    lease = claims.claim("w-1")
    progress = {"stage": "search", "done": 3.0, "total": 8, "eta_seconds": 1.5, "evaluated": 3, "evaluations": 8}
    claims.beat(lease, progress)
    assert http.get(f"/v1/jobs/{job}").json()["progress"] == {**progress, "status": None}
    workers.seen("w-1", {"gpus": 0, "cpus": 2})
    (told,) = http.get("/v1/workers").json()
    assert (told["id"], told["capabilities"], told["draining"]) == ("w-1", {"gpus": 0, "cpus": 2}, False)
    assert told["seconds"] < 30


def test_nothing_of_a_job_is_known_before_it_runs(http, store):
    job = Queue(store).submit(Submission("j", {}, owner="sam"))[0].id
    assert http.get(f"/v1/jobs/{job}/front").json()["points"] == []
    assert http.get(f"/v1/jobs/{job}/candidates").json() == {"candidates": [], "cursor": None}
    assert http.get(f"/v1/jobs/{job}/artifacts").json() == []
    asked = http.post(f"/v1/jobs/{job}/solve", json={"budgets": {"size_mb": 1.0}})
    assert (asked.status_code, asked.json()["error"]["type"]) == (422, "InvalidInput")
    export = http.post(f"/v1/jobs/{job}/export", json={})
    assert (export.status_code, export.json()["error"]["type"]) == (409, "Conflict")


def test_devices_are_told_with_their_tables(http):
    found = {each["device"]: each for each in http.get("/v1/devices").json()}
    assert found["cpu"]["latency"] == "measured"
    assert "nvidia-h100-sxm" in found
    assert http.get("/v1/devices/cpu").json()["device"] == "cpu"
    assert http.get("/v1/devices/none-such").status_code == 404
