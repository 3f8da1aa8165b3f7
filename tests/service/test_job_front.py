"""Fronts, pages and budgets of a job from the store: against a finished run, while it runs, and with very many."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from bitfront.dashboard.view import of_columns, of_front
from bitfront.errors import Conflict, InfeasibleBudget, InvalidInput
from bitfront.measurement import Measurement
from bitfront.search.pareto import non_dominated
from bitfront.search.problem import FLOAT
from bitfront.search.resolve import resolve
from bitfront.service import job_arrays, job_front, read_job
from bitfront.service.client import Client
from bitfront.service.front_document import Front
from bitfront.service.job_columns import columns_of
from bitfront.service.job_front import candidates_page, front_of, solve
from bitfront.service.run_job import run_job
from bitfront.space import Configuration
from bitfront.store import Claims, Queue, Store, Submission
from hypothesis import given
from hypothesis import strategies as st

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A finished run: its store, its job, its document."""
    place = tmp_path_factory.mktemp("job_front")
    (place / "tiny_job_front_factory.py").write_text((HERE / "tiny_factory.py").read_text())
    generator = np.random.default_rng(0)
    for name, samples in (("calib", 8), ("val", 32)):
        np.savez(place / f"{name}.npz", inputs=generator.normal(size=(samples, 3, 8, 8)).astype("float32"))
    job = {
        "model": {"factory": "tiny_job_front_factory:tiny"},
        "data": {"calibration": "calib.npz", "validation": "val.npz", "batch": 8},
        "space": {"formats": ["w2", "w3", "w4", "w8"]},
        "objectives": ["quality", "size_mb"],
        "proxies": ["weight_mse"],
        "search": {"evaluations": 9},
        "export": None,
    }
    (place / "job.yaml").write_text(yaml.safe_dump(job))
    store = Store(f"sqlite:///{place}/store.db")
    asked, folder = read_job(place / "job.yaml")
    _, document = run_job(asked, folder, place / "out", store=store, executor="local")
    yield store, store.jobs()[0], document
    store.close()


@pytest.fixture
def running(ran, url):
    """A store with a job that has priced and scored the same, and measured nothing yet."""
    source, job, _ = ran
    store = Store(url)
    queued, _ = Queue(store).submit(Submission("demo", job.specification))
    Claims(store).claim("w")
    key = job.record["search"]["knowledge"]
    arrays, seconds = source.score(key)
    store.save_score(key, "job", arrays, seconds)
    store.add_record(queued.id, job.record)
    yield store, Queue(store).job(queued.id), job_arrays.knowledge_of(source, job)
    store.close()


def add(store, job, knowledge, count, *, seed=0, splits=("validation",), measure=True):
    """Candidates at random with made-up measurements; their configurations."""
    generator = np.random.default_rng(seed)
    allowed = knowledge.space.allowed
    found = [FLOAT, *knowledge.space.uniforms().values()]
    while len(found) < count:
        choice = [generator.choice(np.flatnonzero(row)) for row in allowed]
        one = knowledge.space.configuration(choice)
        if one not in found:
            found.append(one)
    store.add_candidates(job.id, [(one, "test", None if one == FLOAT else 1.0) for one in found])
    for one in found if measure else []:
        for split in splits:
            bits = np.mean([knowledge.space.formats.index(name) for name in one.to_dict().values()]) if len(one) else 9
            values = np.exp(-bits) * generator.uniform(0.5, 1.5, size=8)
            store.save_evaluation(knowledge.contexts[split], one, Measurement.of("kl", split, values, 0.01))
    return found


def pages(store, job, limit):
    rows, cursor = candidates_page(store, job, None, limit)
    while cursor is not None:
        more, cursor = candidates_page(store, job, cursor, limit)
        assert more
        rows += more
    return rows


def test_the_front_is_that_of_the_document(ran):
    store, job, document = ran
    found = front_of(store, job)
    assert (found["metric"], found["objectives"], found["proposed"]) == ("kl", ["quality", "size_mb"], 10)
    assert found["measured"] == len(document["points"])
    expected = [point for point in document["points"] if point["pareto"] or point["baseline"]]
    assert [point["config"] for point in found["points"]] == [point["config"] for point in expected]
    for point, known in zip(found["points"], expected, strict=True):
        assert point["prices"] == known["prices"]
        assert point["measured"]["holdout"]["value"] == known["measured"]["holdout"]["value"]
        assert (point["pareto"], point["feasible"], point["baseline"]) == tuple(
            known[name] for name in ("pareto", "feasible", "baseline")
        )


def test_pages_of_any_size_give_every_candidate_once_in_order(ran):
    store, job, document = ran
    order = [row.configuration for row in store.candidates(job.id)]
    for limit in (1, 3, 10, 1000):
        assert [row["configuration"] for row in pages(store, job, limit)] == order
    rows = pages(store, job, 4)
    by_config = {tuple(point["config"].items()): point for point in document["points"]}
    assert rows[0]["origin"] == "float"
    for row in rows[1:]:
        point = by_config[tuple(row["config"].items())]
        assert row["state"] == "measured"
        assert row["prices"]["size_mb"] == pytest.approx(point["prices"]["size_mb"]["value"], rel=1e-12)
        assert row["measured"]["validation"]["value"] == point["measured"]["validation"]["value"]
    for cursor in ("x", "-", "", "a-b", "99999999999999-x", "1-" + "a" * 40):
        with pytest.raises(InvalidInput, match="did not come from this list"):
            candidates_page(store, job, cursor, 2)
    with pytest.raises(InvalidInput, match="limit 0"):
        candidates_page(store, job, None, 0)


