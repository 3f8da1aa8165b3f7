"""A job with space.architecture is seen while it runs: after every measurement, cut off, taken up again, ended."""

import contextlib
import sys

import numpy as np
import pytest
from bitfront.architecture import Choices, Genome
from bitfront.errors import Conflict
from bitfront.search import LocalExecutor
from bitfront.search.joint import JointSpace
from bitfront.service.api import create_app
from bitfront.service.export_order import submission
from bitfront.service.job import parse_job
from bitfront.service.job_arrays import SPLITS
from bitfront.service.job_front import front_of
from bitfront.service.reproduce import found_by
from bitfront.service.run_job import run_job
from bitfront.service.settings import Settings
from bitfront.service.verbs.front_of_job import show_front
from bitfront.service.worker.outputs import files_of
from bitfront.space import Configuration
from bitfront.store import (
    Access,
    Artifact,
    Artifacts,
    Candidate,
    Claims,
    Evaluation,
    Failure,
    Job,
    LeasedStore,
    Queue,
    Score,
    Store,
    Submission,
)
from fastapi.testclient import TestClient
from sqlalchemy import delete, inspect, select, update

MODULE = """
import torch
from bitfront.architecture import ArchitectureSpace, Dimension
from torch import nn


def net(width=12, depth=2):
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, width, 3, padding=1), nn.Linear(width, 5)
    middle = [layer for _ in range(depth) for layer in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU())]
    for layer in middle[::2]:  # they change nothing, so that networks without them are as good
        nn.init.dirac_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.ReLU(), *middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()


class Overflow(nn.Module):
    def forward(self, x):
        return torch.where(x.abs().amax() > 40, x * float("inf"), x)


class Nets:
    name, digest = "live nets", "6" * 16

    def __init__(self, task):
        self.architecture = ArchitectureSpace(
            (Dimension("width", "width", (8, 12)), Dimension("depth", "depth", (0, 1, 2)))
        )

    def build(self, choices):
        made = net(int(choices["width"]), int(choices["depth"]))
        return nn.Sequential(Overflow(), *made).eval() if dict(choices) == {"width": 8, "depth": 1} else made

    def resolution(self, choices):
        return None
"""
JOB = {
    "name": "nets",
    "model": {"factory": "live_nets:net"},
    "data": {"calibration": "calib.npz", "validation": "val.npz", "batch": 16},
    "space": {"formats": ["w2", "w4", "w8"], "architecture": {"family": "live_nets:Nets"}},
    "objectives": ["quality", "size_mb"],
    "constraints": {"size_mb": 0.003},
    "search": {"evaluations": 16},
    "export": None,
}


class Watched(LocalExecutor):
    """Calls back after every outcome that was committed; may be cut off after so many."""

    def __init__(self, look, last=None):
        super().__init__(shard_size=1)
        self.look, self.last, self.outcomes = look, last, []

    def drive(self, rounds, recipe, commit):
        def committed(outcome):
            commit(outcome)
            self.outcomes.append(outcome)
            self.look()
            if len(self.outcomes) == self.last:
                raise KeyboardInterrupt

        super().drive(rounds, recipe, committed)


