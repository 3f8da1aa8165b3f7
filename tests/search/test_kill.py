"""SIGKILL at random moments, started again until done; benchmarks/kill.py does the same to `bitfront run`, at length.

Required: no evaluation runs a second time after it was committed; none that was committed is lost or changed; the final
front is that of an undisturbed search.
"""

import json
import multiprocessing
import os
import signal
import sqlite3

import bitfront as bf
import numpy as np
import pytest
from bitfront import zoo
from bitfront.evaluators import FakeQuantEvaluator
from bitfront.search import LocalExecutor

ROUNDS = 3
KILLS = 2  # in each; every start goes on from where the last one was killed


@pytest.fixture(scope="module")
def task():
    entry = zoo.load("digits_resnet20", calibration=32, validation=32, holdout=32)
    return bf.Task(
        entry.model,
        calibration=entry.calibration,
        validation=entry.validation,
        holdout=entry.holdout,
        quality="kl",
        name="digits",
    )


@pytest.fixture(scope="module")
def space(task):
    return bf.SearchSpace.from_model(task.model, task.calibration[0], formats=["w2", "w3", "w4", "w8"])


def search(task, space, folder):
    return bf.run(
        task,
        space,
        objectives=["quality", "size_mb"],
        constraints={"avg_bits": 5.0},
        evaluations=16,
        proxies=["weight_mse"],
        executor=LocalExecutor(shard_size=1),
        store=f"sqlite:///{folder}/store.db",
        out=str(folder),
    )


def child(task, space, folder):
    """One start: notes every evaluation as it begins, and the front when it ends."""
    evaluate = FakeQuantEvaluator.evaluate_many

    def noted(self, configurations, split="validation", *arguments, **options):
        with (folder / "executed").open("a") as stream:
            for each in configurations:
                stream.write(f"{each.digest} {split}\n")
        return evaluate(self, configurations, split, *arguments, **options)

    FakeQuantEvaluator.evaluate_many = noted
    found = search(task, space, folder)
    side = folder / "front.side"
    side.write_text(json.dumps(front(found)))
    side.replace(folder / "front")


def front(result):
    return [
        [point.id, point.configuration.digest, point.validation.value, point.holdout and point.holdout.value]
        for point in result.points
        if point.pareto or point.baseline
    ]


def committed(folder):
    """What the store holds: (configuration, split) -> the row."""
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
    return [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []


def started(task, space, folder):
    process = multiprocessing.get_context("fork").Process(target=child, args=(task, space, folder))
    process.start()
    return process


@pytest.fixture(scope="module")
def undisturbed(task, space, tmp_path_factory):
    """Front and evaluations of a search that nobody kills."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = started(task, space, folder)
    process.join(120)
    assert process.exitcode == 0
    return json.loads((folder / "front").read_text()), executed(folder)


def kill(process, folder, moments, left):
    """SIGKILL after a random number of the evaluations that are left, and a random part of the next one."""
    count = len(executed(folder)) + int(moments.integers(0, max(1, left - 1)))
    while process.is_alive() and len(executed(folder)) < count:
        process.join(0.002)
    process.join(float(moments.uniform(0, 0.05)))
    os.kill(process.pid, signal.SIGKILL)
    process.join()


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killed_at_random_moments_nothing_is_lost_or_done_twice(task, space, tmp_path, undisturbed, seed):
    wanted, evaluations = undisturbed
    moments = np.random.default_rng(seed)
    for start in range(KILLS + 1):
        before, ran_before = committed(tmp_path), len(executed(tmp_path))
        process = started(task, space, tmp_path)
        if start < KILLS:
            kill(process, tmp_path, moments, len(evaluations) - len(before))
        else:
            process.join(120)
        after = committed(tmp_path)
        assert {key: after[key] for key in before} == before  # the very same rows
        assert not set(executed(tmp_path)[ran_before:]) & set(before)  # what was committed was not run again
    assert process.exitcode == 0
    assert json.loads((tmp_path / "front").read_text()) == wanted
    assert set(committed(tmp_path)) == set(evaluations)
    assert len(executed(tmp_path)) <= len(evaluations) + KILLS  # at most the one that was running is run again
