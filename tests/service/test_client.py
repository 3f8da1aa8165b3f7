"""The client against a real server: what comes back, what is raised, what is sent again."""

import hashlib
import json
import threading
import time
from pathlib import Path

import bitfront as bf
import httpx
import numpy as np
import pytest
from bitfront.errors import BitfrontError, Conflict, InfeasibleBudget, InvalidInput, NotFound, Refused
from bitfront.service import http_connection
from bitfront.service.client import Client, JobView, Unreachable, WaitedTooLong
from bitfront.service.token_file import known_token, token_file, write_token
from bitfront.store import Artifacts, Claims, Events, StoredFile

JOB = {
    "name": "digits",
    "model": {"zoo": "digits_resnet20"},
    "objectives": ["quality", "size_mb"],
    "search": {"evaluations": 8},
}


@pytest.fixture
def client(live):
    with Client(live.url, live.tokens["sam"]) as client:
        yield client


@pytest.fixture
def impatient(monkeypatch):
    """No waiting between two tries."""
    monkeypatch.setattr(http_connection.time, "sleep", lambda seconds: None)


def answering(answer, token="bf_x"):
    """A client whose network is a function."""
    return Client("http://127.0.0.1:1", token, transport=httpx.MockTransport(answer))


def test_the_package_names_the_client():
    assert bf.Client is Client


def test_a_job_from_submission_to_its_end(live, client):
    made = client.submit(JOB, priority=3, attempts=2, seconds=60.0)
    assert (made.state, made.owner, made.priority, made.most_attempts, made.most_seconds) == ("queued", "sam", 3, 2, 60)
    assert [each.id for each in client.jobs(state="queued", name="dig")] == [made.id]
    assert list(client.jobs(state="running")) == []
    assert list(client.jobs(owner="ada")) == []

    assert client.pause(made.id).state == "paused"
    assert client.pause(made.id).state == "paused"  # asking twice asks for the same
    assert client.resume(made.id).state == "queued"
    assert client.cancel(made.id).state == "cancelled"
    with pytest.raises(Conflict, match="cancelled"):
        client.pause(made.id)
    assert client.retry(made.id).state == "queued"
    shown = client.show(made.id)
    assert shown.specification["search"]["evaluations"] == 8
    assert [each["type"] for each in shown.conditions] == ["Queued", "Paused", "Queued", "Cancelled", "Queued"]
    assert not shown.ended


def test_a_submission_can_be_text_or_a_file_and_is_made_once_a_key(client, tmp_path):
    text = "name: digits\nmodel: {zoo: digits_resnet20}\nobjectives: [quality, size_mb]\nsearch: {evaluations: 8}\n"
    (tmp_path / "job.yaml").write_text(text)
    one = client.submit(tmp_path / "job.yaml", idempotency_key="k")
    assert client.submit(str(tmp_path / "job.yaml"), idempotency_key="k").id == one.id
    assert client.submit(JOB, idempotency_key="k").id == one.id
    assert client.submit(text).id != one.id
    with pytest.raises(Conflict, match="asks otherwise"):
        client.submit({**JOB, "name": "other"}, idempotency_key="k")


def test_all_pages_are_read(client):
    made = {client.submit({**JOB, "name": f"job {number}"}).id for number in range(5)}
    read = []

    def ask(request):
        read.append(request)
        request.url = request.url.copy_set_param("limit", "2")
        return client._server._http.send(request)

    found = list(Client(client.url, client._server._token, transport=httpx.MockTransport(ask)).jobs())
    assert {job.id for job in found} == made
    assert len(found) == 5
    assert len(read) == 3


@pytest.mark.parametrize(
    ("act", "kind", "line"),
    [
        (lambda it: it.show("0123456789ab"), NotFound, "no job"),
        (lambda it: it.submit({**JOB, "serch": {}}), InvalidInput, "did you mean 'search'"),
        (lambda it: it.submit({**JOB, "model": {"factory": "os:system"}}), Refused, "os"),
        (lambda it: it.users(), Refused, "admin"),
        (lambda it: it.download("0123456789ab", "front.json", "x"), NotFound, "no job"),
        (lambda it: it.submit("nowhere.yaml"), InvalidInput, "cannot read the job file nowhere.yaml"),
    ],
)
def test_errors_of_the_server_are_the_package_s_own_in_one_line(client, act, kind, line):
    with pytest.raises(kind, match=line) as caught:
        act(client)
    assert "\n" not in str(caught.value)


