"""Users, tokens, audit trail, events and files of the service, on SQLite and PostgreSQL."""

import pytest
from bitfront.errors import InvalidInput, LeaseLost, NotFound
from bitfront.store import (
    Access,
    Artifacts,
    Claims,
    Events,
    LeasedStore,
    Queue,
    Store,
    StoredFile,
    Submission,
    Workers,
)
from sqlalchemy import text


@pytest.fixture
def store(url):
    store = Store(url)
    yield store
    store.close()


def test_a_token_tells_who_asks_and_is_kept_as_a_hash(store, url):
    access = Access(store)
    access.add_user("ann", "submitter")
    token = access.new_token("ann", "laptop")
    found = Access(Store(url)).identify(token)
    assert (found.name, found.role) == ("ann", "submitter")
    assert [found.may(role) for role in ("viewer", "submitter", "admin")] == [True, True, False]
    with store.session() as session:
        kept = session.execute(text("SELECT * FROM tokens")).all()
    assert token not in str(kept)
    assert access.identify(token[:-1] + "x") is None
    assert access.identify("") is None


def test_tokens_expire_and_are_revoked(store):
    access = Access(store)
    access.add_user("ann", "viewer")
    assert access.identify(access.new_token("ann", seconds=-1.0)) is None
    token = access.new_token("ann", seconds=60.0)
    assert access.identify(token) is not None
    assert access.revoke_tokens("ann") == 2
    assert access.identify(token) is None
    token = access.new_token("ann")
    access.add_user("ann", "admin")
    assert access.identify(token).role == "admin"
    access.remove_user("ann")
    assert (access.identify(token), access.users()) == (None, [])


def test_bad_users_are_refused(store):
    access = Access(store)
    with pytest.raises(InvalidInput, match="viewer, submitter, admin"):
        access.add_user("ann", "root")
    with pytest.raises(InvalidInput, match="printable"):
        access.add_user("a\nb", "viewer")
    for act in (access.new_token, access.remove_user):
        with pytest.raises(NotFound):
            act("nobody")


def test_the_audit_trail_is_read_from_its_end(store):
    access = Access(store)
    for number in range(5):
        access.record("ann", "submit", f"job {number}", "allowed")
    newest = access.trail(count=2)
    assert [line.target for line in newest] == ["job 4", "job 3"]
    assert [line.target for line in access.trail(count=2, before=newest[-1].id)] == ["job 2", "job 1"]


def test_a_reader_of_events_goes_on_where_it_was(store, url):
    job, _ = Queue(store).submit(Submission("demo", {}))
    events = Events(store)
    events.add(job.id, [("log", {"line": number}) for number in range(3)])
    events.add(job.id, [("progress", {"done": 1})])
    events.add(job.id, [])
    first = Events(Store(url)).after(job.id, count=2)
    assert [event.content["line"] for event in first] == [0, 1]
    assert [event.kind for event in events.after(job.id, first[-1].id)] == ["log", "progress"]
    assert [event.content for event in events.after(job.id, kinds=["progress"])] == [{"done": 1}]
    events.forget(job.id, ["log"])
    assert [event.kind for event in events.after(job.id)] == ["progress"]


def test_events_of_a_lost_lease_are_not_written(store, url):
    queue, claims = Queue(store), Claims(store)
    job, _ = queue.submit(Submission("demo", {}))
    lease = claims.claim("w")
    leased = Events(LeasedStore(url, lease))
    leased.add(job.id, [("log", {"line": 0})])
    claims.finish(lease, "failed", "Crashed")
    with pytest.raises(LeaseLost):
        leased.add(job.id, [("log", {"line": 1})])
    assert len(Events(store).after(job.id)) == 1


def test_artifacts_and_uploads(store, url):
    job, _ = Queue(store).submit(Submission("demo", {}))
    files = [StoredFile("best.json", "/out/best.json", 10, "a" * 64), StoredFile("export/m.onnx", "/o/m", 5, "b" * 64)]
    artifacts = Artifacts(store)
    artifacts.put(job.id, files[:1])
    artifacts.put(job.id, files)
    assert Artifacts(Store(url)).of(job.id) == files
    assert artifacts.get(job.id, "export/m.onnx").bytes == 5
    with pytest.raises(NotFound, match="no artifact"):
        artifacts.get(job.id, "../etc/passwd")
    artifacts.add_upload("table", StoredFile("l40s.csv", "/up/c", 7, "c" * 64), "ann", {"rows": 3})
    artifacts.add_upload("table", StoredFile("again.csv", "/up/c", 7, "c" * 64), "bob")
    (upload,) = artifacts.uploads("table")
    assert (upload.owner, upload.details, artifacts.upload("c" * 64).name) == ("ann", {"rows": 3}, "l40s.csv")
    assert artifacts.uploads("weights") == []
    with pytest.raises(NotFound):
        artifacts.upload("d" * 64)


def test_workers_are_known_while_they_give_signs_of_life(store):
    workers = Workers(store)
    workers.seen("w1", {"gpus": 0})
    workers.seen("w2", {"gpus": 1})
    workers.seen("w1", {"gpus": 0}, draining=True)
    assert [(each.id, each.capabilities["gpus"], each.draining) for each in workers.alive()] == [
        ("w1", 0, True),
        ("w2", 1, False),
    ]
    assert workers.alive(seconds=-1.0) == []
    workers.gone("w1")
    assert [each.id for each in workers.alive()] == ["w2"]
