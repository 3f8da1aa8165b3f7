"""A real server with jobs in every state, for the pages: one search that ran, and others made from its records."""

import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest
from bitfront.dashboard import PATHS_VARIABLE, SERVER_VARIABLE
from bitfront.measurement import Measurement
from bitfront.search.problem import FLOAT
from bitfront.service.api import create_app
from bitfront.service.job import parse_job
from bitfront.service.job_arrays import knowledge_of
from bitfront.service.run_job import run_job
from bitfront.service.settings import Settings
from bitfront.service.worker.outputs import files_of
from bitfront.store import Access, Artifacts, Claims, Events, LeasedStore, Queue, Store, Submission

SERVICE = Path(__file__).parents[1] / "service"
RUNNING = runpy.run_path(str(SERVICE / "conftest.py"))["running"]
EVIL = "<script>alert(1)</script> ![x](http://127.0.0.1/x.png)"


@dataclasses.dataclass
class Served:
    """A server, its store, tokens by user, and jobs by what they are."""

    url: str
    store: Store
    settings: Settings
    tokens: dict[str, str]
    jobs: dict[str, str]


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """Jobs: ``finished``, ``queued``, ``failed`` (with a log), ``running`` (some measured), ``empty`` (running, nothing
    measured), ``starting`` (running, nothing priced); two have HTML in their name or reason.
    """
    place = tmp_path_factory.mktemp("served")
    (place / "tiny_dashboard_factory.py").write_text((SERVICE / "tiny_factory.py").read_text())
    generator = np.random.default_rng(0)
    for name, samples in (("calib", 8), ("val", 32)):
        np.savez(place / f"{name}.npz", inputs=generator.normal(size=(samples, 3, 8, 8)).astype("float32"))
    content = {
        "name": "tiny",
        "model": {"factory": "tiny_dashboard_factory:tiny"},
        "data": {"calibration": "calib.npz", "validation": "val.npz", "batch": 8},
        "space": {"formats": ["w2", "w4", "w8"]},
        "objectives": ["quality", "size_mb", "avg_bits"],
        "proxies": ["weight_mse"],
        "search": {"evaluations": 8},
        "export": None,
    }
    settings = Settings(
        store=f"sqlite:///{place}/store.db", outputs=str(place / "jobs"), uploads=str(place / "uploads")
    )
    store = Store(settings.store)
    queue, claims, events = Queue(store), Claims(store), Events(store)
    access = Access(store)
    for name, role in (("ada", "admin"), ("sam", "submitter"), ("vic", "viewer")):
        access.add_user(name, role)

    def queued(name, owner="sam"):
        return queue.submit(Submission(name, {**content, "name": name, "folder": str(place)}, owner=owner))[0].id

    jobs = {"finished": queued("tiny")}
    lease = claims.claim("w")
    out = place / "jobs" / jobs["finished"]
    leased = LeasedStore(store.url, lease)
    run_job(parse_job(content, "tiny"), place, out, store=leased, executor="local")
    Artifacts(leased).put(jobs["finished"], files_of(out, str(out)))
    claims.finish(lease, "succeeded", "Done", "best p01")
    leased.close()
    record = queue.job(jobs["finished"]).record
    knowledge = knowledge_of(store, queue.job(jobs["finished"]))

    def measured(job_id, count):
        draw = np.random.default_rng(1)
        found = [FLOAT, *knowledge.space.uniforms().values()]
        while len(found) < count:
            one = knowledge.space.configuration([draw.choice(np.flatnonzero(row)) for row in knowledge.space.allowed])
            if one not in found:
                found.append(one)
        store.add_candidates(job_id, [(one, "test", None if one == FLOAT else 1.0) for one in found])
        for one in found:
            bits = np.mean([knowledge.space.formats.index(name) for name in one.to_dict().values()] or [9])
            values = np.exp(-bits) * draw.uniform(0.5, 1.5, size=8)
            store.save_evaluation(
                knowledge.contexts["validation"], one, Measurement.of("kl", "validation", values, 0.01)
            )

    for name in ("running", "empty", "starting", "failed"):
        jobs[name] = queued(EVIL if name == "running" else name)
        other = claims.claim("w")
        assert other.job_id == jobs[name]
        if name in ("running", "empty"):
            store.add_record(jobs[name], record)
        if name == "running":
            measured(jobs[name], 20)
        if name == "failed":
            events.add(jobs[name], [("log", {"line": "Traceback: the factory raised ValueError: no weights"})])
            claims.finish(other, "failed", "BadInput", f"the factory raised ValueError {EVIL}")
    jobs["queued"] = queued("queued", owner="ada")
    tokens = {each.name: access.new_token(each.name) for each in access.users()}
    with RUNNING(create_app(settings, store)) as port:
        yield Served(f"http://127.0.0.1:{port}", store, settings, tokens, jobs)
    store.close()


@pytest.fixture
def connected(served, monkeypatch, tmp_path):
    """The server for the app of this test; no run folders."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("BITFRONT_TOKEN", raising=False)
    monkeypatch.setenv(SERVER_VARIABLE, served.url)
    monkeypatch.setenv(PATHS_VARIABLE, "")
    return served