def test_wrong_and_missing_tokens_say_where_tokens_come_from(live):
    for token in ("bf_wrong", ""):
        with pytest.raises(Refused, match="BITFRONT_TOKEN"):
            list(Client(live.url, token).jobs())


def test_kinds_of_errors_keep_their_kind():
    error = {"error": {"type": "InfeasibleBudget", "message": "at least size_mb >= 1"}}
    with pytest.raises(InfeasibleBudget, match="size_mb >= 1"):
        answering(lambda request: httpx.Response(422, json=error)).solve("ab", size_mb=0.1)
    incident = {"error": {"type": "InternalError", "message": "incident 0a"}}
    with pytest.raises(BitfrontError, match="incident 0a") as caught:
        answering(lambda request: httpx.Response(500, json=incident)).show("ab")
    assert not isinstance(caught.value, InvalidInput)
    with pytest.raises(BitfrontError, match="is it a bitfront server"):
        answering(lambda request: httpx.Response(418, text="<html>teapot")).show("ab")


def test_no_redirect_is_followed_with_the_token():
    asked = []

    def answer(request):
        asked.append(str(request.url))
        return httpx.Response(307, headers={"Location": "http://elsewhere.example/"})

    with pytest.raises(BitfrontError, match="307"):
        answering(answer).show("ab")
    assert asked == ["http://127.0.0.1:1/v1/jobs/ab"]


def test_what_can_be_sent_twice_is_sent_again_with_the_same_key(impatient):
    keys = []

    def answer(request):
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            raise httpx.ReadError("connection reset")
        if len(keys) == 2:
            return httpx.Response(503, json={"error": {"type": "DatabaseUnavailable", "message": "later"}})
        return httpx.Response(201, json={"id": "ab", "name": "", "state": "queued"})

    assert answering(answer).submit(JOB).id == "ab"
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_what_cannot_is_not(impatient):
    asked = []

    def lost(request):
        asked.append(request)
        raise httpx.ReadError("connection reset")

    with pytest.raises(Unreachable, match=r"no server answers at http://127\.0\.0\.1:1"):
        answering(lost).retry("ab")
    assert len(asked) == 1

    def nobody(request):
        asked.append(request)
        raise httpx.ConnectError("refused")

    asked.clear()
    with pytest.raises(Unreachable, match="bitfront serve"):
        answering(nobody).retry("ab")
    assert len(asked) == 4  # nothing was sent, so it may be tried again


def test_a_server_that_is_too_busy_is_waited_for_as_it_asks(monkeypatch):
    waits = []
    monkeypatch.setattr(http_connection.time, "sleep", waits.append)
    answers = iter(
        [
            httpx.Response(
                429, headers={"Retry-After": "3"}, json={"error": {"type": "TooManyRequests", "message": ""}}
            ),
            httpx.Response(200, json={"id": "ab", "name": "", "state": "queued", "of_a_newer_server": 1}),
        ]
    )
    assert answering(lambda request: next(answers)).retry("ab") == JobView("ab", "", "queued")
    assert waits == [3.0]


# -- events -----------------------------------------------------------------------------------------------------------


def test_events_come_as_they_are_told_and_end_with_the_job(live, client):
    made = client.submit(JOB)
    claims = Claims(live.store, live.settings.limits)
    lease = claims.claim("worker", 0)
    Events(live.store).add(made.id, [("log", {"line": f"line {number}"}) for number in range(3)])
    found, later = [], threading.Event()

    def follow():
        for event in client.events(made.id):
            found.append(event)
            if len(found) == 3:
                later.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert later.wait(10)
    Events(live.store).add(made.id, [("log", {"line": "line 3"})])
    claims.finish(lease, "succeeded", "Done", "best p01")
    thread.join(10)
    assert not thread.is_alive()
    assert [event.content["line"] for event in found] == [f"line {number}" for number in range(4)]
    assert [event.id for event in found] == sorted(event.id for event in found)
    again = list(client.events(made.id, after=found[1].id))
    assert again == found[2:]
    assert "line 2" in client.log(made.id)
    lines = [json.loads(line) for line in client.log(made.id, structured=True).splitlines()]
    assert [line["id"] for line in lines] == [event.id for event in found]


