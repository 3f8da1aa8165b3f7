"""A job is looked at before it is submitted: every mistake on its line, and an estimate from finished jobs."""

import pytest
from bitfront.errors import Refused
from bitfront.service.client import Client
from bitfront.service.job import parse_job
from bitfront.service.job_check import check, estimate
from bitfront.service.settings import Settings
from bitfront.store import Claims, Identity, Queue, Submission

GOOD = "model: {zoo: digits_resnet20}\nobjectives: [quality, size_mb]\nsearch:\n  evaluations: 20\n"
ADMIN = Identity("ada", "admin")


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        (GOOD.replace("evaluations", "evaluation"), 4, 3, "did you mean 'evaluations'"),
        (GOOD.replace("20", "-1"), 4, 3, "greater than or equal to 1"),
        (GOOD + "space:\n  formats: [w2, w99]\n", 6, 17, "w99"),
        (GOOD.replace("[quality", "[quality"), None, None, None),
        ("model: {zoo: digits_resnet20\n", 2, 1, "line 2"),
        ("- 1\n", 1, 1, "must hold keys"),
        (GOOD.replace("digits_resnet20", "digits"), 1, 14, "digits_resnet20"),
        (GOOD + "device: {name: tpu}\n", 5, 16, "tpu"),
        (GOOD + "proxies: [hesian]\n", 5, 11, "hessian"),
    ],
)
def test_mistakes_are_on_their_lines(store, text, line, column, said):
    found = check(text, ADMIN, Settings(store=store.url), store)
    if said is None:
        assert found.problems == ()
        assert found.name == "digits_resnet20"
        return
    problem = found.problems[0]
    assert said in problem.message
    assert (problem.line, problem.column) == (line, column)
    assert Queue(store).list() == []


def test_all_mistakes_of_the_schema_are_told_at_once(store):
    text = GOOD.replace("evaluations: 20", "evaluations: x\n  sed: 1")
    found = check(text, ADMIN, Settings(store=store.url), store)
    assert [problem.line for problem in found.problems] == [4, 5]


def test_the_estimate_goes_by_finished_jobs(store):
    queue, claims = Queue(store), Claims(store)
    job = parse_job({"model": {"zoo": "digits_resnet20"}, "search": {"evaluations": 20}})
    assert estimate(job, store).jobs == 0
    for evaluated, model in ((10, "digits_resnet20"), (40, "minilm_l6")):
        other = parse_job({"model": {"zoo": model}})
        queue.submit(Submission("x", other.plain()))
        lease = claims.claim("w")
        claims.beat(lease, {"evaluated": evaluated, "evaluations": evaluated})
        claims.finish(lease, "succeeded", "Done")
    found = estimate(job, store)
    gone = next(each for each in queue.list() if each.specification["model"]["zoo"] == "digits_resnet20")
    assert found.jobs == 1
    assert found.seconds == pytest.approx(2 * gone.seconds_used)


def test_over_http_by_those_who_may_submit(live):
    with Client(live.url, live.tokens["sam"]) as client:
        answer = client.check(GOOD)
        assert answer["problems"] == []
        assert answer["estimate"] == {"seconds": None, "low": None, "high": None, "jobs": 0}
        assert client.check(GOOD + "exprt: null\n")["problems"][0]["line"] == 5
        assert list(client.jobs()) == []
    with Client(live.url, live.tokens["vic"]) as client, pytest.raises(Refused):
        client.check(GOOD)
