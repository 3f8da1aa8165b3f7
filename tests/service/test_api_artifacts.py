"""Files over HTTP: whole, checked, cached by hash, never from outside the job's folder; and files that are sent."""

import hashlib
import os
from urllib.parse import quote

import fsspec
import numpy as np
import pytest
from bitfront.service.api import create_app
from bitfront.service.api.artifacts import Torn
from bitfront.service.settings import Settings
from bitfront.store import Access, Artifacts, Queue, StoredFile, Submission
from fastapi.testclient import TestClient


@pytest.fixture
def token(store):
    access = Access(store)
    access.add_user("sam", "submitter")
    return {"Authorization": f"Bearer {access.new_token('sam')}"}


@pytest.fixture
def http(store, token, tmp_path):
    settings = Settings(
        store=store.url, outputs=str(tmp_path / "jobs"), uploads=str(tmp_path / "uploads"), most_upload_bytes=100_000
    )
    return TestClient(create_app(settings, store), base_url="http://127.0.0.1:8765", headers=token)


@pytest.fixture
def job(store):
    return Queue(store).submit(Submission("j", {}, owner="sam"))[0]


def recorded(name, location, content, **other):
    about = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), **other}
    return StoredFile(name, str(location), **about)


def put(store, job, tmp_path, files):
    """Write files to the job's folder and record them."""
    folder = tmp_path / "jobs" / job.id
    found = []
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        found.append(recorded(name, folder / name, content))
    Artifacts(store).put(job.id, found)
    return folder


def test_a_file_comes_whole_with_its_hash(http, store, job, tmp_path):
    content = {"front.json": b"{}", "export/p05.onnx": os.urandom(700_001), 'odd name+%ü;".txt': b"x", "empty": b""}
    put(store, job, tmp_path, content)
    listed = http.get(f"/v1/jobs/{job.id}/artifacts").json()
    assert {each["name"]: each["bytes"] for each in listed} == {name: len(data) for name, data in content.items()}
    for each in listed:
        answer = http.get(f"/v1/jobs/{job.id}/artifacts/{quote(each['name'])}")
        assert answer.status_code == 200
        assert answer.content == content[each["name"]]
        assert answer.headers["ETag"] == f'"sha256-{each["sha256"]}"'
        assert int(answer.headers["Content-Length"]) == each["bytes"]
        assert answer.headers["Content-Disposition"].startswith("attachment; filename*=UTF-8''")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_what_the_client_has_is_not_sent_again(http, store, job, tmp_path):
    put(store, job, tmp_path, {"a": b"abc"})
    path = f"/v1/jobs/{job.id}/artifacts/a"
    tag = http.get(path).headers["ETag"]
    for known in (tag, f'"other", W/{tag}'):
        again = http.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert http.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        *("../store.db", "..%2fstore.db", "%2e%2e/store.db", "%252e%252e%252fstore.db", "..\\store.db"),
        *("/etc/passwd", "%2fetc%2fpasswd", "a/%2e%2e/a", "%2e/a", "....//a", "a%00", "A", "a/"),
    ],
)
def test_only_recorded_names_are_found(http, store, job, tmp_path, name):
    put(store, job, tmp_path, {"a": b"abc"})
    answer = http.get(f"/v1/jobs/{job.id}/artifacts/{name}")
    assert answer.status_code in (404, 422), answer.content
    assert b"abc" not in answer.content
    assert b"SQLite" not in answer.content


def test_recorded_places_outside_the_folder_are_not_read(http, store, job, tmp_path):
    folder = put(store, job, tmp_path, {"inside": b"abc"})
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (folder / "link").symlink_to(secret)
    beside = tmp_path / "jobs" / f"{job.id}x"
    beside.mkdir()
    (beside / "f").write_bytes(b"secret")
    places = {
        "absolute": secret,
        "up": folder / ".." / ".." / "secret",
        "link": folder / "link",
        "beside": beside / "f",
        "url": f"file://{secret}",
        "folder": folder,
        "gone": folder / "gone",
    }
    Artifacts(store).put(job.id, [recorded(name, place, b"secret") for name, place in places.items()])
    for name in places:
        answer = http.get(f"/v1/jobs/{job.id}/artifacts/{name}")
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "NotFound"), name
        assert str(tmp_path) not in answer.text


def test_a_torn_file_is_told_and_never_comes_whole(http, store, job, tmp_path):
    content = os.urandom(600_000)
    folder = put(store, job, tmp_path, {"a": content})
    (folder / "a").write_bytes(content[:-1])
    short = http.get(f"/v1/jobs/{job.id}/artifacts/a")
    assert (short.status_code, short.json()["error"]["type"]) == (409, "Conflict")
    (folder / "a").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # as long, but another one
    with pytest.raises(Torn):  # a server would break the connection off before the last piece
        http.get(f"/v1/jobs/{job.id}/artifacts/a")


