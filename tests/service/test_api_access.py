"""Who gets in, how often, with how much: tokens, roles, rates, sizes, foreign pages, and the audit trail of it all."""

import logging

import anyio
import httpx
import pytest
from bitfront.errors import InvalidInput
from bitfront.service.api import create_app, ensure_admin
from bitfront.service.api.buckets import Buckets
from bitfront.service.settings import Settings, is_loopback
from bitfront.store import Access, Queue, Store, Submission
from fastapi.testclient import TestClient
from sqlalchemy import text

LOCAL = "http://127.0.0.1:8765"


@pytest.fixture
def access(store):
    access = Access(store)
    for name, role in [("ada", "admin"), ("sam", "submitter"), ("sue", "submitter"), ("vic", "viewer")]:
        access.add_user(name, role)
    return access


@pytest.fixture
def tokens(access):
    return {each.name: {"Authorization": f"Bearer {access.new_token(each.name)}"} for each in access.users()}


def client(store, **settings):
    return TestClient(create_app(Settings(store=store.url, **settings), store), base_url=LOCAL)


def test_nothing_is_told_without_a_token(store, access):
    http = client(store)
    closed = ["/v1/jobs", "/v1/devices", "/v1/users", "/v1/audit", "/metrics", "/v1/jobs/ab/artifacts/x", "/nowhere"]
    for path in closed:
        answer = http.get(path)
        assert (answer.status_code, answer.json()["error"]["type"]) == (401, "Unauthorized"), path
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert http.get("/healthz").status_code == 200
    assert http.get("/readyz").status_code == 200
    assert http.get("/openapi.json").status_code == 200


@pytest.mark.parametrize("header", ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "Bearer bf_wrong", "bf_wrong"])
def test_a_wrong_token_is_refused_and_written_down_without_the_token(store, access, tokens, header):
    http = client(store)
    assert http.get("/v1/jobs", headers={"Authorization": header}).status_code == 401
    line = access.trail()[0]
    assert (line.user, line.target, line.outcome) == ("", "/v1/jobs", "refused")
    assert "bf_wrong" not in line.detail


def test_a_revoked_token_is_void_at_the_next_request(store, access, tokens):
    http = client(store)
    assert http.get("/v1/jobs", headers=tokens["sam"]).status_code == 200
    answer = http.delete("/v1/users/sam/tokens", headers=tokens["ada"])
    assert answer.json() == {"tokens": 1}
    assert http.get("/v1/jobs", headers=tokens["sam"]).status_code == 401


def test_an_expired_token_is_void(store, access):
    http = client(store)
    with access.store.writing() as session:
        token = access.new_token("vic", seconds=1000.0)
        headers = {"Authorization": f"Bearer {token}"}
    assert http.get("/v1/jobs", headers=headers).status_code == 200
    with access.store.writing() as session:
        session.execute(text("UPDATE tokens SET expires_at = 1.0 WHERE user = 'vic'"))
    assert http.get("/v1/jobs", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "least"),
    [
        ("GET", "/v1/jobs", "viewer"),
        ("GET", "/v1/jobs/{job}", "viewer"),
        ("GET", "/v1/workers", "viewer"),
        ("POST", "/v1/jobs/{job}/pause", "submitter"),
        ("POST", "/v1/jobs/{job}/cancel", "submitter"),
        ("GET", "/v1/audit", "admin"),
        ("GET", "/v1/users", "admin"),
        ("POST", "/v1/users/vic/tokens", "admin"),
        ("DELETE", "/v1/users/vic/tokens", "admin"),
    ],
)
def test_a_role_may_what_it_may_and_no_more(store, access, tokens, method, path, least):
    http = client(store)
    job, _ = Queue(store).submit(Submission("j", {}, owner="sam"))
    roles = {"vic": "viewer", "sam": "submitter", "ada": "admin"}
    order = list(roles.values())
    for user, role in roles.items():
        answer = http.request(method, path.format(job=job.id), headers=tokens[user])
        allowed = order.index(role) >= order.index(least)
        assert (answer.status_code < 300) is allowed, (user, answer.text)
        if not allowed:
            assert answer.json()["error"] == {"type": "Refused", "message": f"{user} is a {role}; this needs a {least}"}
            assert access.trail(1)[0].outcome == "refused"
            assert access.trail(1)[0].user == user


