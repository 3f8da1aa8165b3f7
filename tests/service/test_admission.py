"""What a job from the network may ask for: allowed, refused, or never to run, each told in one line."""

import numpy as np
import pytest
from bitfront.errors import InfeasibleBudget, InvalidInput, NotFound, NotMeasured, Refused
from bitfront.service.admission import admit, is_allowed
from bitfront.service.settings import Settings
from bitfront.service.uploads import accept
from bitfront.store import Identity, Queue, Store, Workers
from safetensors.numpy import save

ANN = Identity("ann", "submitter")
ZOO = {"model": {"zoo": "digits_resnet20"}}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("BITFRONT_TABLES", str(tmp_path / "tables"))
    return Settings(
        store=f"sqlite:///{tmp_path}/store.db",
        uploads=str(tmp_path / "uploads"),
        allowed_modules=("nets.ours",),
        allowed_urls=("s3://team/public", "https://data.example/sets/"),
        most_evaluations=100,
        most_seconds=1000.0,
    )


@pytest.fixture
def store(settings):
    opened = Store(settings.store)
    yield opened
    opened.close()


def job(**parts):
    return {**ZOO, **parts}


def test_a_job_is_queued_as_it_will_run(settings, store):
    text = (
        "name: mine\nmodel: {zoo: digits_resnet20}\nsearch: {evaluations: 20}\nbudget: {evaluations: 8, seconds: 60}\n"
    )
    asked = admit(text, ANN, settings, store, key="k1", priority=3, most_attempts=2)
    assert (asked.name, asked.owner, asked.key, asked.priority, asked.most_attempts) == ("mine", "ann", "k1", 3, 2)
    assert asked.most_seconds == 60
    assert (asked.gpus, asked.needs, asked.waiting, asked.out) == (0, [], False, "")
    assert asked.specification["search"]["evaluations"] == 8
    assert asked.specification["search"]["seconds"] == 60
    queue = Queue(store)
    first, new = queue.submit(asked)
    again = queue.submit(admit(text, ANN, settings, store, key="k1", priority=3, most_attempts=2))
    assert (new, again[0].id, again[1]) == (True, first.id, False)


def test_json_and_plain_data_are_jobs_too(settings, store):
    texts = ('{"model": {"zoo": "digits_resnet20"}}', ZOO, "model:\n  zoo: digits_resnet20\n")
    found = [admit(text, ANN, settings, store).specification for text in texts]
    assert found[0] == found[1] == found[2]


REFUSED = {
    "a module": ({"model": {"factory": "os:system", "arguments": {"command": "true"}}}, "the module 'os' is not one"),
    "below an allowed module": ({"model": {"factory": "nets.ours.deep:net"}}, "is not one that this service allows"),
    "above an allowed module": ({"model": {"factory": "nets:ours"}}, "is not one that this service allows"),
    "a private function": ({"model": {"factory": "nets.ours:_net"}}, "names no public function"),
    "an attribute": ({"model": {"factory": "nets.ours:os.system"}}, "names no public function"),
    "a path": ({"model": {"exported": "/etc/passwd"}}, r"model\.exported: a service reads no local paths"),
    "a path upwards": (job(data={"calibration": "../../x.npz", "validation": 4}), "reads no local paths"),
    "weights by path": ({"model": {"architecture": "char_gpt", "weights": "w.safetensors"}}, "reads no local paths"),
    "a file URL": ({"model": {"exported": "file:///etc/x.pt2"}}, "not under one that this service allows"),
    "metadata of a cloud": ({"model": {"exported": "http://169.254.169.254/x.pt2"}}, "not under one that"),
    "URL out of its folder": (
        {"model": {"exported": "s3://team/public/../private/x.pt2"}}, "not under one that this service allows",
    ),
    "a pickle by URL": (
        {"model": {"architecture": "char_gpt", "weights": "s3://team/public/w.pt"}}, r"only \.safetensors files",
    ),
    "a formula file": (job(proxies=["formula:../../secret.json"]), "reads no formula files"),
    "a cluster": (job(workers={"address": "ray://elsewhere:10001"}), "decides which cluster"),
    "a folder": (job(workers={"storage": "/tmp/x"}), "decides where records go"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "told"), REFUSED.values(), ids=REFUSED)