class Service:
    """A store with a server in front of it, and jobs run under leases as a worker does."""

    def __init__(self, place):
        self.place, self.store = place, Store(f"sqlite:///{place}/store.db")
        access = Access(self.store)
        access.add_user("sam", "submitter")
        self.settings = Settings(store=self.store.url, outputs=str(place / "jobs"))
        headers = {"Authorization": f"Bearer {access.new_token('sam')}"}
        self.http = TestClient(create_app(self.settings, self.store), base_url="http://127.0.0.1:8765", headers=headers)

    def submit(self, **changes):
        specification = {**parse_job({**JOB, **changes}, "nets").plain(), "folder": str(self.place)}
        return Queue(self.store).submit(Submission("nets", specification, owner="sam"))[0].id

    def get(self, path, **params):
        answer = self.http.get(f"/v1/jobs/{path}", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def candidates(self, job):
        return self.get(f"{job}/candidates", limit=1000)["candidates"]

    def work(self, executor, *, held=False):
        """One attempt of the job at the head of the queue: its document, or ``None`` if it was cut off.

        ``held``: one that was cut off keeps its lease and so is still running for those who look.
        """
        claims = Claims(self.store)
        lease = claims.claim("w")
        asked = Queue(self.store).job(lease.job_id)
        out, leased = self.place / "jobs" / asked.id, LeasedStore(self.store.url, lease)
        job = parse_job({key: value for key, value in asked.specification.items() if key != "folder"}, "nets")
        try:
            _, document = run_job(job, self.place, out, store=leased, executor=executor)
        except KeyboardInterrupt:
            if not held:
                claims.give_back(lease, "CutOff", "cut off", later=False)
            return None
        finally:
            leased.close()
        Artifacts(self.store).put(asked.id, files_of(out, str(out)))
        claims.finish(lease, "succeeded", "Done")
        return document


@contextlib.contextmanager
def joint_service(place):
    """A service with the family and the data of ``JOB`` in a folder."""
    (place / "live_nets.py").write_text(MODULE)
    generator = np.random.default_rng(0)
    for name, count in (("calib", 32), ("val", 64)):
        images = generator.normal(size=(count, 3, 8, 8)).astype("float32")
        images[::16, 0, 0, 0] = 50.0 if name == "val" else 3.0
        np.savez(place / f"{name}.npz", inputs=images)
    before = list(sys.path)
    sys.modules.pop("live_nets", None)
    made = Service(place)
    try:
        yield made
    finally:
        made.store.close()
        sys.path[:] = before
        sys.modules.pop("live_nets", None)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with joint_service(tmp_path_factory.mktemp("joint_live")) as made:
        yield made


@pytest.fixture(scope="module")
def watched(service):
    """A job that was cut off after ten measurements and then ran to its end: all answers meanwhile, its document."""
    seen = []
    job = service.submit()

    def look():
        built, JointSpace.build = JointSpace.build, None  # a server that built a network would fail
        try:
            seen.append((service.get(f"{job}/front", networks=True), service.candidates(job)))
        finally:
            JointSpace.build = built

    look()
    assert service.work(Watched(look, last=10)) is None
    look()
    return job, seen, service.work(Watched(look))


def genome_of(row):
    return Genome(Choices.from_dict(row["architecture"]), Configuration.from_dict(row["config"]))


def test_before_it_runs_there_is_nothing_and_that_is_said(watched):
    _, seen, _ = watched
    front, candidates = seen[0]
    assert (front["kind"], front["state"], front["metric"]) == ("joint", "queued", None)
    assert (front["proposed"], front["measured"], front["points"], front["float"]) == (0, 0, [], {})
    assert candidates == []


def test_every_measurement_is_seen_at_once(watched):
    _, seen, _ = watched
    measured = [front["measured"] for front, _ in seen]
    assert measured == sorted(measured)
    assert measured[1] == 1
    assert [front["state"] for front, _ in seen[1:11]] == ["running"] * 10
    assert seen[11][0]["state"] == "queued"
    assert seen[11][0]["points"] == seen[10][0]["points"] != []  # cut off: what was found is still there
    for front, candidates in seen[1:]:
        assert front["proposed"] == len(candidates) > 0
        assert front["measured"] == sum(row["state"] == "measured" for row in candidates)
        assert front["failed"] == sum(row["state"] == "failed" for row in candidates)
        assert front["architectures"] == len({str(row["architecture"]) for row in candidates})
        assert front["unpriced"] == 0
        assert front["float"]["validation"]["samples"] > 0
    assert any(row["state"] == "proposed" for _, candidates in seen[1:] for row in candidates)


def test_the_front_is_the_non_dominated_part_of_what_was_measured(watched):
    _, seen, _ = watched
    for front, candidates in seen[1:]:
        rows = {
            row["configuration"]: (row["measured"]["validation"]["value"], row["prices"]["size_mb"])
            for row in candidates
            if row["state"] == "measured" and row["config"]
        }

        def dominated(digest, rows=rows):
            mine = rows[digest]
            return any(all(np.array(other) <= mine) and other != mine for other in rows.values())

        points = {point["digest"]: point for point in front["points"]}
        assert {digest for digest, point in points.items() if point["pareto"]} == {
            digest for digest in rows if not dominated(digest)
        }
        for digest, point in points.items():
            assert genome_of(point).digest == digest
            assert point["pareto"] or point["baseline"]
            assert point["id"] == (f"uniform-{point['baseline']}" if point["baseline"] else digest)
            assert (point["measured"]["validation"]["value"], point["prices"]["size_mb"]["value"]) == rows[digest]
            assert point["feasible"] == (point["prices"]["size_mb"]["value"] <= 0.003 * (1 + 1e-9))
            layers = front["networks"][point["architecture_digest"]]
            assert {layer["name"] for layer in layers} == set(point["config"])


def test_what_was_seen_is_what_the_job_wrote(watched):
    _, seen, document = watched
    written = {point["digest"]: point for point in document["points"]}
    for front, _ in seen[1:]:
        for point in front["points"]:
            told = written[point["digest"]]
            assert point["prices"] == told["prices"]
            for name in ("value", "low", "high"):
                assert point["measured"]["validation"][name] == told["measured"]["validation"][name]
    last = {point["digest"]: point for point in seen[-1][0]["points"]}
    assert len({point["architecture_digest"] for point in last.values()}) > 1
    assert set(last) == {digest for digest, point in written.items() if point["pareto"] or point["baseline"]}
    for digest, point in last.items():
        for name in ("pareto", "baseline", "feasible", "origin", "architecture", "architecture_digest", "config"):
            assert point[name] == written[digest][name], name
        for split in ("validation", "holdout"):
            assert (point["measured"][split] or {}).get("value") == (written[digest]["measured"][split] or {}).get(
                "value"
            )
        sites = document["architectures"][point["architecture_digest"]]["sites"]
        assert seen[-1][0]["networks"][point["architecture_digest"]] == sites
    for split, quality in seen[-1][0]["float"].items():
        assert quality["value"] == document["float"][split]["value"]
    assert seen[-1][0]["metric"] == document["metric"]


def test_a_genome_that_cannot_be_measured_is_told_with_its_reason(watched):
    _, seen, document = watched
    failed = [row for row in seen[-1][1] if row["state"] == "failed"]
    assert failed
    assert {row["configuration"] for row in failed} == set(document["failed"])
    for row in failed:
        assert row["architecture"] == {"width": 8, "depth": 1}
        assert "NaN or infinity" in row["failure"]
        assert row["measured"] == {"validation": None, "holdout": None}


def test_when_it_has_succeeded_points_are_called_as_in_its_report(service, watched):
    job, seen, document = watched
    found = service.get(f"{job}/front")
    assert found["best"] == {"id": document["best"], "reason": document["best_reason"]}
    assert {point["id"] for point in found["points"]} <= {point["id"] for point in document["points"]}
    assert {point["digest"] for point in found["points"]} == {point["digest"] for point in seen[-1][0]["points"]}
    assert "networks" not in found
    layers = service.get(f"{job}/front", networks=True)["networks"]
    assert layers == seen[-1][0]["networks"]


def test_columns_are_refused_in_one_line_that_says_what_to_ask_instead(service, watched):
    job, _, _ = watched
    waiting = service.submit(search={"evaluations": 7})
    for each in (job, waiting):
        answer = service.http.get(f"/v1/jobs/{each}/columns")
        assert answer.status_code == 422
        told = answer.json()["error"]["message"]
        assert told.startswith(f"columns of job {each}: it searches architectures")
        assert f"/v1/jobs/{each}/front?networks=true" in told
        assert "\n" not in told
    Queue(service.store).cancel(waiting)


def test_a_point_is_not_exported_by_the_service_and_that_is_said(service, watched):
    job, seen, _ = watched
    for point in ("best", seen[-1][0]["points"][0]["digest"]):
        with pytest.raises(Conflict, match="searches architectures"):
            submission(service.store, Queue(service.store).job(job), point, "onnx", owner="sam")


def test_a_job_that_finds_everything_measured_has_the_same_front(service, watched):
    _, seen, document = watched
    job = service.submit(name="again")
    again = service.work(executor := Watched(lambda: None))
    assert executor.outcomes == []
    assert again["best"] == document["best"]
    found = service.store.candidates(job)
    assert {row.configuration for row in found} == {row["configuration"] for row in seen[-1][1]}
    known = found_by(service.store, Queue(service.store).job(job)).measured
    assert len(known) == sum(row["measured"][split] is not None for row in seen[-1][1] for split in SPLITS)
    with service.store.writing() as session:
        session.execute(delete(Artifact).where(Artifact.job_id == job))
    lost = front_of(service.store, Queue(service.store).job(job), networks=True)  # its files were removed
    assert [point["digest"] for point in lost["points"]] == [point["digest"] for point in seen[-1][0]["points"]]
    assert lost["networks"] == seen[-1][0]["networks"]


def test_genomes_without_recorded_prices_are_counted_not_hidden(service, watched):
    job, seen, _ = watched
    other = service.submit(name="older")
    with service.store.writing() as session:
        for row in service.store.candidates(job):
            values = {
                name: getattr(row, name) for name in ("configuration", "formats", "origin", "predicted", "position")
            }
            session.add(type(row)(job_id=other, **values))
    service.store.add_record(other, Queue(service.store).job(job).record)
    found = front_of(service.store, Queue(service.store).job(other), networks=True)
    formats = [row for row in seen[-1][1] if row["config"] and row["state"] == "measured"]
    assert (found["points"], found["unpriced"], found["measured"]) == ([], len(formats), seen[-1][0]["measured"])
    Queue(service.store).cancel(other)


def test_a_budget_is_still_refused_while_it_runs(service, watched):
    job, _, _ = watched
    answer = service.http.post(f"/v1/jobs/{job}/solve", json={"budgets": {"size_mb": 1.0}})
    assert answer.status_code == 422
    assert "searches architectures" in answer.text


class _Told:
    """A client that was told one front."""

    def __init__(self, front):
        self.front = front

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def front_document(self, job_id):
        return self.front


@pytest.mark.parametrize("moment", [0, 1, 8, -1])
def test_the_terminal_shows_what_there_is(watched, moment, monkeypatch, capsys):
    _, seen, _ = watched
    front = seen[moment][0]
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("bitfront.service.client.Client", lambda server: _Told(front))
    show_front(front["job"], [], None, False)
    told = capsys.readouterr().out
    assert f"{front['measured']} measured of {front['proposed']} proposed" in told
    if not front["measured"]:
        assert "nothing is measured yet" in told
    elif not front["points"]:
        assert "no quantized network is measured yet" in told
    for point in front["points"]:
        assert point["id"][:16] in told


def test_the_terminal_names_the_best_of_a_job_that_has_succeeded(service, watched, monkeypatch, capsys):
    job, _, document = watched
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("bitfront.service.client.Client", lambda server: _Told(service.get(f"{job}/front")))
    show_front(job, [], None, False)
    told = " ".join(capsys.readouterr().out.split())
    assert f"best {document['best']}: {document['best_reason']}" in told


def test_every_database_gives_the_same_front(service, watched, url):
    job, seen, _ = watched
    other = Store(url)
    for model in (Job, Candidate, Evaluation, Failure, Score):
        with service.store.session() as source, other.writing() as session:
            for row in source.scalars(select(model)):
                session.add(model(**{each.key: getattr(row, each.key) for each in inspect(model).column_attrs}))
    with other.writing() as session:
        session.execute(update(Job).values(state="running"))
    found, told = front_of(other, Queue(other).job(job), networks=True), seen[-1][0]
    other.close()
    assert found == {name: told[name] for name in found}