def test_a_submitter_controls_only_their_own_jobs(store, access, tokens):
    http = client(store)
    queue = Queue(store)
    job, _ = queue.submit(Submission("j", {}, owner="sam"))
    for verb in ("pause", "cancel", "resume", "retry"):
        answer = http.post(f"/v1/jobs/{job.id}/{verb}", headers=tokens["sue"])
        assert answer.status_code == 403
        assert "belongs to sam" in answer.json()["error"]["message"]
        line = access.trail(1)[0]
        assert (line.user, line.action, line.target, line.outcome) == ("sue", verb, job.id, "refused")
    assert queue.job(job.id).state == "queued"
    assert http.post(f"/v1/jobs/{job.id}/pause", headers=tokens["sam"]).json()["state"] == "paused"
    assert http.post(f"/v1/jobs/{job.id}/cancel", headers=tokens["ada"]).json()["state"] == "cancelled"
    told = [(line.user, line.action, line.outcome) for line in access.trail(2)]
    assert told == [("ada", "cancel", "allowed"), ("sam", "pause", "allowed")]


def test_users_come_and_go_but_never_the_last_administrator(store, access, tokens):
    http = client(store)
    made = http.post("/v1/users", json={"name": "new", "role": "viewer"}, headers=tokens["ada"])
    assert (made.status_code, made.json()) == (201, {"name": "new", "role": "viewer"})
    token = http.post("/v1/users/new/tokens", json={"note": "laptop"}, headers=tokens["ada"]).json()["token"]
    assert http.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert token not in str([(line.detail, line.target) for line in access.trail()])
    assert http.delete("/v1/users/new", headers=tokens["ada"]).status_code == 200
    assert http.delete("/v1/users/new", headers=tokens["ada"]).status_code == 404
    for answer in (
        http.delete("/v1/users/ada", headers=tokens["ada"]),
        http.post("/v1/users", json={"name": "ada", "role": "viewer"}, headers=tokens["ada"]),
    ):
        assert (answer.status_code, answer.json()["error"]["type"]) == (409, "Conflict")
    assert {each.name: each.role for each in access.users()}["ada"] == "admin"


@pytest.mark.parametrize(
    "body",
    [{"name": "", "role": "viewer"}, {"name": "x", "role": "king"}, {"name": "a b\x00", "role": "viewer"}, {}, []],
)
def test_users_that_cannot_be_are_refused(store, tokens, body):
    answer = client(store).post("/v1/users", json=body, headers=tokens["ada"])
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "InvalidInput")


def test_what_is_no_json_is_malformed(store, tokens):
    headers = {**tokens["ada"], "Content-Type": "application/json"}
    answer = client(store).post("/v1/users", content="{", headers=headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "Malformed")


def test_the_first_start_makes_one_administrator(store):
    access = Access(store)
    token = ensure_admin(access)
    assert access.identify(token).role == "admin"
    assert ensure_admin(access) is None


def test_requests_beyond_the_rate_wait_and_others_do_not(store, access, tokens):
    http = client(store, requests_per_minute=5)
    codes = [http.get("/v1/jobs", headers=tokens["vic"]).status_code for _ in range(7)]
    assert codes == [200] * 5 + [429] * 2
    late = http.get("/v1/jobs", headers=tokens["vic"])
    assert late.json()["error"]["type"] == "TooManyRequests"
    assert 1 <= int(late.headers["Retry-After"]) <= 12
    assert http.get("/v1/jobs", headers=tokens["sam"]).status_code == 200