@pytest.mark.parametrize("budgets", [{}, {"size_mb": 0.0006}, {"avg_bits": 3.2}])
def test_a_budget_is_answered_as_the_search_answers_it(ran, budgets):
    store, job, _ = ran
    found = solve(store, job, budgets)
    expected = resolve(store, job.record["search"]["key"], budgets).plain()
    assert found["best"]["digest"] == expected["best"]["digest"]
    assert found["best"]["id"] in {expected["best"]["id"], expected["best"]["digest"]}
    for name in ("budgets", "metric", "resolved", "proxy", "trust", "points"):
        assert found[name] == expected[name]
    assert found["considered"] == found["points"]


def test_what_cannot_be_answered_is_refused(ran):
    store, job, _ = ran
    with pytest.raises(InvalidInput, match="unknown budget 'energy_mj'"):
        solve(store, job, {"energy_mj": 1.0})
    with pytest.raises(InfeasibleBudget, match="smallest reachable"):
        solve(store, job, {"size_mb": 1e-9})
    for wrong in (float("nan"), float("inf"), -1.0, 0.0):
        with pytest.raises(InvalidInput, match="positive number"):
            solve(store, job, {"size_mb": wrong})


def test_a_job_that_waits_has_an_empty_front_and_no_answer(url):
    store = Store(url)
    job, _ = Queue(store).submit(Submission("demo", {"name": "demo"}))
    assert front_of(store, job)["points"] == []
    assert candidates_page(store, job) == ([], None)
    with pytest.raises(InvalidInput, match="is queued and has neither prices nor scores"):
        solve(store, job, {"size_mb": 1.0})


def test_a_front_grows_with_every_measurement_while_the_job_runs(running):
    store, job, knowledge = running
    assert front_of(store, job)["points"] == []
    first = add(store, job, knowledge, 8, measure=False)
    assert (front_of(store, job)["proposed"], front_of(store, job)["measured"]) == (8, 0)
    assert {row["state"] for row in pages(store, job, 3)} == {"proposed"}
    store.save_failure(knowledge.contexts["validation"], first[-1], "validation", "gives NaN", final=True)
    assert [row["failure"] for row in pages(store, job, 3) if row["state"] == "failed"] == ["gives NaN"]
    for count in (9, 14, 30):
        add(store, job, knowledge, count)
        found = front_of(store, job)
        job_arrays._CACHE.clear()
        assert found == front_of(store, job)  # what was kept and brought up to date is what is read anew
        assert (found["proposed"], found["measured"]) == (count, count - 1)
        points = {point["digest"]: point for point in found["points"]}
        measured = store.evaluations(knowledge.contexts["validation"], "validation")
        configurations = {one.digest: one for one in add(store, job, knowledge, count) if one != FLOAT}
        table = np.array(
            [
                [measured[digest].value, knowledge.prices.of(one)["size_mb"].value]
                for digest, one in configurations.items()
            ]
        )
        expected = {digest for digest, kept in zip(configurations, non_dominated(table), strict=True) if kept}
        assert {digest for digest, point in points.items() if point["pareto"]} == expected


def test_before_the_held_out_data_the_best_is_that_of_the_validation_data(running):
    store, job, knowledge = running
    add(store, job, knowledge, 12)
    found = solve(store, job, {"avg_bits": 4.0})
    assert found["best"]["reason"].startswith("the best on the validation data so far")
    rows = [row for row in pages(store, job, 50) if row["prices"].get("avg_bits", 9) <= 4.0]
    best = min(rows, key=lambda row: row["measured"]["validation"]["value"])
    assert found["best"]["digest"] == best["configuration"]
    assert found["resolved"]["prices"]["avg_bits"]["value"] <= 4.0
    with pytest.raises(InvalidInput, match="without held-out measurements; give a budget"):
        solve(store, job, {})


def test_of_very_many_points_an_answer_considers_those_that_matter(running, monkeypatch):
    store, job, knowledge = running
    add(store, job, knowledge, 60, splits=("validation", "holdout"))
    everything = solve(store, job, {"avg_bits": 4.0})
    monkeypatch.setattr(job_front, "_ALL", 20)
    monkeypatch.setattr(job_front, "_CONSIDERED", 20)
    monkeypatch.setattr(job_front, "_BEST", 4)
    few = solve(store, job, {"avg_bits": 4.0})
    assert few["points"] == everything["points"] == few["considered"]  # all of them have held-out data
    add(store, job, knowledge, 120, seed=0)
    found = solve(store, job, {"avg_bits": 4.0})
    assert found["points"] == 119
    assert 59 <= found["considered"] < 70
    assert found["best"]["digest"] == everything["best"]["digest"]


