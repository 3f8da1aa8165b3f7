"""The queue: what people and workers may do with a job, on SQLite and PostgreSQL."""

import threading
import time

import pytest
from bitfront.errors import Conflict, LeaseLost, NotFound
from bitfront.store import Claims, LeasedStore, Limits, Queue, Store, Submission
from sqlalchemy import text

QUICK = Limits(lease_seconds=1.5, back_off=0.0)
PAST = 1.8  # seconds after which such a lease has run out


@pytest.fixture
def store(url):
    store = Store(url)
    yield store
    store.close()


def told(queue, job_id):
    return [(each.type, each.reason) for each in queue.conditions(job_id)]


def test_a_job_runs_from_submission_to_success(store, url):
    queue, claims = Queue(store), Claims(store)
    job, new = queue.submit(Submission("demo", {"seed": 0}, owner="ann"))
    assert (new, job.state) == (True, "queued")
    lease = claims.claim("w1")
    assert (lease.job_id, lease.attempt) == (job.id, 1)
    assert claims.claim("w2") is None
    assert claims.beat(lease, {"stage": "score"}) == ""
    claims.finish(lease, "succeeded", "Done", "8 points")
    again = Queue(Store(url)).job(job.id)  # read back by a new connection
    assert (again.state, again.reason, again.progress, again.worker) == (
        "succeeded",
        "8 points",
        {"stage": "score"},
        "",
    )
    assert again.finished_at >= again.started_at >= again.queued_at
    assert told(queue, job.id) == [("Queued", "Submitted"), ("Running", "Claimed"), ("Succeeded", "Done")]
    with pytest.raises(LeaseLost):
        claims.finish(lease, "failed", "Late")


def test_an_idempotency_key_submits_once(store):
    queue = Queue(store)
    first, _ = queue.submit(Submission("demo", {"seed": 0}, owner="ann", key="k"))
    same, new = queue.submit(Submission("demo", {"seed": 0}, owner="ann", key="k"))
    assert (same.id, new) == (first.id, False)
    other, new = queue.submit(Submission("demo", {"seed": 0}, owner="bob", key="k"))
    assert (other.id != first.id, new) == (True, True)
    with pytest.raises(Conflict, match="'k' belongs to"):
        queue.submit(Submission("demo", {"seed": 1}, owner="ann", key="k"))


def test_priority_comes_first_then_the_owner_with_the_fewest_running_then_age(store):
    queue, claims = Queue(store), Claims(store)
    asked = [("a1", "ann", 0), ("a2", "ann", 0), ("b1", "bob", 0), ("a3", "ann", 5)]
    ids = {name: queue.submit(Submission(name, {}, owner=owner, priority=rank))[0].id for name, owner, rank in asked}
    taken = [claims.claim("w").job_id for _ in asked]
    assert taken == [ids[name] for name in ("a3", "b1", "a1", "a2")]


def test_limits_of_concurrency(store):
    queue = Queue(store)
    for owner in ("ann", "ann", "bob", "cid"):
        queue.submit(Submission("demo", {}, owner=owner))
    one_each = Claims(store, Limits(per_owner=1))
    assert [one_each.claim("w") is not None for _ in range(4)] == [True, True, True, False]
    assert Claims(store, Limits(running=3)).claim("w") is None
    assert Claims(store, Limits(running=4)).claim("w") is not None


def test_a_job_that_needs_gpus_or_measurements_waits_for_them(store):
    queue, claims = Queue(store), Claims(store)
    queue.submit(Submission("gpu", {}, gpus=1))
    waits, _ = queue.submit(Submission("table", {}, needs=["nvidia-l40s"], waiting=True))
    assert claims.claim("w") is None
    assert queue.measured(["cpu"]) == 0
    assert queue.measured(["cpu", "nvidia-l40s"]) == 1
    assert claims.claim("w").job_id == waits.id
    assert claims.claim("w", gpus=1) is not None