def test_a_flood_of_wrong_tokens_stops_at_the_gate_and_locks_nobody_out(store, access, tokens, monkeypatch):
    http = client(store, failures_per_minute=3)
    assert http.get("/v1/jobs", headers=tokens["vic"]).status_code == 200
    asked = []
    identify = Access.identify
    monkeypatch.setattr(Access, "identify", lambda self, token: asked.append(token) or identify(self, token))
    codes = [http.get("/v1/jobs", headers={"Authorization": f"Bearer bf_{i}"}).status_code for i in range(10)]
    assert codes == [401] * 3 + [429] * 7
    assert len(asked) == 3  # the others never reached the database
    assert len(access.trail()) == 3
    assert http.get("/v1/jobs", headers=tokens["vic"]).status_code == 200


def test_buckets_fill_up_steadily_and_forget_old_keys():
    now = [0.0]
    buckets = Buckets(60, lambda: now[0])
    assert [buckets.take("a") for _ in range(61)] == [0] * 60 + [1]
    now[0] += 2.5
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 1]
    now[0] += 1e6
    assert [buckets.take("a", 0.0) for _ in range(100)] == [0] * 100
    for key in range(10_001):
        buckets.take(str(key))
    assert len(buckets._levels) == 10_000


def test_long_bodies_are_refused_before_they_are_read(store, access, tokens):
    http = client(store, most_body_bytes=100)
    declared = http.post("/v1/jobs", content=b"x" * 101, headers=tokens["sam"])
    assert (declared.status_code, declared.json()["error"]["type"]) == (413, "TooLarge")
    read = []

    def pieces():
        for _ in range(1000):
            read.append(1)
            yield b"x" * 10

    chunked = http.post("/v1/jobs", content=pieces(), headers=tokens["sam"])
    assert (chunked.status_code, chunked.json()["error"]["type"]) == (413, "TooLarge")
    typed = http.post("/v1/users", content=b'{"name": "' + b"x" * 200 + b'"}', headers=tokens["ada"])
    assert typed.status_code == 413
    huge = http.post("/v1/jobs", content=b"", headers={**tokens["sam"], "Content-Length": "9" * 30})
    assert huge.status_code == 413
    assert [line.detail[:3] for line in access.trail(4)] == ["413"] * 4


def test_slow_bodies_are_cut_off(store, access, tokens):
    app = create_app(Settings(store=store.url, body_seconds=0.2), store)

    async def trickle():
        yield b"name: x\n"
        await anyio.sleep(60)
        yield b"never"

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=LOCAL) as http:
            return await http.post("/v1/jobs", content=trickle(), headers=tokens["sam"])

    answer = anyio.run(ask)
    assert (answer.status_code, answer.json()["error"]["type"]) == (408, "TooSlow")
    assert access.trail(1)[0].outcome == "refused"


def test_bodies_that_are_no_text_are_malformed(store, tokens):
    http = client(store)
    for content in (b"\xff\xfe\x00", b"", b"  \n"):
        answer = http.post("/v1/jobs", content=content, headers=tokens["sam"])
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "Malformed"), content


def test_without_tokens_everybody_on_this_machine_is_an_administrator_but_no_web_page(store):
    http = client(store, insecure=True)
    assert http.get("/v1/users").status_code == 200
    assert http.get("/v1/users", headers={"Host": "localhost:8765"}).status_code == 200
    assert http.get("/v1/users", headers={"Host": "evil.example:8765"}).status_code == 403  # DNS rebinding
    assert http.get("/v1/users", headers={"Origin": "https://evil.example"}).status_code == 403
    assert http.get("/v1/users", headers={"Origin": "null"}).status_code == 403
    assert http.get("/v1/users", headers={"Origin": LOCAL}).status_code == 200


