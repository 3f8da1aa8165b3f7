"""Results over HTTP: front, candidates, budgets and exports of a job that ran, against what its run wrote."""

import json
from pathlib import Path

import numpy as np
import pytest
from bitfront.service.api import create_app
from bitfront.service.export_order import KEY, carry_out
from bitfront.service.job import parse_job
from bitfront.service.run_job import run_job
from bitfront.service.settings import Settings
from bitfront.service.worker.outputs import files_of
from bitfront.store import Access, Artifacts, Claims, LeasedStore, Queue, Store, Submission
from fastapi.testclient import TestClient

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A queued job that was run under its lease, as a worker does: store, job id, document."""
    place = tmp_path_factory.mktemp("api_results")
    (place / "tiny_api_factory.py").write_text((HERE / "tiny_factory.py").read_text())
    generator = np.random.default_rng(0)
    for name, samples in (("calib", 8), ("val", 32)):
        np.savez(place / f"{name}.npz", inputs=generator.normal(size=(samples, 3, 8, 8)).astype("float32"))
    content = {
        "model": {"factory": "tiny_api_factory:tiny"},
        "data": {"calibration": "calib.npz", "validation": "val.npz", "batch": 8},
        "space": {"formats": ["w2", "w4", "w8"]},
        "objectives": ["quality", "size_mb"],
        "proxies": ["weight_mse"],
        "search": {"evaluations": 8},
        "export": None,
    }
    store = Store(f"sqlite:///{place}/store.db")
    queue, claims = Queue(store), Claims(store)
    asked = queue.submit(Submission("tiny", {**content, "folder": str(place)}, owner="sam"))[0]
    lease = claims.claim("w")
    out = place / "jobs" / asked.id
    leased = LeasedStore(store.url, lease)
    _, document = run_job(parse_job(content, "tiny"), place, out, store=leased, executor="local")
    Artifacts(leased).put(asked.id, files_of(out, str(out)))
    claims.finish(lease, "succeeded", "Done")
    leased.close()
    yield store, asked.id, document, place
    store.close()


@pytest.fixture
def http(ran):
    store, _, _, place = ran
    access = Access(store)
    access.add_user("sam", "submitter")
    token = {"Authorization": f"Bearer {access.new_token('sam')}"}
    settings = Settings(store=store.url, outputs=str(place / "jobs"))
    return TestClient(create_app(settings, store), base_url="http://127.0.0.1:8765", headers=token)


def test_the_front_is_that_of_the_run(ran, http):
    _, job, document, _ = ran
    found = http.get(f"/v1/jobs/{job}/front").json()
    assert (found["job"], found["state"], found["metric"]) == (job, "succeeded", "kl")
    by_config = {json.dumps(point["config"], sort_keys=True): point for point in document["points"]}
    for point in found["points"]:
        written = by_config[json.dumps(point["config"], sort_keys=True)]
        assert point["measured"]["holdout"]["value"] == written["measured"]["holdout"]["value"]
        assert point["prices"]["size_mb"]["value"] == pytest.approx(written["prices"]["size_mb"]["value"])
    assert {"uniform-w2", "uniform-w4", "uniform-w8"} <= {point["id"] for point in found["points"]}


def test_candidates_come_page_by_page(ran, http):
    store, job, _, _ = ran
    every = [row.configuration for row in store.candidates(job)]
    seen, cursor = [], None
    while cursor is not None or not seen:
        query = {"limit": 3, **({"cursor": cursor} if cursor else {})}
        page = http.get(f"/v1/jobs/{job}/candidates", params=query).json()
        seen += page["candidates"]
        cursor = page["cursor"]
    assert [row["configuration"] for row in seen] == every
    assert any(row["state"] == "measured" and row["measured"]["validation"]["value"] > 0 for row in seen)
    wrong = http.get(f"/v1/jobs/{job}/candidates", params={"cursor": "x"})
    assert wrong.status_code == 422


def test_a_new_budget_is_answered_without_the_model(ran, http):
    _, job, _, _ = ran
    sizes = sorted(point["prices"]["size_mb"]["value"] for point in http.get(f"/v1/jobs/{job}/front").json()["points"])
    budget = sum(sizes[:2]) / 2
    found = http.post(f"/v1/jobs/{job}/solve", json={"budgets": {"size_mb": budget}}).json()
    assert found["budgets"] == {"size_mb": budget}
    assert found["best"]["prices"]["size_mb"]["value"] <= budget
    assert found["resolved"]["prices"]["size_mb"]["value"] <= budget
    for budgets in ({"size_mb": sizes[0] / 100}, {"odd": 1.0}, {"size_mb": -1}):
        refused = http.post(f"/v1/jobs/{job}/solve", json={"budgets": budgets})
        assert refused.status_code == 422, refused.text


@pytest.mark.parametrize(
    "body",
    ["{", "[]", "{}", '{"budgets": {"size_mb": "x"}}', '{"budgets": {"size_mb": NaN}}', '{"budgets": {}, "a": 1}'],
)
def test_budgets_that_cannot_be_are_refused(ran, http, body):
    _, job, _, _ = ran
    headers = {"Content-Type": "application/json"}
    answer = http.post(f"/v1/jobs/{job}/solve", content=body, headers=headers)
    assert answer.status_code in (400, 422)
    assert "error" in answer.json()


def test_an_export_is_a_job_of_its_own_and_the_same_again_is_the_same(ran, http):
    store, job, document, _ = ran
    best = next(point for point in document["points"] if point["id"] == document["best"])
    answer = http.post(f"/v1/jobs/{job}/export", json={"target": "onnx"})
    assert answer.status_code == 202, answer.text
    order = Queue(store).job(answer.json()["id"]).specification[KEY]
    assert (order["job"], order["point"], order["target"]) == (job, document["best"], "onnx")
    assert order["config"] == best["config"]
    again = http.post(f"/v1/jobs/{job}/export", json={"point": document["best"], "target": "onnx"})
    assert (again.status_code, again.json()["id"]) == (200, answer.json()["id"])
    of_export = http.post(f"/v1/jobs/{answer.json()['id']}/export", json={})
    assert (of_export.status_code, of_export.json()["error"]["type"]) == (409, "Conflict")


def test_points_go_by_the_front_s_ids_the_report_s_and_by_digest(ran, http):
    store, job, document, _ = ran
    front = http.get(f"/v1/jobs/{job}/front").json()["points"]
    asked = {"uniform-w4": next(point for point in front if point["id"] == "uniform-w4")["config"]}
    asked |= {front[0]["digest"]: front[0]["config"]}
    asked |= {document["points"][-1]["id"]: document["points"][-1]["config"]}
    for point, config in asked.items():
        answer = http.post(f"/v1/jobs/{job}/export", json={"point": point})
        assert answer.status_code in (200, 202), answer.text
        assert Queue(store).job(answer.json()["id"]).specification[KEY]["config"] == config
    unknown = http.post(f"/v1/jobs/{job}/export", json={"point": "p99"})
    assert unknown.status_code == 404
    target = http.post(f"/v1/jobs/{job}/export", json={"target": "odd"})
    assert target.status_code == 422


def test_an_order_is_carried_out_and_checked_back(ran, http, tmp_path):
    from bitfront.search import Silent

    store, job, _, _ = ran
    made = http.post(f"/v1/jobs/{job}/export", json={"point": "uniform-w8"}).json()
    order = Queue(store).job(made["id"])
    told = carry_out(order.specification, order.name, store, tmp_path, Silent())
    assert "uniform-w8" in told
    artifact = tmp_path / "export" / "uniform-w8.onnx"
    assert artifact.stat().st_size > 1000
    report = json.loads((tmp_path / "export.json").read_text())["report"]
    assert report["path"] == "export/uniform-w8.onnx"
    assert report["relative_error"] <= report["bound"]
