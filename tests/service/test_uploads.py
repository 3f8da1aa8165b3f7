"""What users send is checked without being loaded, kept under its hash, and found again or refused."""

import hashlib
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, NotFound
from bitfront.service import parse_job
from bitfront.service.assemble import assemble
from bitfront.service.settings import Settings
from bitfront.service.uploads import accept, fetch_tables, find, measured_devices, receive, with_uploads
from bitfront.store import Artifacts, Queue, Store, StoredFile, Submission
from safetensors.numpy import save

LIMIT = 1_000_000
ROWS = "".join(f"nvidia-t4,trtllm,w8a8,{m},512,512,{0.1 * m}\n" for m in (1, 8, 64))
CSV = f"device,runtime,format,m,n,k,median_ms\n{ROWS}"


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("BITFRONT_TABLES", str(tmp_path / "tables"))
    return Settings(store=f"sqlite:///{tmp_path}/store.db", uploads=str(tmp_path / "uploads"), most_upload_bytes=LIMIT)


@pytest.fixture
def store(settings):
    opened = Store(settings.store)
    yield opened
    opened.close()


def weights(**tensors):
    return save({name: np.asarray(value, np.float32) for name, value in (tensors or {"w": [1.0, 2.0]}).items()})


def npz(compressed=False, **arrays):
    content = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(content, **arrays)
    return content.getvalue()


def files_below(settings):
    return [path for path in Path(settings.uploads).rglob("*") if path.is_file()]


def test_a_file_lies_under_its_hash_with_what_was_found_in_it(settings, store):
    content = weights(a=np.zeros((3, 4)), b=np.zeros(5))
    found = accept(io.BytesIO(content), "weights", "net.safetensors", "ann", settings, store)
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert (found.owner, found.bytes, found.details) == ("ann", len(content), {"tensors": 2, "elements": 17})
    assert Path(found.location).read_bytes() == content
    assert files_below(settings) == [Path(found.location)]
    again = accept(io.BytesIO(content), "weights", "other.safetensors", "bob", settings, store)
    assert (again.sha256, again.owner, len(files_below(settings))) == (found.sha256, "ann", 1)


def test_uploads_can_lie_behind_a_url(store):
    settings = Settings(uploads="memory://uploads-test", most_upload_bytes=LIMIT)
    content = npz(inputs=np.zeros((4, 2), np.float32))
    found = accept(io.BytesIO(content), "data", "x.npz", "ann", settings, store)
    assert found.location.startswith("memory://uploads-test/")
    data = {"calibration": f"upload:{found.sha256}", "validation": f"upload:{found.sha256}"}
    job = parse_job({"model": {"zoo": "char_gpt"}, "data": data})
    assert with_uploads(job, store).data.calibration == found.location


def header(text, data=b""):
    content = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack("<Q", len(content)) + content + data


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BAD = {
    "a pickle": ("weights", "w.safetensors", pickle.dumps({"a": 1}), "it is a pickle or a zip, which can run code"),
    "a checkpoint": ("weights", "w.safetensors", npz(a=np.zeros(1)), "which can run code"),
    "a huge header": ("weights", "w.safetensors", struct.pack("<Q", 2**60) + b"{}", "no safetensors file"),
    "less data than said": ("weights", "w.safetensors", header({"w": TENSOR}, b"\0" * 4), "no safetensors file"),
    "more data than said": ("weights", "w.safetensors", header({"w": TENSOR}, b"\0" * 12), "no safetensors file"),
    "a huge shape": (
        "weights", "w.safetensors", header({"w": TENSOR | {"shape": [2**40, 2**40]}}, b"\0" * 8), "no safetensors file",
    ),
    "no tensors": ("weights", "w.safetensors", header({}), "holds no tensor"),
    "by its name": ("weights", "w.pt", b"x", "pickles can run code and are refused; weights must be a .safetensors"),
    "a pickle's name": ("data", "w.pkl", b"x", "pickles can run code"),
    "objects": ("data", "x.npz", npz(inputs=np.array([{"a": 1}], object)), "its objects are pickled"),
    "texts": ("data", "x.npz", npz(inputs=np.array(["a"])), "holds no plain numbers"),
    "no arrays": ("data", "x.npz", b"PK\x05\x06" + b"\0" * 18, "0 arrays"),
    "no zip": ("data", "x.npz", b"hello", "no .npz file"),
    "a bomb": ("data", "x.npz", npz(True, inputs=np.zeros(10_000_000)), "unpacks to more than 1000000 bytes"),
    "no program": ("exported", "m.pt2", b"hello", "no archive of torch.export.save"),
    "no table": ("table", "t.csv", b"a,b\n1,2\n", "t.csv"),
    "no parquet": ("table", "t.parquet", b"hello", "no parquet file"),
    "nothing": ("data", "x.npz", b"", "empty"),
    "too much": ("data", "x.npz", b"x" * (LIMIT + 1), "longer than 1000000 bytes"),
    "no kind": ("model", "x.npz", b"x", "unknown kind 'model'"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "content", "told"), BAD.values(), ids=BAD)
