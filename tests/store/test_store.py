"""The store contract, on SQLite and on a real PostgreSQL; data is always read back by a new process or connection."""

import subprocess
import sys
import time
from datetime import timedelta

import bitfront as bf
import numpy as np
import pytest
from bitfront.measurement import Measurement
from bitfront.store import Store, open_engine
from bitfront.store.base import Base
from sqlalchemy import inspect

MEASUREMENT = Measurement("kl", "validation", 0.25, 0.2, 0.3, 1.5, 3, (0.2, 0.25, 0.3))
CONFIGURATION = bf.Configuration.from_dict({"a": "w4", "b": "w8"})


def test_evaluations_survive_in_a_new_process(url):
    store = Store(url)
    store.save_evaluation("ctx", CONFIGURATION, MEASUREMENT)
    script = (
        "import sys; from bitfront.store import Store\n"
        "(m,) = Store(sys.argv[1]).evaluations('ctx', 'validation').values(); print(m.value, m.values, m.samples)"
    )
    output = subprocess.run([sys.executable, "-c", script, url], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "0.25 (0.2, 0.25, 0.3) 3"
    assert store.evaluations("ctx", "holdout") == {}
    assert store.evaluations("other", "validation") == {}
    assert Store(url).evaluations("ctx", "validation")[CONFIGURATION.digest] == MEASUREMENT


def test_the_first_result_of_a_candidate_stays(url):
    store = Store(url)
    store.save_evaluation("ctx", CONFIGURATION, MEASUREMENT)
    other = Measurement("kl", "validation", 9.0, 9.0, 9.0, 1.0, 1, (9.0,))
    store.save_evaluation("ctx", CONFIGURATION, other)
    assert Store(url).evaluations("ctx", "validation")[CONFIGURATION.digest].value == 0.25


def test_failures_are_kept_and_what_is_not_final_is_forgotten_after_a_while(url):
    store, other = Store(url), bf.Configuration.from_dict({"a": "w2", "b": "w8"})
    store.save_failure("ctx", CONFIGURATION, "validation", "NaN at a", final=True, worker="pid 1")
    store.save_failure("ctx", other, "validation", "killed", final=False)
    assert Store(url).failures("ctx", "validation") == {CONFIGURATION: "NaN at a", other: "killed"}
    assert store.failures("ctx", "validation", timedelta(0)) == {CONFIGURATION: "NaN at a"}
    assert store.failures("ctx", "holdout") == store.failures("other", "validation") == {}
    store.save_failure("ctx", other, "validation", "NaN at b", final=True)
    assert Store(url).failures("ctx", "validation", timedelta(0))[other] == "NaN at b"


def test_an_unfinished_job_is_taken_up_and_a_finished_one_is_not(url):
    store = Store(url)
    first = store.open_job("demo", {"seed": 0}, "out/demo")
    store.set_job_state(first, "paused", "SIGINT")
    assert Store(url).open_job("demo", {"seed": 0}, "out/demo") == first
    assert store.open_job("demo", {"seed": 1}, "out/demo") != first
    store.set_job_state(first, "succeeded")
    second = store.open_job("demo", {"seed": 0}, "out/demo")
    assert second != first
    states = {job.id: job.state for job in Store(url).jobs()}
    assert states[first] == "succeeded"
    assert states[second] == "running"
    with pytest.raises(bf.errors.InvalidInput, match="unknown job state"):
        store.set_job_state(first, "done")
    with pytest.raises(bf.errors.InvalidInput, match="no job"):
        store.set_job_state("nope", "failed")


def test_candidates_keep_their_first_origin(url):
    store = Store(url)
    job = store.open_job("demo", {}, "out")
    store.add_candidates(job, [(CONFIGURATION, "uniform", 0.5)])
    store.add_candidates(job, [(CONFIGURATION, "exact_front", 0.1)])
    (found,) = Store(url).candidates(job)
    assert (found.origin, found.predicted, found.formats) == ("uniform", 0.5, {"a": "w4", "b": "w8"})


def test_scores_and_kernels_round_trip(url):
    store = Store(url)
    values = np.array([[1e-15, np.nan], [1e9, -2.0]])
    store.save_score("key", "hessian_trace", {"values": values, "error": values * 0}, 3.5)
    arrays, seconds = Store(url).score("key")
    np.testing.assert_array_equal(arrays["values"], values)
    assert seconds == 3.5
    assert store.score("nothing") is None
    store.save_kernels([{"digest": "d1", "device": "cpu", "median_ms": 1.0}])
    store.save_kernels([{"digest": "d1", "device": "cpu", "median_ms": 2.0}, {"digest": "d2", "device": "gpu"}])
    assert Store(url).kernels("cpu") == [{"digest": "d1", "device": "cpu", "median_ms": 2.0}]


def test_scored_formulas_are_completed_and_complete_ones_stay(url):
    """The cases are in ``test_scored_formulas.py``; here on every database."""
    store = Store(url)
    row = {"digest": "d", "expression": "x", "size": 1, "signature": "s", "details": {}, "reason": "", "seconds": 0.5}
    store.save_formulas("ctx", [{**row, "fitness": None}, {**row, "digest": "e", "fitness": 0.5}])
    store.save_formulas("ctx", [{**row, "fitness": 0.25}, {**row, "digest": "e", "fitness": None}])
    assert [found["fitness"] for found in Store(url).formulas("ctx")] == [0.25, 0.5]


def test_a_formula_may_be_the_name_of_a_proxy(url):
    store, name = Store(url), f"formula:{'+'.join(['mean(error)'] * 20)}"
    job = store.open_job("demo", {}, "out")
    store.add_candidates(job, [(CONFIGURATION, f"exact_front:{name}:size_mb", 0.5)])
    store.save_score("key", name, {"values": np.zeros(1)}, 0.0)
    assert Store(url).candidates(job)[0].origin == f"exact_front:{name}:size_mb"


def test_migrations_make_exactly_the_models(url):
    engine = open_engine(url)
    found = inspect(engine)
    for table in Base.metadata.sorted_tables:
        columns = {column["name"]: column for column in found.get_columns(table.name)}
        assert set(columns) == set(table.columns.keys())
        for column in table.columns:
            assert columns[column.name]["nullable"] == column.nullable, (table.name, column.name)
        assert {index["name"] for index in found.get_indexes(table.name)} == {index.name for index in table.indexes}
    engine.dispose()


def test_a_killed_writer_loses_nothing_that_was_committed(tmp_path):
    url = f"sqlite:///{tmp_path}/store.db"
    script = (
        "import sys, bitfront as bf\n"
        "from bitfront.store import Store\n"
        "from bitfront.measurement import Measurement\n"
        "store = Store(sys.argv[1])\n"
        "for i in range(10**6):\n"
        "    c = bf.Configuration.from_dict({'a': f'w{2 + i % 7}', f's{i}': 'w4'})\n"
        "    store.save_evaluation('ctx', c, Measurement('kl', 'validation', i, i, i, 0.0, 1, (float(i),)))\n"
        "    print(c.digest, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, url], stdout=subprocess.PIPE, text=True)
    reported = [writer.stdout.readline().strip() for _ in range(40)]
    writer.kill()
    writer.wait()
    writer.stdout.close()
    assert set(reported) <= set(Store(url).evaluations("ctx", "validation"))


def test_two_processes_create_one_store_at_once(tmp_path):
    url = f"sqlite:///{tmp_path}/store.db"
    script = "import sys; from bitfront.store import Store; Store(sys.argv[1]).open_job('a', {}, 'x' + sys.argv[2])"
    started = time.monotonic()
    running = [subprocess.Popen([sys.executable, "-c", script, url, str(i)], stderr=subprocess.PIPE) for i in range(3)]
    errors = [process.communicate(timeout=60)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], errors
    assert len(Store(url).jobs()) == 3, time.monotonic() - started


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////proc/nowhere/store.db", "postgresql+psycopg://127.0.0.1:1/x"])
def test_a_store_that_cannot_be_opened_is_one_clear_line(url):
    with pytest.raises(bf.errors.InvalidInput, match="store") as caught:
        Store(url)
    assert "\n" not in str(caught.value)