def test_candidates_of_two_writers_with_one_position_are_all_seen(running):
    from bitfront.store import Candidate

    store, job, knowledge = running
    found = add(store, job, knowledge, 10)
    assert front_of(store, job)["measured"] == 9
    more = add(store, job, knowledge, 12)[-1]
    with store.writing() as session:
        session.get(Candidate, (job.id, more.digest)).position = 3
    assert front_of(store, job)["measured"] == 11
    assert len(pages(store, job, 2)) == 12
    assert len(found) == 10


def test_another_job_s_measurements_in_the_same_context_are_no_candidates(running):
    store, job, knowledge = running
    add(store, job, knowledge, 6)
    other, _ = Queue(store).submit(Submission("other", {}))
    add(store, other, knowledge, 9, seed=1)
    assert front_of(store, job)["measured"] == 5


@given(
    st.lists(st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, 2.0, np.nan])] * 3), min_size=1, max_size=60),
    st.integers(2, 9),
)
def test_the_filter_in_blocks_is_the_filter(points, block):
    table = np.array(points)
    kept, job_front._BLOCK = job_front._BLOCK, block
    try:
        assert (job_front._front(table) == non_dominated(table)).all()
    finally:
        job_front._BLOCK = kept


def test_candidates_of_another_space_are_listed_but_on_no_front(running):
    store, job, knowledge = running
    add(store, job, knowledge, 8)
    names = knowledge.space.names
    strange = [Configuration.from_dict(dict.fromkeys(names, "w7")), Configuration.from_dict({names[0]: "w8"})]
    store.add_candidates(job.id, [(one, "strange", None) for one in strange])
    add(store, job, knowledge, 9)
    found = front_of(store, job)
    assert (found["proposed"], found["measured"]) == (11, 8)
    rows = {row["configuration"]: row for row in pages(store, job, 4)}
    assert [rows[one.digest]["prices"] for one in strange] == [{}, {}]
    assert len(rows) == 11


@pytest.fixture
def columns(ran):
    store, job, _ = ran
    return columns_of(store, job)


def test_columns_say_what_pages_say(ran, columns):
    store, job, _ = ran
    pages = [row for row in candidates_page(store, job, None, 1000)[0] if row["state"] == "measured"]
    rows = {row["configuration"]: row for row in pages if row["config"]}
    assert sorted(columns["digests"]) == sorted(rows)
    for index, digest in enumerate(columns["digests"]):
        row = rows[digest]
        assert columns["quality"]["validation"]["value"][index] == row["measured"]["validation"]["value"]
        assert columns["prices"]["size_mb"]["value"][index] == pytest.approx(row["prices"]["size_mb"], rel=1e-12)
        assert columns["origins"][index] == row["origin"]
    front = front_of(store, job)
    assert {columns["digests"][i] for i, on in enumerate(columns["pareto"]) if on} == {
        point["digest"] for point in front["points"] if point["pareto"]
    }


def test_the_view_of_columns_is_that_of_the_document(ran, columns):
    _, _, document = ran
    front = Front.parse(document)
    one, other = of_columns(columns, front), of_front("run", front)
    assert one.formats == other.formats
    assert one.names == other.names
    order = [next(r for r in range(len(one)) if one.config(r) == other.config(row)) for row in range(len(other))]
    assert sorted(order) == list(range(len(one)))
    np.testing.assert_array_equal(one.choices[order], other.choices)
    for split in ("validation", "holdout"):
        np.testing.assert_array_equal(one.quality[split][order], other.quality[split])
    np.testing.assert_allclose(one.prices["size_mb"][order], other.prices["size_mb"], rtol=1e-12)
    np.testing.assert_array_equal(one.predicted[order], other.predicted)
    np.testing.assert_array_equal(one.pareto[order], other.pareto)
    np.testing.assert_array_equal(one.price_tables["size_mb"].values, other.price_tables["size_mb"].values)
    np.testing.assert_array_equal(one.sensitivities["weight_mse"], other.sensitivities["weight_mse"])
    assert one.config(one.rows[one.best]) == other.config(other.rows[other.best])
    assert one.float_quality == other.float_quality
    assert one.histogram.sum() == len(one) * len(one.sites)
    assert [one.label(row) for row in one.uniform_rows] == [f"uniform {name}" for name in one.formats]


def test_few_rows_keep_the_front_and_the_uniform_ones(running):
    store, job, knowledge = running
    add(store, job, knowledge, 40)
    everything = columns_of(store, job)
    marks = zip(everything["digests"], everything["pareto"], everything["baselines"], strict=True)
    telling = {digest for digest, on_front, uniform in marks if on_front or uniform}
    few = columns_of(store, job, len(telling) + 3)
    assert len(few["digests"]) == len(telling) + 3
    assert telling < set(few["digests"])
    assert few["measured"] == everything["measured"] == 39


def test_before_anything_is_known(live):
    queued, _ = Queue(live.store).submit(Submission("demo", {}))
    with Client(live.url, live.tokens["vic"]) as client, pytest.raises(Conflict, match="neither prices nor scores yet"):
        client.columns(queued.id)