def test_files_of_object_storage_are_read_from_there(http, store, tmp_path):
    job, _ = Queue(store).submit(Submission("j", {}, owner="sam", out="memory://api-bucket/j"))
    system = fsspec.filesystem("memory")
    system.pipe("/api-bucket/j/a.json", b"[1]")
    system.pipe("/api-bucket/other/b", b"other")
    files = [
        recorded("a.json", "memory://api-bucket/j/a.json", b"[1]"),
        recorded("b", "memory://api-bucket/j/../other/b", b"other"),
        recorded("c", "memory://api-bucket/other/b", b"other"),
    ]
    Artifacts(store).put(job.id, files)
    answer = http.get(f"/v1/jobs/{job.id}/artifacts/a.json")
    assert (answer.status_code, answer.content) == (200, b"[1]")
    assert answer.headers["Content-Type"] == "application/json"
    for name in "bc":
        assert http.get(f"/v1/jobs/{job.id}/artifacts/{name}").status_code == 404


def arrays(tmp_path, **content):
    path = tmp_path / "data.npz"
    np.savez(path, **content)
    return path.read_bytes()


def test_a_file_that_is_sent_is_kept_under_its_hash(http, store, tmp_path):
    content = arrays(tmp_path, inputs=np.zeros((4, 3), dtype="float32"))
    for _ in range(2):  # the second time changes nothing
        answer = http.post("/v1/uploads", params={"kind": "data", "name": "calib.npz"}, content=content)
        assert answer.status_code == 201, answer.text
    told = answer.json()
    assert told["sha256"] == hashlib.sha256(content).hexdigest()
    assert (told["kind"], told["name"], told["owner"], told["bytes"]) == ("data", "calib.npz", "sam", len(content))
    assert [each["sha256"] for each in http.get("/v1/uploads").json()] == [told["sha256"]]
    assert http.get("/v1/uploads", params={"kind": "weights"}).json() == []
    kept = [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in kept] == [content]
    line = Access(store).trail(1)[0]
    assert (line.action, line.target, line.outcome) == ("upload", f"upload:{told['sha256']}", "allowed")


@pytest.mark.parametrize(
    ("kind", "name", "content", "status"),
    [
        ("data", "calib.npz", b"not a zip", 422),
        ("data", "calib.npz", b"", 422),
        ("data", "calib.pkl", b"\x80\x04.", 422),
        ("weights", "model.pt", b"\x80\x04.", 422),
        ("weights", "model.safetensors", b"\xff" * 100, 422),
        ("exported", "model.pt2", b"PK\x03\x04", 422),
        ("table", "t.csv", b"a,b\n1,2\n", 422),
        ("data", "../../calib.npz", b"x", 422),
        ("data", "/etc/passwd", b"x", 422),
        ("odd", "x.npz", b"x", 422),
        ("data", "calib.npz", b"x" * 100_001, 413),
    ],
)
def test_files_that_cannot_be_are_refused_with_an_audit_line_and_nothing_stays(
    http, store, tmp_path, kind, name, content, status
):
    answer = http.post("/v1/uploads", params={"kind": kind, "name": name}, content=content)
    assert answer.status_code == status, answer.text
    assert str(tmp_path) not in answer.text
    assert Artifacts(store).uploads() == []
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "store.db" not in path.name] == []
    line = Access(store).trail(1)[0]
    assert (line.user, line.outcome) == ("sam", "refused")
    assert (line.action, line.target) == ("POST" if status == 413 else "upload", "/v1/uploads")


def test_a_chunked_body_that_is_too_long_leaves_nothing(http, tmp_path):
    sent = []

    def pieces():
        for _ in range(10_000):
            sent.append(1)
            yield b"x" * 1000

    answer = http.post("/v1/uploads", params={"kind": "data", "name": "calib.npz"}, content=pieces())
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "TooLarge")
    assert [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()] == []


def test_a_table_lets_waiting_jobs_go_on(http, store):
    asked = Submission("j", {}, owner="sam", needs=["nvidia-v100-sxm2"], waiting=True)
    waiting, _ = Queue(store).submit(asked)
    lines = ["device,runtime,format,m,n,k,median_us", *(f"nvidia-v100-sxm2,torch,bf16,{m},64,64,{m}.5" for m in (1, 2))]
    table = "\n".join(lines) + "\n"
    answer = http.post("/v1/tables", params={"name": "mine.csv"}, content=table.encode())
    told = [each["device"] for each in http.get("/v1/devices").json()]
    assert answer.status_code == 201, (answer.text, told)
    assert answer.json()["details"]["devices"] == ["nvidia-v100-sxm2"]
    assert [each["name"] for each in http.get("/v1/tables").json()] == ["mine.csv"]
    assert http.get(f"/v1/jobs/{waiting.id}").json()["waiting"] is False
