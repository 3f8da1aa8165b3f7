"""What a sweep removes, what it keeps, and that a crash in its middle leaves nothing half told."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from bitfront.errors import NotFound
from bitfront.measurement import Measurement
from bitfront.service import retention
from bitfront.service.retention import Sweeper, pin, sweep
from bitfront.service.settings import Settings
from bitfront.space import Configuration
from bitfront.store import Artifacts, Claims, Events, Job, Queue, Store, StoredFile, Submission

DAY = 86_400.0


@pytest.fixture
def store(url):
    store = Store(url)
    yield store
    store.close()


@pytest.fixture
def settings(tmp_path):
    return Settings(outputs=str(tmp_path / "jobs"), keep_days=30, keep_newest=0)


def ended(store, settings, *, days=31.0, files=3, owner="ann", state="succeeded", out=""):
    """A job that ended so many days ago, with files and events."""
    job, _ = Queue(store).submit(Submission("demo", {"name": "demo"}, owner=owner, out=out))
    lease = Claims(store).claim("w")
    assert lease.job_id == job.id
    folder = Path(out or f"{settings.outputs}/{job.id}")
    (folder / "export").mkdir(parents=True)
    stored = []
    for number in range(files):
        path = folder / ("export" if number else ".") / f"{number:03d}.json"
        path.write_text("x" * 10)
        stored.append(StoredFile(path.relative_to(folder).as_posix(), str(path), 10, "0" * 64))
    (folder / "half.tmp").write_text("never recorded")
    Artifacts(store).put(job.id, stored)
    Events(store).add(job.id, [("log", {"line": str(number)}) for number in range(5)])
    Claims(store).finish(lease, state, "Done")
    with store.writing() as session:
        if state != "paused":
            session.get(Job, job.id).finished_at -= days * DAY
    return job.id, folder


def kept(store, job_id):
    return len(Artifacts(store).of(job_id)), len(Events(store).after(job_id))


def test_files_and_events_of_old_jobs_go_and_what_was_measured_stays(store, settings):
    old, folder = ended(store, settings)
    young, other = ended(store, settings, days=29)
    configuration = Configuration.from_dict({"a": "w4"})
    store.add_candidates(old, [(configuration, "uniform", 1.0)])
    store.save_evaluation("context", configuration, Measurement.of("kl", "validation", np.ones(4), 0.1))
    told = sweep(store, settings, dry=True)
    assert (told.jobs, told.files, told.bytes, told.events, told.dry) == ((old,), 3, 30, 5, True)
    assert kept(store, old) == (3, 5)
    assert folder.exists()
    found = sweep(store, settings)
    assert replace(found, dry=True) == told
    assert kept(store, old) == (0, 0)
    assert not folder.exists()
    assert kept(store, young) == (3, 5)
    assert (other / "half.tmp").exists()
    assert [row.configuration for row in store.candidates(old)] == [configuration.digest]
    assert configuration.digest in store.evaluations("context", "validation")
    assert [each.reason for each in Queue(store).conditions(old)][-1] == "Retention"
    assert Queue(store).job(old).state == "succeeded"
    assert sweep(store, settings).jobs == ()


def test_the_newest_of_every_owner_pinned_local_and_unfinished_jobs_are_kept(store, settings, tmp_path):
    jobs = {(owner, days): ended(store, settings, days=days, owner=owner)[0] for owner in "ab" for days in (40, 50, 60)}
    pin(store, jobs["a", 60])
    with store.running_job("mine", {}, str(tmp_path / "mine")) as local:
        Events(store).add(local, [("log", {"line": "kept"})])
    with store.writing() as session:
        session.get(Job, local).finished_at -= 100 * DAY
    paused, _ = ended(store, settings, days=0, state="paused")
    assert set(sweep(store, replace(settings, keep_newest=1)).jobs) == {jobs["a", 50], jobs["b", 60], jobs["b", 50]}
    assert kept(store, local)[1] == 1
    assert kept(store, paused) == (3, 5)
    pin(store, jobs["a", 60], False)
    assert sweep(store, replace(settings, keep_newest=1)).jobs == (jobs["a", 60],)
    with pytest.raises(NotFound, match="no job"):
        pin(store, "nothing")


def test_without_a_time_nothing_is_removed(store, settings):
    job, _ = ended(store, settings, days=10_000)
    assert sweep(store, replace(settings, keep_days=None)).jobs == ()
    assert kept(store, job) == (3, 5)


@pytest.mark.parametrize("after", [0, 1, 4, 7])
def test_a_sweep_that_is_killed_is_finished_by_the_next(store, settings, monkeypatch, after):
    job, folder = ended(store, settings, files=7)
    monkeypatch.setattr(retention, "_FILES", 3)
    calls, real = [], retention._remover

    def dying(place):
        def remove(location):
            if len(calls) == after:
                raise KeyboardInterrupt
            calls.append(location)
            real(place)(location)

        return remove

    with monkeypatch.context() as patch:
        patch.setattr(retention, "_remover", dying)
        if after < 7:
            with pytest.raises(KeyboardInterrupt):
                sweep(store, settings)
            assert len(list(folder.rglob("*.json"))) == 7 - after
            assert Artifacts(store).of(job) == []  # nobody is given a file that may be gone
            with pytest.raises(NotFound):
                Artifacts(store).get(job, "000.json")
    assert sweep(store, settings).jobs == (job,)
    assert not folder.exists()
    assert kept(store, job) == (0, 0)


def test_a_job_that_is_retried_while_it_is_swept_keeps_what_it_writes(store, settings, monkeypatch):
    job, folder = ended(store, settings, state="failed", files=4)
    monkeypatch.setattr(retention, "_FILES", 2)
    real = retention._remove_files

    def interrupted(store, job_id, place):
        removing = real(store, job_id, place)
        yield next(removing)
        Queue(store).retry(job_id)
        (folder / "new.json").write_text("new")
        yield from removing

    monkeypatch.setattr(retention, "_remove_files", interrupted)
    found = sweep(store, settings)
    assert found.files == 2
    assert (folder / "new.json").exists()
    assert len(list(folder.rglob("*.json"))) == 3
    lease = Claims(store).claim("w")
    Artifacts(store).put(job, [StoredFile("new.json", str(folder / "new.json"), 3, "0" * 64)])
    Claims(store).finish(lease, "succeeded", "Done")
    assert [file.name for file in Artifacts(store).of(job)] == ["new.json"]


def test_files_outside_of_the_job_s_folder_are_left_alone(store, settings, tmp_path):
    job, _ = ended(store, settings)
    precious = tmp_path / "precious.json"
    precious.write_text("mine")
    locations = [str(precious), f"{settings.outputs}/{job}/../../precious.json", f"{settings.outputs}/{job}x/file"]
    for location in locations:
        Artifacts(store).put(job, [StoredFile("a", location, 4, "0" * 64)])
        found = sweep(store, settings)
        assert found.files == 0
        assert "does not lie in" in found.left[job]
        assert precious.exists()


def test_a_folder_of_the_user_s_own_loses_only_what_the_job_wrote(store, settings, tmp_path):
    _, folder = ended(store, settings, out=str(tmp_path / "mine"))
    assert sweep(store, settings).files == 3
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["half.tmp"]


def test_outputs_in_object_storage_are_removed(store, settings):
    import fsspec

    place = "memory://bitfront-retention"
    job, _ = ended(store, settings, files=0)
    system = fsspec.filesystem("memory")
    for name in ("front.json", "export/p1.onnx"):
        system.pipe(f"/bitfront-retention/{job}/{name}", b"x")
    system.pipe("/bitfront-retention/other/front.json", b"x")
    Artifacts(store).put(job, [StoredFile("front.json", f"{place}/{job}/front.json", 1, "0" * 64)])
    assert sweep(store, replace(settings, outputs=place)).files == 1
    assert system.find("/bitfront-retention") == ["/bitfront-retention/other/front.json"]


def test_a_sweeper_sweeps_when_it_is_time_and_tells_of_errors(store, settings, capsys):
    job, folder = ended(store, settings)
    rare, often = Sweeper(store, settings), Sweeper(store, settings, every=0.0)
    rare.look()
    rare._thread.join(60)
    assert not folder.exists()
    assert kept(store, job) == (0, 0)
    other, _ = ended(store, settings)
    Artifacts(store).put(other, [StoredFile("a", "/etc/hostname", 4, "0" * 64)])
    rare.look()  # not yet
    rare._thread.join(60)
    assert kept(store, other) == (1, 5)
    often.look()
    often._thread.join(60)
    assert f"files of job {other} stay: /etc/hostname does not lie in" in capsys.readouterr().err
    rare.end()
    often.end()
    never = Sweeper(store, replace(settings, keep_days=None))
    never.look()
    never.end()


def test_two_sweeps_at_once_remove_everything_once(store, settings):
    jobs = {ended(store, settings)[0] for _ in range(4)}
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: sweep(Store(store.url), settings), range(2)))
    assert {job for each in found for job in each.jobs} == jobs
    assert sum(each.files for each in found) == 12
    assert not [reason for each in found for reason in each.left.values()]
    assert not list(Path(settings.outputs).iterdir())


def test_a_sweep_that_is_told_to_stop_begins_no_further_job(store, settings):
    ended(store, settings)
    stop = Event()
    stop.set()
    assert sweep(store, settings, stop=stop).jobs == ()