def test_without_tokens_other_machines_are_let_in_only_on_purpose(store):
    with pytest.raises(InvalidInput, match=r"everybody who reaches 0\.0\.0\.0"):
        create_app(Settings(store=store.url, insecure=True, host="0.0.0.0"), store)
    create_app(Settings(store=store.url, insecure=True, host="0.0.0.0", insecure_remote=True), store)
    create_app(Settings(store=store.url, host="0.0.0.0"), store)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("localhost", "127.0.0.1", "::1", "[::1]", "127.8.9.1")),
        *((host, False) for host in ("0.0.0.0", "10.0.0.1", "localhost.evil", "")),
    ],
)
def test_loopback_is_known(host, loopback):
    assert is_loopback(host) is loopback


def test_every_answer_carries_the_headers_of_safety_and_none_of_cors(store, tokens):
    http = client(store)
    for path in ("/healthz", "/v1/jobs", "/v1/jobs/none", "/nowhere"):
        for headers in ({}, tokens["vic"]):
            answer = http.get(path, headers={**headers, "Origin": "https://evil.example"})
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert "no-store" in answer.headers["Cache-Control"]
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_an_error_of_our_own_tells_a_number_and_the_log_the_rest(store, tokens, monkeypatch, caplog):
    def broken(self, *states, **more):
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(Queue, "list", broken)
    with caplog.at_level(logging.ERROR, "bitfront.api"):
        answer = client(store).get("/v1/jobs", headers=tokens["vic"])
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (500, "InternalError")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert error["message"].rpartition(" ")[2] in caplog.text
    assert "secret of the house" in caplog.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_database_that_is_away_is_told_as_such_without_its_url(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/store.db")
    token = ensure_admin(Access(store))
    store.close()
    for file in tmp_path.iterdir():
        file.unlink()
    (tmp_path / "store.db").mkdir()
    http = client(store)
    for path in ("/v1/jobs", "/readyz"):
        answer = http.get(path, headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "DatabaseUnavailable")
        assert str(tmp_path) not in answer.text
        assert answer.headers["Retry-After"] == "5"
    assert http.get("/healthz").status_code == 200


def test_a_schema_of_another_version_is_not_ready(store):
    http = client(store)
    with store.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    answer = http.get("/readyz")
    assert answer.status_code == 503
    assert "schema 9999" in answer.json()["error"]["message"]


def test_an_answer_stands_when_its_audit_line_is_lost(store, access, tokens, monkeypatch, caplog):
    from sqlalchemy.exc import OperationalError

    def full(self, *line):
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    http = client(store)
    job, _ = Queue(store).submit(Submission("j", {}, owner="sam"))
    monkeypatch.setattr(Access, "record", full)
    with caplog.at_level(logging.ERROR, "bitfront.api"):
        assert http.post(f"/v1/jobs/{job.id}/cancel", headers=tokens["sam"]).status_code == 200
    assert "audit line lost: sam cancel" in caplog.text
    assert "bitfront_audit_lines_lost_total 1.0" in http.get("/metrics", headers=tokens["vic"]).text


def test_audit_pages_go_back_in_time(store, access, tokens):
    http = client(store)
    for index in range(5):
        access.record("sam", "test", str(index), "allowed")
    first = http.get("/v1/audit", params={"limit": 2}, headers=tokens["ada"]).json()
    second = http.get("/v1/audit", params={"limit": 2, "before": first[-1]["id"]}, headers=tokens["ada"]).json()
    assert [line["target"] for line in first + second] == ["4", "3", "2", "1"]


def test_metrics_tell_of_the_queue_and_of_requests(store, access, tokens):
    http = client(store)
    Queue(store).submit(Submission("j", {}, owner="sam"))
    http.get("/v1/jobs/none", headers=tokens["vic"])
    told = http.get("/metrics", headers=tokens["vic"]).text
    assert 'bitfront_jobs{state="queued"} 1.0' in told
    assert 'bitfront_jobs{state="failed"} 0.0' in told
    assert 'bitfront_workers{draining="false"} 0.0' in told
    assert 'bitfront_request_seconds_count{method="GET",route="/v1/jobs/{job_id}",status="404"} 1.0' in told
    assert "bitfront_claims_total 0.0" in told
    assert "bitfront_queue_oldest_seconds" in told
