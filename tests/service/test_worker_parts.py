"""Parts of a worker: the heartbeat through outages, events through outages, the stop signal, the pipe, memory."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from bitfront.errors import InvalidInput, LeaseLost
from bitfront.service.errors_of_database import unreachable
from bitfront.service.worker.child import _outcome
from bitfront.service.worker.event_progress import EventProgress
from bitfront.service.worker.heartbeat import Heartbeat
from bitfront.service.worker.job_end import Ended
from bitfront.service.worker.order import Order
from bitfront.service.worker.pipe import InHand, Listener, Outcome, Teller
from bitfront.service.worker.process_tree import ProcessTree, _is_actor
from bitfront.service.worker.quarantine import blame, had_deaths
from bitfront.service.worker.redaction import redacted
from bitfront.service.worker.stop_signal import StopSignal
from bitfront.store import Claims, Events, Lease, LeasedStore, Queue, Store, Submission
from sqlalchemy.exc import OperationalError

AWAY = OperationalError("UPDATE", {}, Exception("the server is away"))


class FakeClaims:
    """Answers beats with what it is told to."""

    def __init__(self, *answers):
        self.answers, self.beats = list(answers), 0

    def beat(self, lease, progress):
        self.beats += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def eventually(true, seconds=30.0):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def beating(claims, seconds):
    return Heartbeat(claims, Lease("job", 1, "w", seconds), dict)


def test_a_heartbeat_survives_errors_of_the_database_and_hears_wishes():
    claims = FakeClaims(AWAY, AWAY, "", AWAY, "pause", "")
    with beating(claims, 4.0) as heartbeat:
        eventually(lambda: heartbeat.wish == "pause")
        assert not heartbeat.lost
    assert claims.beats >= 5


def test_a_heartbeat_gives_its_lease_up_when_the_database_stays_away():
    with beating(FakeClaims(AWAY), 0.4) as heartbeat:
        assert not heartbeat.lost
        eventually(lambda: heartbeat.lost)
        assert "has not answered" in heartbeat.lost


def test_a_heartbeat_tells_that_its_lease_is_lost():
    with beating(FakeClaims(LeaseLost("no longer holds it")), 60.0) as heartbeat:
        eventually(lambda: heartbeat.lost)
        assert heartbeat.lost == "no longer holds it"


def test_the_pipe_tells_what_was_in_hand_when_the_process_died():
    read, write = os.pipe()
    listener, teller = Listener(read), Teller(write)
    teller.progress({"stage": "search"})
    teller.in_hand("c", "validation", [{"a": "w4"}])
    teller.put_down(done=True)
    teller.in_hand("c", "holdout", [{"a": "w2"}, {"a": "w8"}])
    os.write(write, b'{"outcome": {"end')  # torn
    os.close(write)
    assert listener.outcome() is None
    assert listener.in_hand == InHand("c", "holdout", ({"a": "w2"}, {"a": "w8"}))
    assert (listener.progress, listener.evaluated) == ({"stage": "search"}, True)


def test_the_pipe_tells_the_outcome():
    read, write = os.pipe()
    listener = Listener(read)
    Teller(write).outcome(Outcome("failed", "é" * 100_000))
    os.close(write)
    assert listener.outcome() == Outcome("failed", "é" * 100_000)


def interrupted_while(reached, stop):
    os.kill(os.getpid(), signal.SIGINT)
    reached.append("what was in hand")
    stop.here()
    reached.append("the next")


def test_a_signal_waits_for_what_is_in_hand_and_a_second_one_does_not():
    stop, before = StopSignal(), signal.getsignal(signal.SIGINT)
    stop.install()
    try:
        reached = []
        with pytest.raises(KeyboardInterrupt), stop.after_what_is_in_hand():
            interrupted_while(reached, stop)
        assert reached == ["what was in hand"]
        stop = StopSignal()
        stop.install()
        with pytest.raises(KeyboardInterrupt), stop.after_what_is_in_hand():
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):  # outside at once, also the second time
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def leased(url):
    """A leased store of a claimed job."""
    store = Store(url)
    Queue(store).submit(Submission("demo", {}))
    yield LeasedStore(store, Claims(store).claim("w"))
    store.close()


def progress_on(events, leased, tmp_path):
    read, write = os.pipe()
    listener = Listener(read)
    return EventProgress(events, leased.lease.job_id, Teller(write), tmp_path / "run.log", 12), listener, write


class Flaky(Events):
    """Away for the first transactions."""

    def __init__(self, store, errors):
        super().__init__(store)
        self.errors, self.transactions = errors, 0

    def add(self, job_id, events):
        self.transactions += 1
        if self.errors:
            raise self.errors.pop()
        super().add(job_id, events)


def test_events_wait_for_a_database_that_is_away_and_keep_their_order(leased, tmp_path):
    events = Flaky(leased, [AWAY, AWAY])
    progress, listener, write = progress_on(events, leased, tmp_path)
    with progress, progress.stage("search", 50) as advance:
        for number in range(50):
            advance(1)
            progress.note(f"line {number} of bf_0123456789012345678901234")
    os.close(write)
    lines = [each.content["line"] for each in Events(leased).after(leased.lease.job_id, kinds=["log"])]
    assert lines == [f"line {number} of ***" for number in range(50)]
    assert events.transactions < 20  # not one a line
    assert len((tmp_path / "run.log").read_text().splitlines()) == 52
    listener.outcome()
    assert listener.progress == {
        "stage": "search", "done": 50, "total": 50, "eta_seconds": 0.0, "status": "", "evaluated": 50, "evaluations": 12
    }  # fmt: skip


def test_a_lost_lease_stops_what_is_told(leased, tmp_path):
    progress, _, write = progress_on(Flaky(leased, [LeaseLost("gone")]), leased, tmp_path)
    with progress:
        progress.note("the first")
        eventually(lambda: progress._lost is not None)
        with pytest.raises(LeaseLost):
            progress.note("the second")
    os.close(write)


def test_a_candidate_is_given_up_when_it_was_alone_and_not_for_the_first_time(leased):
    job_id, several = leased.lease.job_id, InHand("c", "validation", ({"a": "w2"}, {"a": "w4"}))
    assert not had_deaths(leased, job_id)
    assert not blame(leased, job_id, several, "SIGSEGV")
    assert had_deaths(leased, job_id)
    assert not blame(leased, job_id, InHand("c", "validation", ({"a": "w8"},)), "SIGSEGV")
    assert blame(leased, job_id, InHand("c", "validation", ({"a": "w4"},)), "SIGSEGV")
    (given_up,) = leased.failures("c", "validation")
    assert given_up.to_dict() == {"a": "w4"}
    assert not leased.failures("other", "validation")


def test_a_death_that_came_from_outside_blames_no_candidate():
    in_hand = InHand("c", "validation", ({"a": "w2"},))
    for code, more, blamed in (
        (-signal.SIGSEGV, {}, True),
        (-signal.SIGABRT, {}, True),
        (3, {}, True),
        (-signal.SIGKILL, {}, False),
        (-signal.SIGTERM, {}, False),
        (-signal.SIGKILL, {"out_of_memory": True}, True),
        (-signal.SIGKILL, {"killed": "used 9 GB of memory"}, True),
    ):
        assert (Ended(None, code, in_hand, **more).suspects is in_hand) == blamed
    assert Ended(None, -signal.SIGSEGV).suspects is None


def test_a_database_that_is_away_when_a_job_starts_is_not_the_jobs_fault():
    url = "postgresql+psycopg://ann:hush@127.0.0.1:1/db"
    order = Order(url, Lease("job", 1, "w", 60.0), "out", "local", None, os.getpid())
    assert Order.from_json(order.to_json()) == order
    read, write = os.pipe()
    outcome = _outcome(order, Teller(write), StopSignal())
    assert outcome.ending == "unavailable"
    assert "refused" in outcome.message
    for broken in (url, "no-such-database://ann:hush@host/db", "ann:hush@host"):
        with pytest.raises(InvalidInput) as refused:
            Store(broken)
        assert "hush" not in str(refused.value)
    os.close(read)
    os.close(write)


def test_secrets_are_left_out():
    assert redacted("postgresql+psycopg://ann:p:w@host/db") == "postgresql+psycopg://ann:***@host/db"
    assert redacted("Authorization: Bearer abc.def") == "Authorization: Bearer ***"
    assert redacted("sqlite:///a/b.db at 10:30, mail ann@host") == "sqlite:///a/b.db at 10:30, mail ann@host"


def test_a_tree_is_killed_with_what_outlived_its_root():
    script = "import subprocess as s; print(s.Popen(['sleep', '100'], start_new_session=True).pid, flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    grandchild = int(process.stdout.readline())
    tree = ProcessTree(process.pid)
    held = tree.look()
    assert 1e6 < tree.memory() <= held * 1.5
    assert tree.largest_actor() is None
    process.kill()
    process.wait()
    tree.kill()
    eventually(lambda: not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == "zombie")


def test_the_agents_of_ray_are_not_taken_for_actors():
    assert _is_actor("ray::ShardWorker.train()")
    assert not _is_actor("ray::DashboardAgent")
    assert not _is_actor("")


def test_a_database_that_is_away_is_told_from_one_that_refuses(postgres_url):
    import psycopg

    with pytest.raises(psycopg.OperationalError) as found:
        psycopg.connect("host=127.0.0.1 port=1 user=nobody")
    assert unreachable(OperationalError("", {}, found.value))
    assert unreachable(OperationalError("", {}, psycopg.errors.AdminShutdown()))
    assert not unreachable(OperationalError("", {}, psycopg.errors.DiskFull()))
    assert not unreachable(AWAY)
    assert not unreachable(ValueError())