def test_refused_and_nothing_stays(settings, kind, name, content, told):
    with pytest.raises(InvalidInput, match=told) as caught:
        receive(io.BytesIO(content), kind, name, LIMIT, settings)
    assert "\n" not in str(caught.value)
    assert files_below(settings) == []
    assert not Path(settings.uploads).exists() or os.listdir(settings.uploads) == []


@pytest.mark.parametrize("name", ["../x.npz", "a/b.npz", "/etc/x.npz", ".x.npz", "a\\b.npz", "a..npz", "a\nb.npz", ""])
def test_names_stay_in_their_folder(settings, name):
    with pytest.raises(InvalidInput, match="give a plain name"):
        receive(io.BytesIO(b"x"), "data", name, LIMIT, settings)


def test_an_array_that_lies_about_its_length(settings):
    content = io.BytesIO(npz(inputs=np.zeros(4)))
    with zipfile.ZipFile(content) as archive:
        array = archive.read("inputs.npy").replace(b"(4,), ", b"(9,), ")
    lying = io.BytesIO()
    with zipfile.ZipFile(lying, "w") as archive:
        archive.writestr("inputs.npy", array)
    with pytest.raises(InvalidInput, match="which its length is not that of"):
        receive(io.BytesIO(lying.getvalue()), "data", "x.npz", LIMIT, settings)


def test_nothing_is_unpickled(settings, tmp_path):
    objects = npz(inputs=np.array([Touch(tmp_path / "ran")], object))
    checkpoint = io.BytesIO()
    torch.save(Touch(tmp_path / "ran"), checkpoint)
    for kind, name, content in (("data", "x.npz", objects), ("weights", "x.safetensors", checkpoint.getvalue())):
        with pytest.raises(InvalidInput):
            receive(io.BytesIO(content), kind, name, LIMIT, settings)
    assert not (tmp_path / "ran").exists()


def test_a_stream_that_breaks_leaves_nothing(settings):
    class Broken:
        pieces = 3

        def read(self, size=-1, /):
            self.pieces -= 1
            if not self.pieces:
                raise ConnectionError("gone")
            return b"x" * 10

    with pytest.raises(ConnectionError):
        receive(Broken(), "data", "x.npz", LIMIT, settings)
    assert files_below(settings) == []


