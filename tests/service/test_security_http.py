"""Attacks over HTTP: each is refused with one clear line, leaves a line in the audit trail, and changes nothing."""

import hashlib
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from bitfront.service.api import create_app
from bitfront.service.settings import Settings
from bitfront.store import Access, Artifacts, Queue, Store, StoredFile, Submission
from fastapi.testclient import TestClient

OWNER = "sam"


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Server:
    """A server with a submitter, and what lies around it."""

    def __init__(self, folder):
        self.folder = folder
        self.store = Store(f"sqlite:///{folder}/store.db")
        self.access = Access(self.store)
        self.access.add_user(OWNER, "submitter")
        settings = Settings(
            store=self.store.url,
            outputs=str(folder / "jobs"),
            uploads=str(folder / "uploads"),
            most_body_bytes=100_000,
            most_upload_bytes=200_000,
        )
        headers = {"Authorization": f"Bearer {self.access.new_token(OWNER)}"}
        app = create_app(settings, self.store)
        self.http = TestClient(app, base_url="http://127.0.0.1:8765", headers=headers, raise_server_exceptions=False)

    def refused(self, answer, status, told, user=OWNER):
        """The answer is one line that says why, and so does the newest line of the trail."""
        assert answer.status_code == status, answer.text
        message = answer.json()["error"]["message"]
        assert told in message
        assert "\n" not in message
        assert "Traceback" not in answer.text
        line = self.access.trail(1)[0]
        assert (line.outcome, line.user) == ("refused", user)
        assert str(status) in line.detail
        assert Queue(self.store).counts() in ({}, {"queued": 1})


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path)
    yield made
    made.store.close()


