"""Stands in for the process of a job in tests of workers: does at once what the specification says, without torch."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bitfront.service.worker.child import die_with
from bitfront.service.worker.order import Order
from bitfront.service.worker.pipe import Outcome, Teller
from bitfront.service.worker.stop_signal import StopSignal
from bitfront.store import LeasedStore, Queue


def main():
    stop = StopSignal()
    stop.install()
    order = Order.from_json(sys.stdin.readline())
    die_with(order.parent)
    teller = Teller(int(sys.argv[1]))
    store = LeasedStore(order.store, order.lease)
    asked = Queue(store).job(order.lease.job_id).specification
    teller.progress({"stage": "stand in", "pid": os.getpid()})
    try:
        what = asked["do"][min(order.lease.attempt, len(asked["do"])) - 1]
        teller.outcome(globals()[what](store, asked, teller))
    except KeyboardInterrupt:
        teller.outcome(Outcome("stopped", "stopped"))


def succeed(store, asked, teller):
    return Outcome("succeeded", "all is well")


def refuse(store, asked, teller):
    return Outcome("bad_input", "no such model")


def fail(store, asked, teller):
    sys.stdout.write("the last words, with postgresql://ann:secret@host/db\n")
    sys.stdout.flush()
    return Outcome("failed", "something went wrong")


def unavailable(store, asked, teller):
    return Outcome("unavailable", "the database does not answer")


def wait(store, asked, teller):
    """Write a score every moment, for long."""
    side = Path(asked["folder"], "pid.side")
    side.write_text(str(os.getpid()))
    side.replace(side.with_suffix(""))
    for number in range(10**6):
        store.save_score(f"{asked['name']} {number}", "proxy", {}, 0.0)
        time.sleep(0.02)


def segfault(store, asked, teller):
    teller.in_hand("context", "validation", [{"a": "w4"}])
    ctypes.string_at(0)


def deaf(store, asked, teller):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wait(store, asked, teller)


def hog(store, asked, teller):
    held = []
    while True:
        held.append(bytearray(b"x") * 20_000_000)
        time.sleep(0.02)


def hog_in_actor(store, asked, teller):
    """An actor of Ray grows until somebody kills it."""
    grow = "import time\nheld = []\nwhile True:\n held.append(bytearray(b'x') * 20_000_000)\n time.sleep(0.02)"
    actor = subprocess.Popen(["ray::ShardWorker", "-c", grow], executable=sys.executable)
    return Outcome("succeeded", f"its actor ended with {actor.wait()}")


def look(store, asked, teller):
    """What others can see of this process."""
    here = Path("/proc/self")
    seen = {"argv": (here / "cmdline").read_text(), "environment": (here / "environ").read_text()}
    seen["gpus"] = os.environ.get("CUDA_VISIBLE_DEVICES")
    Path(asked["folder"], "seen.json").write_text(json.dumps(seen))
    return Outcome("succeeded", "looked")


if __name__ == "__main__":
    main()