def test_a_broken_stream_goes_on_where_it_was(monkeypatch):
    monkeypatch.setattr("bitfront.service.client.time.sleep", lambda seconds: None)
    stored = [f'id: {number}\nevent: log\ndata: {{"line": "{number}"}}\n\n' for number in range(1, 6)]
    asked = []

    class Torn(httpx.SyncByteStream):
        def __init__(self, pieces):
            self.pieces = pieces

        def __iter__(self):
            yield from (piece.encode() for piece in self.pieces)
            raise httpx.ReadError("connection reset")

    def answer(request):
        last = int(request.headers["Last-Event-ID"])
        asked.append(last)
        if len(asked) == 1:
            return httpx.Response(200, stream=Torn([*stored[:2], "id: 3\nevent: log\nda"]))
        if len(asked) == 2:
            return httpx.Response(503)
        if len(asked) == 3:  # a server that shuts down ends its streams
            return httpx.Response(200, text="".join(stored[last:4]))
        return httpx.Response(200, text="".join(stored[last:]) + "event: job\ndata: {}\n\nevent: end\ndata: {}\n\n")

    found = list(answering(answer).events("ab"))
    assert [event.id for event in found] == [1, 2, 3, 4, 5]
    assert asked == [0, 2, 2, 4]


def test_a_server_that_stays_away_is_given_up(monkeypatch):
    monkeypatch.setattr("bitfront.service.client.time.sleep", lambda seconds: None)

    def nobody(request):
        raise httpx.ConnectError("refused")

    with pytest.raises(Unreachable):
        list(answering(nobody).events("ab"))


def test_waiting(live, client):
    made = client.submit(JOB)
    begun = time.perf_counter()
    with pytest.raises(WaitedTooLong, match=r"is queued after 0\.2 s"):
        client.wait(made.id, timeout=0.2)
    assert time.perf_counter() - begun < 5
    assert issubclass(WaitedTooLong, TimeoutError)
    client.pause(made.id)
    assert client.wait(made.id).state == "paused"
    client.resume(made.id)
    seen = []
    lease = Claims(live.store, live.settings.limits).claim("worker", 0)

    def end(job):
        seen.append(job.state)
        if len(seen) == 1:
            Claims(live.store, live.settings.limits).finish(lease, "failed", "Broken", "no luck")

    found = client.wait(made.id, timeout=20, watch=end)
    assert (found.state, found.reason, seen) == ("failed", "no luck", ["running", "failed"])


# -- files ------------------------------------------------------------------------------------------------------------


def written(live, job_id, name, content):
    """A file as a worker records it."""
    path = Path(live.settings.outputs) / job_id / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    Artifacts(live.store).put(job_id, [StoredFile(name, str(path), len(content), digest)])
    return path


def test_downloads_are_checked(live, client, tmp_path):
    made = client.submit(JOB)
    content = np.random.default_rng(0).bytes(700_000)
    path = written(live, made.id, "export/p05 é.onnx", content)
    (only,) = client.artifacts(made.id)
    assert (only.name, only.bytes) == ("export/p05 é.onnx", len(content))
    assert client.download(made.id, only.name, tmp_path) == tmp_path / "p05 é.onnx"
    assert client.download(made.id, only.name, f"{tmp_path}/new/") == tmp_path / "new" / "p05 é.onnx"
    target = client.download(made.id, only.name, tmp_path / "deep" / "model.onnx")
    assert target.read_bytes() == content
    with pytest.raises(NotFound, match=r"no artifact 'front\.json'"):
        client.download(made.id, "front.json", tmp_path)

    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BitfrontError):
        client.download(made.id, only.name, tmp_path / "torn.onnx")
    assert not (tmp_path / "torn.onnx").exists()
    assert [each.name for each in tmp_path.glob(".*.tmp")] == []


