"""SIGKILL at random moments of a joint search: nothing committed is measured again, the front is the same."""

import json
import multiprocessing
import os
import signal
import sqlite3

import numpy as np
import pytest
from bitfront.search import LocalExecutor
from bitfront.search.joint import JointEvaluator, run_joint

KILLS = 2


def child(task, family, folder):
    """One start: notes every evaluation as it begins, and the front when it ends."""
    evaluate = JointEvaluator.evaluate_many

    def noted(self, configurations, split="validation", *arguments, architecture=None, **options):
        with (folder / "executed").open("a") as stream:
            for each in configurations:
                stream.write(f"{architecture.digest} {each.digest} {split}\n")
        return evaluate(self, configurations, split, *arguments, architecture=architecture, **options)

    JointEvaluator.evaluate_many = noted
    found = run_joint(
        task,
        family,
        formats=["w2", "w4"],
        objectives=["quality", "size_mb"],
        evaluations=12,
        executor=LocalExecutor(shard_size=1),
        store=f"sqlite:///{folder}/store.db",
    )
    side = folder / "front.side"
    side.write_text(json.dumps(json.loads(found.front.to_json())))
    side.replace(folder / "front")


def committed(folder):
    """Rows of the store by genome and split."""
    if not (folder / "store.db").exists():
        return {}
    with sqlite3.connect(folder / "store.db", timeout=30) as connection:
        try:
            rows = connection.execute("SELECT configuration, split, value, created_at FROM evaluations").fetchall()
        except sqlite3.OperationalError:  # killed before the tables were made
            rows = []
    connection.close()
    return {row[:2]: row[2:] for row in rows}


def executed(folder):
    path = folder / "executed"
    return path.read_text().splitlines() if path.exists() else []


def started(task, family, folder):
    process = multiprocessing.get_context("fork").Process(target=child, args=(task, family, folder))
    process.start()
    return process


@pytest.fixture(scope="module")
def undisturbed(digits_task, digits, tmp_path_factory):
    """Front and evaluations of a search that nobody kills."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = started(digits_task, digits, folder)
    process.join(120)
    assert process.exitcode == 0
    return json.loads((folder / "front").read_text()), executed(folder)


def test_killed_at_random_moments_nothing_is_lost_or_done_twice(digits_task, digits, tmp_path, undisturbed):
    wanted, evaluations = undisturbed
    assert len(set(evaluations)) == len(evaluations)
    moments = np.random.default_rng(0)
    for start in range(KILLS + 1):
        before = committed(tmp_path)
        process = started(digits_task, digits, tmp_path)
        if start < KILLS:
            count = len(executed(tmp_path)) + int(moments.integers(1, max(2, (len(evaluations) - len(before)) // 2)))
            while process.is_alive() and len(executed(tmp_path)) < count:
                process.join(0.002)
            process.join(float(moments.uniform(0, 0.05)))
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        else:
            process.join(120)
        after = committed(tmp_path)
        assert {key: after[key] for key in before} == before  # the very same rows
    assert process.exitcode == 0
    assert json.loads((tmp_path / "front").read_text()) == wanted
    assert set(executed(tmp_path)) == set(evaluations)
    assert len(committed(tmp_path)) == len(evaluations)
    assert len(executed(tmp_path)) <= len(evaluations) + KILLS  # at most the one that was running is run again
