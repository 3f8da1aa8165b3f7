"""``bitfront front JOB --budget``, jobs by content, export as a stage, files by URL."""

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest
import yaml
from bitfront.errors import InvalidInput
from bitfront.service import parse_job, read_job
from bitfront.service.front_job import answer_job, parse_budgets, told
from bitfront.service.job_key import job_key
from bitfront.service.locations import digest, inside, is_url, opened, writable_folder
from bitfront.service.run_job import executor_of, run_job
from bitfront.store import Store

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A job that was run once, its data partly in memory:// ."""
    place = tmp_path_factory.mktemp("front_job")
    (place / "tiny_front_factory.py").write_text((HERE / "tiny_factory.py").read_text())
    generator = np.random.default_rng(0)
    np.savez(place / "calib.npz", inputs=generator.normal(size=(8, 3, 8, 8)).astype("float32"))
    with fsspec.open("memory://bitfront-tests/val.npz", "wb") as stream:
        np.savez(stream, inputs=generator.normal(size=(32, 3, 8, 8)).astype("float32"))
    job = {
        "name": "tiny",
        "model": {"factory": "tiny_front_factory:tiny"},
        "data": {"calibration": "calib.npz", "validation": "memory://bitfront-tests/val.npz", "batch": 8},
        "space": {"formats": ["w2", "w3", "w4", "w8"]},
        "objectives": ["quality", "size_mb"],
        "proxies": ["weight_mse"],
        "search": {"evaluations": 7},
        "export": {"target": "onnx"},
    }
    (place / "job.yaml").write_text(yaml.safe_dump(job))
    return place


class Notes:
    """Keeps what it is told."""

    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)

    status = note

    def stage(self, name, total):
        from bitfront.search import Silent

        self.lines.append(name)
        return Silent().stage(name, total)


def start(folder):
    notes = Notes()
    job, place = read_job(folder / "job.yaml")
    _, document = run_job(
        job, place, folder / "out", store=f"sqlite:///{folder}/store.db", executor="local", progress=notes
    )
    return document, notes


@pytest.fixture(scope="module")
def ran(folder):
    return start(folder)


def test_the_second_run_reuses_every_stage_and_the_artifact(folder, ran):
    first = {row["stage"]: row for row in ran[0]["stages"]}
    assert {"trace", "calibrate", "price", "score", "propose", "measure", "validate", "refit", "export"} <= set(first)
    assert first["trace"]["ran"] == first["export"]["ran"] == 1
    artifact = folder / "out" / ran[0]["exports"][0]["path"]
    written = artifact.stat().st_mtime_ns
    document, notes = start(folder)
    for row in document["stages"]:
        if row["stage"] not in ("refit",) and row["detail"] != "candidates":
            assert row["ran"] == 0, row
    assert artifact.stat().st_mtime_ns == written
    assert document["exports"] == ran[0]["exports"]
    assert any(line.startswith("stage export onnx: reused 1") for line in notes.lines)

    artifact.write_bytes(b"damaged")  # not the artifact that was checked: it is exported again
    document, _ = start(folder)
    assert {row["stage"]: row["ran"] for row in document["stages"]}["export"] == 1
    assert artifact.stat().st_size == document["exports"][0]["bytes_on_disk"]


def test_a_new_budget_is_answered_measured_or_predicted_and_then_measured(folder, ran):
    url = f"sqlite:///{folder}/store.db"
    sizes = [point["prices"]["size_mb"]["value"] for point in ran[0]["points"]]
    answers = [answer_job(folder / "job.yaml", {"size_mb": size}, store=url)
               for size in np.linspace(min(sizes), max(sizes), 9)]  # fmt: skip
    open_, settled = ([each for each in answers if each.settled is wanted] for wanted in (False, True))
    assert open_
    assert settled
    lines = "\n".join(told(open_[0], folder / "job.yaml", ["size_mb=1"]))
    assert "PREDICTED" in lines
    assert "to measure it: bitfront front" in lines
    assert "MEASURED" in "\n".join(told(settled[0], folder / "job.yaml", ["size_mb=1"]))

    wanted = open_[0].resolved.configuration
    found = answer_job(folder / "job.yaml", open_[0].budgets, store=url, measure=True)
    assert found.settled
    assert found.points == open_[0].points + 1
    same = [each for each in (found.resolved,) if each.configuration == wanted]
    if same:  # the new measurement can change which proxy is trusted
        assert same[0].measured.split == "holdout"
    assert json.dumps(found.plain(), allow_nan=False)