def laughs():
    lines = ["a0: &a0 [" + ", ".join(["lol"] * 10) + "]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 10)]
    return "\n".join(lines)


JOBS = {
    "a billion laughs": (laughs(), 422, "aliases counted as what they stand for"),
    "a tower of lists": ("[" * 5000 + "]" * 5000, 422, "nested deeper than 20"),
    "a tower of objects": ('{"a":' * 10_000 + "1" + "}" * 10_000, 422, "nested"),
    "a Python object": ("model: !!python/object/apply:os.system ['touch ran']", 422, "is not allowed; give plain data"),
    "a number in base 60": ("name: 1" + ":59" * 30_000, 422, "more than 60 characters"),
    "a longer body": ("name: " + "x" * 200_000, 413, "longer than 100000 bytes"),
    "an import path": ('{"model": {"factory": "os:system", "arguments": {"command": "touch ran"}}}', 403, "'os'"),
    "an import path below": ('{"model": {"factory": "subprocess:run"}}', 403, "'subprocess'"),
    "a local file": ("model: {exported: /etc/passwd}", 403, "reads no local paths"),
    "a file URL": ("model: {exported: 'file:///etc/passwd.pt2'}", 403, "not under one that this service allows"),
    "an inner address": ("model: {exported: 'http://169.254.169.254/m.pt2'}", 403, "not under one"),
    "a pickle as weights": ("model: {architecture: char_gpt, weights: ../w.pt}", 403, "reads no local paths"),
    "an upload that is a path": ("model: {exported: 'upload:../../store.db'}", 422, "64 hexadecimal digits"),
    "a formula file": ('{"model": {"zoo": "char_gpt"}, "proxies": ["formula:/etc/x.json"]}', 403, "no formula files"),
    "outputs elsewhere": ('{"model": {"zoo": "char_gpt"}, "out": "/tmp/x"}', 422, "unknown key 'out'"),
    "NUL": ('{"model": {"zoo": "char_gpt"}, "name": "a\\u0000b"}', 422, "NUL"),
    "half a surrogate pair": ('{"model": {"zoo": "char_gpt"}, "name": "\\ud800"}', 422, "surrogate"),
    "not a number": ('{"model": {"zoo": "char_gpt"}, "constraints": {"size_mb": NaN}}', 422, "not a number"),
}


@pytest.mark.parametrize(("body", "status", "told"), JOBS.values(), ids=JOBS)
def test_jobs(server, body, status, told):
    server.refused(server.http.post("/v1/jobs", content=body), status, told)
    assert Queue(server.store).counts() == {}
    assert not Path("ran").exists()


def npz(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


UPLOADS = {
    "a name upwards": ("data", "../../x.npz", b"x", 422, "name"),
    "a name with a folder": ("data", "a/b.npz", b"x", 422, "name"),
    "a pickle": ("weights", "w.safetensors", pickle.dumps([1]), 422, "which can run code"),
    "a checkpoint": ("weights", "w.pt", b"x", 422, "pickles can run code and are refused"),
    "objects": ("data", "x.npz", npz(inputs=np.array([{}], object)), 422, "objects are pickled"),
    "a program that is none": ("exported", "m.pt2", b"PK\x03\x04", 422, "no archive of torch.export.save"),
    "too long": ("data", "x.npz", bytes(300_000), 413, "longer than 200000 bytes"),
}


@pytest.mark.parametrize(("kind", "name", "content", "status", "told"), UPLOADS.values(), ids=UPLOADS)
def test_uploads(server, kind, name, content, status, told):
    answer = server.http.post("/v1/uploads", params={"kind": kind, "name": name}, content=content)
    server.refused(answer, status, told)
    left = [path for path in (server.folder / "uploads").rglob("*") if path.is_file()]
    assert left == []
    assert not (server.folder / "x.npz").exists()


def test_an_upload_longer_than_it_says(server):
    def pieces():
        for _ in range(10):
            yield bytes(50_000)

    answer = server.http.post("/v1/uploads", params={"kind": "data", "name": "x.npz"}, content=pieces())
    server.refused(answer, 413, "longer than 200000 bytes")
    assert not [path for path in (server.folder / "uploads").rglob("*") if path.is_file()]


def test_what_was_sent_is_never_unpickled(server):
    poisoned = npz(inputs=np.array([Touch(server.folder / "ran")], object))
    server.http.post("/v1/uploads", params={"kind": "data", "name": "x.npz"}, content=poisoned)
    weights = pickle.dumps(Touch(server.folder / "ran"))
    server.http.post("/v1/uploads", params={"kind": "weights", "name": "w.safetensors"}, content=weights)
    assert not (server.folder / "ran").exists()


def test_artifacts_by_paths_of_others(server):
    job, _ = Queue(server.store).submit(Submission("j", {}, owner=OWNER))
    log = server.folder / "jobs" / job.id / "run.log"
    log.parent.mkdir(parents=True)
    log.write_text("fine")
    (server.folder / "secret.txt").write_text("hidden words")
    Artifacts(server.store).put(job.id, [StoredFile("run.log", str(log), 4, hashlib.sha256(b"fine").hexdigest())])
    assert server.http.get(f"/v1/jobs/{job.id}/artifacts/run.log").text == "fine"
    upwards = ("../../secret.txt", "%2e%2e/%2e%2e/secret.txt", "..%2f..%2fsecret.txt", "run.log/../../../secret.txt")
    for path in (*upwards, "/etc/passwd", "%2fetc%2fpasswd", f"{server.folder}/secret.txt"):
        answer = server.http.get(f"/v1/jobs/{job.id}/artifacts/{path}")
        assert answer.status_code in (404, 422), path  # 422: the client itself resolved the path to another route
        assert "message" in answer.json()["error"]
        assert "hidden words" not in answer.text
        assert "root:" not in answer.text
    lines = [line for line in server.access.trail(20) if line.outcome == "refused"]
    assert len(lines) >= 2
    assert {line.target for line in lines} == {job.id}


@pytest.mark.parametrize("token", ["", "bf_wrong", "bf_" + "x" * 10_000, "' OR 1=1 --"])
def test_wrong_tokens(server, token):
    answer = server.http.post("/v1/jobs", content="{}", headers={"Authorization": f"Bearer {token}"})
    server.refused(answer, 401, "token", user="")
    assert token not in server.access.trail(1)[0].detail or token == ""


def test_a_secret_of_a_refused_job_is_not_told_to_others(server):
    body = json.dumps({"model": {"zoo": "char_gpt"}, "data": {"calibration": "https://user:hunter2@x.example/x.npz"}})
    answer = server.http.post("/v1/jobs", content=body)
    server.refused(answer, 403, "not under one that this service allows")
    assert "hunter2" not in answer.text + server.access.trail(1)[0].detail