def test_jobs_find_them_by_kind_and_only_unchanged(settings, store):
    data = accept(io.BytesIO(npz(inputs=np.zeros((4, 2)))), "data", "x.npz", "ann", settings, store)
    place = f"upload:{data.sha256}"
    assert find(place, "data", "data.calibration", store).location == data.location
    with pytest.raises(InvalidInput, match=r"model\.weights: upload .* is of kind data; weights is needed"):
        find(place, "weights", "model.weights", store)
    with pytest.raises(InvalidInput, match="64 hexadecimal digits"):
        find("upload:../../etc/passwd", "data", "data.calibration", store)
    with pytest.raises(NotFound, match="send the file first"):
        find("upload:" + "0" * 64, "data", "data.calibration", store)
    content = weights()
    known = StoredFile("x.npz", "elsewhere", len(content), hashlib.sha256(content).hexdigest())
    Artifacts(store).add_upload("data", known, "bob")
    with pytest.raises(InvalidInput, match="this content was sent before as data"):
        accept(io.BytesIO(content), "weights", "x.safetensors", "ann", settings, store)


def test_a_changed_file_is_not_used(settings, store):
    found = accept(io.BytesIO(npz(inputs=np.zeros((4, 2)))), "data", "x.npz", "ann", settings, store)
    data = {"calibration": f"upload:{found.sha256}", "validation": f"upload:{found.sha256}"}
    job = parse_job({"model": {"zoo": "char_gpt"}, "data": data})
    content = bytearray(Path(found.location).read_bytes())
    content[-30] ^= 1
    Path(found.location).write_bytes(content)
    with pytest.raises(InvalidInput, match=r"data\.calibration: the file of upload .* is not"):
        with_uploads(job, store)
    Path(found.location).unlink()
    with pytest.raises(InvalidInput, match=r"data\.calibration: no file"):
        with_uploads(job, store)


def test_a_job_runs_on_what_was_sent(settings, store, tmp_path):
    from bitfront.service.job_key import job_key
    from bitfront.zoo.resnet import ResNet
    from safetensors.torch import save as save_torch

    torch.manual_seed(0)
    model = ResNet(blocks=1, width=4, classes=3).eval()
    sent = accept(io.BytesIO(save_torch(model.state_dict())), "weights", "net.safetensors", "ann", settings, store)
    inputs = np.random.default_rng(0).standard_normal((8, 1, 8, 8)).astype(np.float32)
    data = accept(io.BytesIO(npz(inputs=inputs)), "data", "x.npz", "ann", settings, store)
    place = {"calibration": f"upload:{data.sha256}", "validation": f"upload:{data.sha256}", "batch": 4}
    source = {
        "architecture": "digits_resnet20",
        "arguments": {"blocks": 1, "width": 4, "classes": 3},
        "weights": f"upload:{sent.sha256}",
    }
    job = parse_job({"model": source, "data": place})
    made = assemble(job, tmp_path, store=store)
    x = torch.from_numpy(inputs)
    assert torch.allclose(made.task.model(x), model(x), atol=1e-5)
    assert job_key(job, tmp_path, store) == job_key(with_uploads(job, store), tmp_path, store)
    with pytest.raises(InvalidInput, match="known to the service alone"):
        assemble(job, tmp_path)


def test_a_table_lets_jobs_go_on_and_reaches_other_machines(settings, store, tmp_path, monkeypatch):
    from bitfront.hw_models.tables import answering, user_folder

    queue = Queue(store)
    waiting, _ = queue.submit(Submission("a", {}, needs=["nvidia-t4"], waiting=True))
    other, _ = queue.submit(Submission("b", {}, needs=["nvidia-a10"], waiting=True))
    assert "nvidia-t4" not in measured_devices(store)
    found = accept(io.BytesIO(CSV.encode()), "table", "mine.csv", "ann", settings, store)
    assert found.details == {"devices": ["nvidia-t4"], "runtimes": ["trtllm"], "rows": 3}
    assert (queue.job(waiting.id).waiting, queue.job(other.id).waiting) == (False, True)
    assert not user_folder().exists()
    assert fetch_tables(store, "nvidia-a10") == 0
    assert fetch_tables(store, "nvidia-t4") == fetch_tables(store, "nvidia-t4") == 1
    assert len(list(user_folder().glob("*.parquet"))) == 1
    assert "w8a8" in answering("nvidia-t4")
    assert [each.name for each in Artifacts(store).uploads("table")] == ["mine.csv"]