def test_a_wrong_hash_is_found_by_the_client_itself(tmp_path):
    """Also where a server does not look."""

    def answer(request):
        if request.url.path.endswith("/artifacts"):
            return httpx.Response(200, json=[{"name": "a", "bytes": 3, "sha256": "0" * 64}])
        return httpx.Response(200, content=b"abc")

    with pytest.raises(BitfrontError, match="came with SHA-256 ba7816bf8f01"):
        answering(answer).download("ab", "a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_files_of_a_job_are_sent_once_and_named_by_content(client, tmp_path):
    np.savez(tmp_path / "calib.npz", inputs=np.zeros((8, 1, 8, 8), dtype="float32"))
    np.savez(tmp_path / "val.npz", inputs=np.ones((8, 1, 8, 8), dtype="float32"))
    (tmp_path / "job.yaml").write_text(
        "model: {zoo: digits_resnet20}\ndata: {calibration: calib.npz, validation: val.npz}\n"
        "quality: kl\nobjectives: [quality, size_mb]\n"
    )
    made = client.submit(tmp_path / "job.yaml")
    digest = hashlib.sha256((tmp_path / "calib.npz").read_bytes()).hexdigest()
    assert client.show(made.id).specification["data"]["calibration"] == f"upload:{digest}"
    sent = []
    ask = client._server.ask

    def counted(method, path, **options):
        sent.append((method, path))
        return ask(method, path, **options)

    client._server.ask = counted
    client.submit(tmp_path / "job.yaml")
    assert ("POST", "/v1/uploads") not in sent
    (tmp_path / "val.npz").unlink()
    with pytest.raises(InvalidInput, match=r"data.validation: no file .*val.npz"):
        client.submit(tmp_path / "job.yaml")


def test_a_file_of_a_wrong_kind_is_refused(client, tmp_path):
    (tmp_path / "-calib é.npz").write_bytes(b"no archive")
    with pytest.raises(InvalidInput):
        client.upload(tmp_path / "-calib é.npz", "data")
    with pytest.raises(InvalidInput, match="cannot read"):
        client.upload(tmp_path / "nothing.npz", "data")


# -- users, devices, tokens -------------------------------------------------------------------------------------------


def test_administrators_make_users_and_tokens(live):
    with Client(live.url, live.tokens["ada"]) as admin:
        admin.add_user("ann", "viewer")
        assert {"name": "ann", "role": "viewer"} in admin.users()
        with Client(live.url, admin.new_token("ann", note="laptop", seconds=60)) as ann:
            assert list(ann.jobs()) == []
            with pytest.raises(Refused, match="submitter"):
                ann.submit(JOB)
            admin.remove_user("ann")
            with pytest.raises(Refused):
                list(ann.jobs())
        assert admin.workers() == []
        assert "cpu" in {row["device"] for row in admin.devices()}
        assert admin.tables() == []


def test_the_token_file_is_for_its_owner_only(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("BITFRONT_TOKEN", raising=False)
    url = "http://127.0.0.1:8765"
    assert known_token(url) is None
    path = write_token(url, "bf_one")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert known_token(url + "/") == "bf_one"
    assert known_token("http://127.0.0.1:8766") is None  # another server
    write_token(url, "bf_two")
    assert known_token(url) == "bf_two"
    monkeypatch.setenv("BITFRONT_TOKEN", "bf_three")
    assert known_token(url) == "bf_three"
    monkeypatch.delenv("BITFRONT_TOKEN")
    path.chmod(0o644)
    with pytest.raises(Refused, match="chmod 600"):
        Client(url)


def test_a_token_that_is_none():
    for token in ("bf_…", "bf_1\nbf_2"):
        with pytest.raises(InvalidInput, match="is it complete") as caught:
            Client("http://127.0.0.1:1", token)
        assert "bf_" not in str(caught.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8765", "ftp://host", "http://", "http://host:port"])
def test_a_url_that_is_none(url):
    with pytest.raises(InvalidInput, match="write http://HOST:PORT"):
        Client(url)


def test_ipv6_and_long_names_have_files_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert token_file("http://[::1]:8765").name == "..1_8765"
    assert token_file("https://bitfront.example.org").name == "bitfront.example.org_443"