def test_the_key_of_a_job_is_its_content(folder, tmp_path):
    job, place = read_job(folder / "job.yaml")
    base = job_key(job, place)
    plain = job.plain()
    same = ({"name": "x"}, {"constraints": {"size_mb": 1.0}}, {"export": None}, {"proxies": ["hessian_trace"]})
    other = ({"quality": "relative_error"}, {"space": {"formats": ["w4"]}}, {"device": {"name": "cpu", "batch": 2}},
             {"model": {"factory": "tiny_front_factory:slow"}}, {"search": {"seed": 1}},
             {"data": {**plain["data"], "validation": "calib.npz"}})  # fmt: skip
    assert {job_key(parse_job({**plain, **change}), place) for change in same} == {base}
    assert len({base, *(job_key(parse_job({**plain, **change}), place) for change in other)}) == len(other) + 1
    source = folder / "tiny_front_factory.py"
    before = source.read_text()
    source.write_text(before + "\n# changed\n")
    assert job_key(job, place) != base
    source.write_text(before)
    assert job_key(job, place) == base
    with pytest.raises(InvalidInput, match=r"data.calibration: no file"):
        answer_job(write(tmp_path, {**plain, "data": {"calibration": "no.npz"}}), {}, store=f"sqlite:///{tmp_path}/s")
    with pytest.raises(InvalidInput, match="holds nothing of this job"):
        answer_job(folder / "job.yaml", {"size_mb": 1.0}, store=f"sqlite:///{tmp_path}/empty.db")
    with pytest.raises(InvalidInput, match="write PRICE=MAX"):
        parse_budgets(["size_mb"])


def write(folder, plain):
    (folder / "job.yaml").write_text(yaml.safe_dump(plain))
    return folder / "job.yaml"


def test_locations(tmp_path):
    assert is_url("memory://a/b")
    assert not is_url("a/b.npz")
    assert inside(tmp_path, "b.npz") == str(tmp_path / "b.npz")
    assert inside(tmp_path, "memory://b.npz") == "memory://b.npz"
    (tmp_path / "b").write_bytes(b"content")
    with fsspec.open("memory://bitfront-tests/b", "wb") as stream:
        stream.write(b"content")
    found = {digest(tmp_path / "b", "x"), digest(f"file://{tmp_path}/b", "x"), digest("memory://bitfront-tests/b", "x")}
    assert len(found) == 1
    for missing in (str(tmp_path / "c"), f"file://{tmp_path}/c", "memory://bitfront-tests/c"):
        with pytest.raises(InvalidInput, match="x: no file"), opened(missing, "x"):
            pass
    with pytest.raises(InvalidInput, match="nosuch"), opened("nosuch://a", "x"):
        pass


def test_a_large_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr("bitfront.service.locations._CACHED_FROM", 4)
    store, file = Store(f"sqlite:///{tmp_path}/s.db"), tmp_path / "large"
    file.write_bytes(b"12345")
    first = digest(file, "x", store)
    with monkeypatch.context() as patch:
        patch.setattr("bitfront.service.locations.opened", None)  # not read again
        assert digest(file, "x", store) == first
    file.write_bytes(b"123456")
    assert digest(file, "x", store) != first


def test_an_output_folder_by_url_is_complete_or_has_only_the_log():
    target = "memory://bitfront-tests/out"

    def fails():
        with writable_folder(target) as place:
            (place / "run.log").write_text("why")
            (place / "front.json").write_text("{}")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert [Path(found).name for found in fsspec.filesystem("memory").find("/bitfront-tests/out")] == ["run.log"]
    with writable_folder(target) as place:
        (place / "export").mkdir()
        (place / "export/a.onnx").write_bytes(b"1")
        (place / "front.json").write_text("{}")
    found = {str(name).partition("out/")[2] for name in fsspec.filesystem("memory").find("/bitfront-tests/out")}
    assert found == {"run.log", "front.json", "export/a.onnx"}


def test_keys_of_the_search_are_checked():
    base = {"model": {"zoo": "digits_resnet20"}}
    job = parse_job({**base, "search": {"proposers": ["uniform", "level_switch"], "stop": {"no_improvement": 9}}})
    assert job.search.proposers == ["uniform", "level_switch"]
    with pytest.raises(InvalidInput, match="did you mean 'level_switch'"):
        parse_job({**base, "search": {"proposers": ["levelswitch"]}})
    with pytest.raises(InvalidInput, match="no_improvement"):
        parse_job({**base, "search": {"stop": {"no_improvments": 9}}})
    found = executor_of("ray", parse_job({**base, "workers": {"count": 3, "address": "auto"}}))
    assert (found.workers, found.address) == (3, "auto")
