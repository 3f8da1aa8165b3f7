"""Running a job again from its record: what counts as the same, and what is told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from bitfront.errors import Conflict, InvalidInput, NotFound
from bitfront.measurement import Measurement
from bitfront.service import read_job
from bitfront.service.compare_runs import Change, Found, changes, compare
from bitfront.service.reproduce import reproduce
from bitfront.service.run_job import read_document, run_job
from bitfront.store import Artifacts, Evaluation, Job, Queue, Store, StoredFile, Submission

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("reproduce")
    (place / "tiny_reproduce_factory.py").write_text((HERE / "tiny_factory.py").read_text())
    generator = np.random.default_rng(0)
    for name, samples in (("calib", 8), ("val", 32)):
        np.savez(place / f"{name}.npz", inputs=generator.normal(size=(samples, 3, 8, 8)).astype("float32"))
    job = {
        "model": {"factory": "tiny_reproduce_factory:tiny"},
        "data": {"calibration": "calib.npz", "validation": "val.npz", "batch": 8},
        "space": {"formats": ["w2", "w4", "w8"]},
        "objectives": ["quality", "size_mb"],
        "proxies": ["weight_mse"],
        "search": {"evaluations": 7},
        "export": None,
    }
    (place / "job.yaml").write_text(yaml.safe_dump(job))
    return place


@pytest.fixture
def ran(folder, tmp_path):
    """A store with a job that has just been run."""
    store = Store(f"sqlite:///{tmp_path}/store.db")
    asked, place = read_job(folder / "job.yaml")
    run_job(asked, place, tmp_path / "out", store=store, executor="local")
    yield store, store.jobs()[0]
    store.close()


class Notes:
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)

    status = note

    def stage(self, name, total):
        from bitfront.search import Silent

        return Silent().stage(name, total)


def test_the_same_job_gives_the_same_to_the_bit(ran, tmp_path):
    store, job = ran
    notes = Notes()
    found = reproduce(job.id, store, tmp_path / "again", progress=notes)
    assert (found.verdict, found.reproduced, found.changes) == ("same to the bit", True, ())
    told = found.plain()
    assert told["measurements"]["same to the bit"] == len(found.pairs) > 8
    assert told["best"]["same"]
    assert told["front"]["common"] == told["front"]["then"] == told["front"]["now"] > 1
    assert not [line for line in notes.lines if line.startswith("changed")]
    assert found.told()[-1] == "verdict       same to the bit"
    document = read_document(tmp_path / "again")
    assert document["record"]["search"]["contexts"] == job.record["search"]["contexts"]
    with pytest.raises(InvalidInput, match="holds a store already"):
        reproduce(job.id, store, tmp_path / "again")


def test_what_changed_is_told_first_and_a_differing_measurement_is_found(ran, tmp_path):
    store, job = ran
    record = {**job.record, "versions": {**job.record["versions"], "torch": "0.1"}}
    store.add_record(job.id, record)
    context = job.record["search"]["contexts"]["validation"]
    digest = next(row.configuration for row in store.candidates(job.id) if row.origin == "uniform")
    with store.writing() as session:
        row = session.get(Evaluation, (context, digest, "validation"))
        values = 3 * np.frombuffer(row.values, dtype="<f8")
        row.values, row.value, row.low, row.high = values.tobytes(), 3 * row.value, 2.9 * row.value, 3.1 * row.value
    notes = Notes()
    found = reproduce(job.id, store, tmp_path / "again", progress=notes)
    assert notes.lines[0].startswith("changed since: versions.torch: 0.1 then")
    assert [change.what for change in found.changes] == ["versions.torch"]
    assert (found.verdict, found.reproduced) == ("differs", False)
    assert [(pair.configuration, pair.verdict) for pair in found.pairs if pair.verdict == "differs"] == [
        (digest, "differs")
    ]
    assert any(line.strip().startswith(f"{digest} validation") for line in found.told())


def test_uploads_are_read_where_they_lie(ran, tmp_path, folder):
    store, job = ran
    sha = "ab" * 32
    Artifacts(store).add_upload("data", StoredFile("val.npz", str(folder / "val.npz"), 1, sha), "ann")
    with store.writing() as session:
        found = session.get(Job, job.id)
        found.specification = {
            **found.specification,
            "data": {**found.specification["data"], "validation": f"upload:{sha}"},
        }
    assert reproduce(job.id, store, tmp_path / "again").verdict == "same to the bit"


def test_jobs_without_measurements_cannot_be_reproduced(ran, tmp_path):
    store, job = ran
    waiting, _ = Queue(store).submit(Submission("demo", {}))
    with pytest.raises(Conflict, match="is queued and has measured nothing"):
        reproduce(waiting.id, store, tmp_path / "again")
    with pytest.raises(NotFound):
        reproduce("nothing", store, tmp_path / "again")
    store.set_job_state(job.id, "running")
    with pytest.raises(Conflict, match="is running"):
        reproduce(job.id, store, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def measured(value, spread=0.1, samples=50, split="validation"):
    values = value + spread * np.linspace(-1, 1, samples)
    return Measurement.of("kl", split, values, 0.1)


def run(**values):
    found = {(name, split): measured(value, split=split) for name, value in values.items() for split in ("validation",)}
    return Found(found, frozenset(values), min(values, key=values.get))


def test_verdicts_of_two_runs():
    then = run(a=1.0, b=2.0)
    assert compare(then, then)[1] == "same to the bit"
    assert compare(then, run(a=1.001, b=2.0))[1] == "within intervals"
    pairs, verdict = compare(then, run(a=1.0, b=9.0))
    assert (pairs[0].configuration, pairs[0].verdict, verdict) == ("b", "differs", "differs")
    assert compare(then, run(a=1.0, b=9.0), tolerance=4.0)[1] == "within intervals"
    assert compare(then, run(c=1.0)) == ([], "differs")
    assert compare(then, run(a=1.0, b=2.0, c=3.0))[1] == "within intervals"  # more was measured
    assert compare(then, replace(then, best="b"))[1] == "differs"  # b was clearly worse then
    assert compare(then, replace(then, best=None))[1] == "differs"
    assert compare(then, replace(then, front=frozenset("a")))[1] == "within intervals"
    close = run(a=1.0, b=1.001)
    assert compare(close, replace(close, best="b"))[1] == "within intervals"


def test_records_are_compared_key_by_key():
    then = {"seed": 1, "versions": {"torch": "1", "ray": "2"}, "search": {"key": "a", "prices": {"size_mb": {"x": 1}}}}
    now = {"seed": 1, "versions": {"torch": "2"}, "search": {"key": "b", "prices": {"size_mb": {"x": 2}}}}
    assert changes(then, now) == (
        Change("search.prices.size_mb.x", 1, 2),
        Change("versions.ray", "2", None),
        Change("versions.torch", "1", "2"),
    )
