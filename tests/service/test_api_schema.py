"""The API against its OpenAPI document: whatever is sent, no answer is a server error or one not described."""

import pytest
import schemathesis
from bitfront.service.api import create_app
from bitfront.service.settings import Settings
from bitfront.store import Access, Claims, Events, Queue, Store, Submission
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

load_all_checks()
_CHECKS = [
    CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "unsupported_method",
        "allow_header_conformance",
    )
]
TAGS = ("jobs", "events", "results", "artifacts", "devices", "uploads", "users", "workers", "health")
OPEN = ("/healthz", "/readyz")
_LIMITS = {"requests_per_minute": 10**9, "failures_per_minute": 10**9}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """An app with a job that has ended and told something, and an administrator's token."""
    place = tmp_path_factory.mktemp("api_schema")
    store = Store(f"sqlite:///{place}/store.db")
    access = Access(store)
    access.add_user("ada", "admin")
    token = access.new_token("ada")
    job, _ = Queue(store).submit(Submission("j", {}, owner="ada"))
    lease = Claims(store).claim("w")
    Events(store).add(job.id, [("log", {"line": "hello"})])
    Claims(store).finish(lease, "succeeded", "Done")
    where = {"outputs": str(place / "jobs"), "uploads": str(place / "uploads")}
    app = create_app(Settings(store=store.url, **where, **_LIMITS), store)
    yield app, token, job.id
    store.close()


_SETTINGS = settings(
    max_examples=4, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def operations(app, tag):
    found = schemathesis.openapi.from_asgi("/openapi.json", app).include(tag=tag)
    return [each.ok() for each in found.get_all_operations()]


@pytest.mark.parametrize("tag", TAGS)
def test_every_route_answers_as_it_says(served, tag):
    app, token, job = served

    for operation in operations(app, tag):

        @_SETTINGS
        @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
        def valid(case):
            if len(case.path_parameters.get("job_id", "")) % 2:
                case.path_parameters["job_id"] = job  # half of them of a job that there is
            case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, checks=_CHECKS)

        @_SETTINGS
        @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
        def invalid(case):
            case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, checks=_CHECKS)

        valid()
        if operation.path not in (*OPEN, "/metrics"):  # they take nothing that could be wrong
            invalid()


@pytest.mark.parametrize("tag", TAGS)
def test_no_route_behind_the_gate_answers_without_a_token(served, tag):
    app, _, _ = served
    for operation in operations(app, tag):

        @settings(_SETTINGS, max_examples=1)
        @given(case=operation.as_strategy())
        def asked(case):
            answer = case.call(headers={"Authorization": "Bearer bf_wrong"})
            assert answer.status_code == (200 if case.operation.path in OPEN else 401), case.operation.label

        asked()


def test_the_document_describes_every_answer_with_a_model(served):
    app, token, _ = served
    document = TestClient(app).get("/openapi.json").json()
    assert {tag for path in document["paths"].values() for one in path.values() for tag in one["tags"]} == set(TAGS)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            successes = [status for status in operation["responses"] if status < "400"]
            assert successes, where
            for status, answer in operation["responses"].items():
                kinds = answer.get("content", {})
                assert kinds or status == "304", (where, status)
                for kind, content in kinds.items():
                    assert content.get("schema"), (where, status, kind)
            secured = bool(operation.get("security"))
            assert secured or path in OPEN, where
            if secured:
                assert {"401", "403", "429", "500", "503"} <= set(operation["responses"]), where
    assert token not in str(document)
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert len({op["operationId"] for ops in document["paths"].values() for op in ops.values()}) == sum(
        len(ops) for ops in document["paths"].values()
    )