def test_refused(settings, store, content, told):
    with pytest.raises(Refused, match=told) as caught:
        admit(content, ANN, settings, store)
    assert "\n" not in str(caught.value)


def test_a_viewer_submits_nothing(settings, store):
    with pytest.raises(Refused, match="vic is a viewer; to submit a job needs a submitter"):
        admit(ZOO, Identity("vic", "viewer"), settings, store)


GPU = {"name": "nvidia-t4"}
NEVER = {
    "no job": ("[]", InvalidInput, "it is of type list"),
    "no model": ("name: x", InvalidInput, "key 'model' is missing"),
    "an unknown key": (job(serach={}), InvalidInput, "did you mean 'search'"),
    "outputs": (job(out="/tmp/x"), InvalidInput, "unknown key 'out'"),
    "a zoo entry": ({"model": {"zoo": "resnet"}}, InvalidInput, r"model\.zoo: no zoo entry is called 'resnet'"),
    "an architecture": (
        {"model": {"architecture": "resnet", "weights": "x"}}, InvalidInput, "the nearest is",
    ),
    "a device": (job(device={"name": "nvidia-h1000"}), InvalidInput, "unknown device 'nvidia-h1000'; nearest"),
    "a runtime of a cpu": (job(device={"runtime": "vllm"}), InvalidInput, "the cpu is measured where the job runs"),
    "a format without kernel": (
        job(device=GPU, space={"formats": ["fp8", "fp16"]}), NotMeasured, "fp8.*nvidia-t4|nvidia-t4.*fp8",
    ),
    "a proxy": (job(proxies=["hesian_trace"]), InvalidInput, "did you mean 'hessian_trace'"),
    "a formula": (job(proxies=["formula:mean(("]), InvalidInput, "formula|expected|expression"),
    "a price": (job(objectives=["quality", "sise_mb"]), InvalidInput, "did you mean 'size_mb'"),
    "a target": (job(export={"target": "onx"}), InvalidInput, "unknown export target 'onx'"),
    "a stop": (job(search={"stop": {"target": {"sise_mb": 1.0}}}), InvalidInput, "unknown 'sise_mb'"),
    "GPUs": (job(workers={"gpus": 1, "count": 2}), InvalidInput, "needs 2 GPUs, and no worker .* more than 0"),
    "evaluations": (job(search={"evaluations": 101}), InvalidInput, "101; this service allows 100"),
    "seconds": (job(budget={"seconds": 5000}), InvalidInput, "5000; this service allows up to 1000"),
    "money": (job(budget={"cost": 3}), InvalidInput, "nobody said what an hour of a worker costs"),
    "bits": (job(constraints={"avg_bits": 1.5}), InfeasibleBudget, "the fewest bits on offer are 2"),
    "megabytes": (job(constraints={"size_mb": 0.05}), InfeasibleBudget, r"in 2 bits has 0\.0679 MB"),
    "a long name": (job(name="x" * 300), InvalidInput, "up to 200 printable"),
    "no upload": ({"model": {"exported": "upload:" + "0" * 64}}, NotFound, "send the file first"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "error", "told"), NEVER.values(), ids=NEVER)
def test_what_can_never_run_is_told_why(settings, store, content, error, told):
    with pytest.raises(error, match=told) as caught:
        admit(content, ANN, settings, store)
    assert "\n" not in str(caught.value)


def test_bounds_of_attempts_and_seconds(settings, store):
    for arguments, told in (({"most_attempts": 0}, "give 1 to 20"), ({"most_seconds": -1.0}, "allows up to 1000")):
        with pytest.raises(InvalidInput, match=told):
            admit(ZOO, ANN, settings, store, **arguments)
    assert admit(ZOO, ANN, settings, store, most_seconds=5.0).most_seconds == 5
    assert admit(ZOO, ANN, settings, store).most_seconds == 1000


def test_money_becomes_seconds(settings, store):
    from dataclasses import replace

    paid = replace(settings, cost_per_hour=9.0)
    asked = admit(job(budget={"cost": 1.5}), ANN, paid, store)
    assert asked.most_seconds == pytest.approx(600)
    assert asked.specification["search"]["seconds"] == pytest.approx(600)