def test_an_expired_lease_is_recovered_and_its_late_writes_are_refused(store, url):
    queue, claims = Queue(store), Claims(store, QUICK)
    job, _ = queue.submit(Submission("demo", {}))
    lease = claims.claim("dies")
    late = LeasedStore(url, lease)
    late.save_score("before", "p", {}, 0.0)
    time.sleep(PAST)
    with pytest.raises(LeaseLost):
        late.save_score("expired", "p", {}, 0.0)
    second = claims.claim("lives")
    assert (second.job_id, second.attempt, second.epoch > lease.epoch) == (job.id, 2, True)
    for write in (
        lambda: late.save_score("late", "p", {}, 0.0),
        lambda: (
            late.add_candidates(job.id, []) or late.save_failure("c", _configuration(), "validation", "r", final=True)
        ),
        lambda: claims.beat(lease),
        lambda: claims.give_back(lease, "Late", "late"),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert store.score("before") is not None
    assert store.score("expired") is None
    assert store.score("late") is None
    assert ("Queued", "LeaseExpired") in told(queue, job.id)


def test_a_process_that_was_stopped_inside_a_transaction_does_not_hold_the_queue_up(postgres_url):
    store = Store(postgres_url)
    with store.writing() as session:
        session.execute(text("TRUNCATE jobs CASCADE"))
    queue, claims = Queue(store), Claims(store, QUICK)
    stuck, _ = queue.submit(Submission("stuck", {}))
    lease = claims.claim("stops")
    with LeasedStore(postgres_url, lease).writing() as session:  # holds the job's row
        assert session.scalar(text("SHOW idle_in_transaction_session_timeout")) == "30s"
        time.sleep(PAST)
        other, _ = queue.submit(Submission("other", {}))
        assert claims.claim("goes on").job_id == other.id
        assert queue.job(stuck.id).state == "running"
    assert claims.claim("later").job_id == stuck.id
    store.close()


def test_an_attempt_that_does_not_count_may_wait(store):
    queue, claims = Queue(store), Claims(store, Limits(back_off=60.0))
    job, _ = queue.submit(Submission("demo", {}, gpus=1))
    lease = claims.claim("w", gpus=2)
    assert lease.gpus == 1
    claims.give_back(lease, "StoreUnavailable", "away", counts=False, later=True)
    assert claims.claim("w", gpus=2) is None
    assert (queue.job(job.id).state, queue.job(job.id).attempt) == ("queued", 0)


def _configuration():
    import bitfront as bf

    return bf.Configuration.from_dict({"a": "w4"})


def test_a_job_that_kills_its_workers_is_given_up(store):
    queue, claims = Queue(store), Claims(store, QUICK)
    job, _ = queue.submit(Submission("demo", {}, most_attempts=2))
    for _ in range(2):
        assert claims.claim("w") is not None
        time.sleep(PAST)
    assert claims.claim("w") is None
    job = queue.job(job.id)
    assert (job.state, job.attempt) == ("failed", 2)
    assert "no attempt is left of 2" in job.reason
    assert queue.retry(job.id).state == "queued"
    assert claims.claim("w").attempt == 1


def test_back_off_and_drained_attempts(store):
    queue, claims = Queue(store), Claims(store, Limits(back_off=0.2))
    job, _ = queue.submit(Submission("demo", {}))
    assert claims.give_back(claims.claim("w"), "Crashed", "exit 1") == "queued"
    assert claims.claim("w") is None
    time.sleep(0.25)
    lease = claims.claim("w")
    assert lease.attempt == 2
    claims.give_back(lease, "Drained", "the worker is shut down", counts=False)
    assert claims.claim("w").attempt == 2
    assert queue.job(job.id).attempt == 2


def test_pause_resume_cancel_in_every_state(store):
    queue, claims = Queue(store), Claims(store)
    job, _ = queue.submit(Submission("demo", {}))
    assert queue.pause(job.id, "ann").state == "paused"
    assert queue.pause(job.id).state == "paused"
    assert claims.claim("w") is None
    assert queue.resume(job.id).state == "queued"
    with pytest.raises(Conflict, match="nothing to resume"):
        queue.resume(job.id)
    lease = claims.claim("w")
    assert queue.pause(job.id).state == "running"
    assert claims.beat(lease) == "pause"
    assert queue.cancel(job.id).wish == "cancel"
    with pytest.raises(Conflict, match="being cancelled"):
        queue.pause(job.id)
    assert claims.beat(lease) == "cancel"
    claims.finish(lease, "cancelled", "Asked")
    assert queue.cancel(job.id).state == "cancelled"
    with pytest.raises(Conflict, match="nothing to pause"):
        queue.pause(job.id)
    assert queue.retry(job.id).state == "queued"
    lease = claims.claim("w")
    claims.finish(lease, "succeeded", "Done")
    for verb in (queue.pause, queue.cancel, queue.resume, queue.retry):
        with pytest.raises(Conflict):
            verb(job.id)
    with pytest.raises(NotFound):
        queue.cancel("nope")


def test_what_was_asked_of_a_dead_worker_is_done(store):
    queue, claims = Queue(store), Claims(store, QUICK)
    first, _ = queue.submit(Submission("first", {}))
    second, _ = queue.submit(Submission("second", {}))
    for job, verb in ((first, queue.cancel), (second, queue.pause)):
        claims.claim("dies")
        verb(job.id)
    time.sleep(PAST)
    assert claims.recover() == 2
    assert [queue.job(job.id).state for job in (first, second)] == ["cancelled", "paused"]


def test_time_is_counted_over_attempts_and_ends(store):
    queue, claims = Queue(store), Claims(store, QUICK)
    job, _ = queue.submit(Submission("demo", {}, most_seconds=0.3))
    lease = claims.claim("w")
    time.sleep(0.2)
    assert claims.beat(lease) == ""
    claims.give_back(lease, "Crashed", "exit 1")
    lease = claims.claim("w")
    time.sleep(0.2)
    assert claims.beat(lease) == "over"
    claims.finish(lease, "failed", "OutOfTime")
    assert 0.4 <= queue.job(job.id).seconds_used < 2.0


def test_a_page_goes_on_where_the_one_before_ended(store):
    queue = Queue(store)
    made = [
        queue.submit(Submission(f"job {number}", {}, owner="ann" if number % 2 else "bob"))[0] for number in range(7)
    ]
    seen, before = [], None
    while page := queue.list(count=3, before=before):
        seen += [job.id for job in page]
        before = (page[-1].queued_at, page[-1].id)
    assert seen == [job.id for job in reversed(made)]
    assert {job.owner for job in queue.list(owner="ann")} == {"ann"}
    assert [job.name for job in queue.list(name="job 3")] == ["job 3"]
    assert queue.list(states=["running"]) == []
    assert queue.counts() == {"queued": 7}


def test_many_claims_at_once_take_every_job_once(store, url):
    queue = Queue(store)
    ids = {queue.submit(Submission(f"job {number}", {}))[0].id for number in range(20)}
    taken, gate = [], threading.Barrier(6)

    def work(name):
        own = Store(url)
        gate.wait()
        while lease := Claims(own).claim(name):
            taken.append(lease.job_id)
        own.close()

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(ids)


def test_the_clock_is_the_databases(store, monkeypatch):
    """A worker whose clock is an hour wrong holds and loses its lease like any other."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    queue, claims = Queue(store), Claims(store, QUICK)
    job, _ = queue.submit(Submission("demo", {}))
    assert abs(job.queued_at - real()) < 60
    lease = claims.claim("w")
    assert claims.beat(lease) == ""
    assert claims.claim("thief") is None
    time.sleep(PAST)
    assert claims.claim("next").attempt == 2


def test_moments_are_seconds_since_1970(store):
    with store.session() as session:
        from bitfront.store.clock import clock
        from sqlalchemy import select

        assert abs(session.scalar(select(clock())) - time.time()) < 60
        assert session.scalar(text("SELECT 1")) == 1