def test_gpus_and_cpus_of_workers_count(settings, store):
    asked = job(workers={"gpus": 0.5, "count": 3, "cpus": 2})
    Workers(store).seen("w1", {"gpus": 1, "cpus": 2})
    with pytest.raises(InvalidInput, match="needs 2 GPUs, and no worker of this service has more than 1"):
        admit(asked, ANN, settings, store)
    Workers(store).seen("w2", {"gpus": 2, "cpus": 1})
    assert admit(asked, ANN, settings, store).gpus == 2
    with pytest.raises(InvalidInput, match=r"workers\.cpus: 3 for each, and no worker of this service has more than 2"):
        admit(job(workers={"cpus": 3}), ANN, settings, store)


def test_uploads_allowed_urls_and_modules(settings, store):
    import io

    content = io.BytesIO()
    np.savez(content, inputs=np.zeros((4, 1, 8, 8), np.float32))
    data = accept(io.BytesIO(content.getvalue()), "data", "x.npz", "ann", settings, store)
    weights = save({"w": np.zeros(3, np.float32)})
    sent = accept(io.BytesIO(weights), "weights", "w.safetensors", "ann", settings, store)
    place = {"calibration": f"upload:{data.sha256}", "validation": "s3://team/public/val.npz"}
    source = {"architecture": "digits_resnet20", "weights": f"upload:{sent.sha256}"}
    asked = admit({"model": source, "data": place}, ANN, settings, store)
    assert asked.specification["model"]["weights"] == f"upload:{sent.sha256}"
    assert admit({"model": {"factory": "nets.ours:net"}, "data": place}, ANN, settings, store).name == "net"
    with pytest.raises(InvalidInput, match="is of kind data; weights is needed"):
        admit({"model": {**source, "weights": f"upload:{data.sha256}"}, "data": place}, ANN, settings, store)
    with pytest.raises(InvalidInput, match="takes blocks, width, stride, classes"):
        admit({"model": {**source, "arguments": {"depth": 2}}, "data": place}, ANN, settings, store)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("s3://team/public/a/b.npz", True),
        ("https://data.example/sets/x.npz", True),
        ("s3://team/public", False),
        ("s3://team/publicity/x.npz", False),
        ("s3://team/public/../x.npz", False),
        ("s3://team/public/%2e%2e/x.npz", False),
        ("https://data.example/sets/./x.npz", False),
        ("https://data.example.evil/sets/x.npz", False),
        ("https://data.example@evil/sets/x.npz", False),
        ("zip://x::s3://team/public/x.npz", False),
        ("s3://team/public/x::file:///etc/passwd", False),
        ("https://data.example/sets/x?to=http://evil/", False),
        ("S3://team/public/x.npz", False),
        ("file:///etc/passwd", False),
    ],
)
def test_urls_lie_under_what_is_allowed(settings, url, allowed):
    assert is_allowed(url, settings.allowed_urls) is allowed


def test_a_job_waits_for_the_tables_that_it_requires(settings, store):
    import io

    asked = job(device={**GPU, "tables": "required"}, space={"formats": ["w8a8", "fp16"]})
    waits = admit(asked, ANN, settings, store)
    assert (waits.needs, waits.waiting) == (["nvidia-t4"], True)
    queue = Queue(store)
    queued, _ = queue.submit(waits)
    rows = "".join(f"nvidia-t4,trtllm,{kind},{m},512,512,{0.1 * m}\n" for m in (1, 8) for kind in ("w8a8", "fp16"))
    table = f"device,runtime,format,m,n,k,median_ms\n{rows}".encode()
    accept(io.BytesIO(table), "table", "mine.csv", "ann", settings, store)
    assert queue.job(queued.id).waiting is False
    after = admit(asked, ANN, settings, store)
    assert (after.needs, after.waiting) == (["nvidia-t4"], False)
    with pytest.raises(InvalidInput, match="leave it out where tables are required"):
        admit(job(device={**GPU, "tables": "required", "runtime": "roofline"}), ANN, settings, store)
