"""The verbs of jobs as a user types them: against a real server, with exit codes and one line of error."""

import json
import socket
import sys
import warnings

import pytest
import yaml
from bitfront.service.cli import main
from bitfront.service.settings import Settings
from bitfront.service.settings_file import from_json, read_settings, to_json
from bitfront.store import Access, Claims, Events, Store

JOB = {
    "name": "digits",
    "model": {"zoo": "digits_resnet20"},
    "objectives": ["quality", "size_mb"],
    "search": {"evaluations": 8},
}


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs the command in this process: exit code, standard output, standard error."""
    monkeypatch.setattr("logging.disable", lambda level: None)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bitfront", *arguments])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        return done.value.code, out, err

    return run


@pytest.fixture
def bitfront(live, call, monkeypatch, tmp_path):
    """The same, for the submitter of a server; what succeeds is read as JSON where --json is among the arguments."""
    monkeypatch.setenv("BITFRONT_SERVER", live.url)
    monkeypatch.setenv("BITFRONT_TOKEN", live.tokens["sam"])
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))

    def run(*arguments):
        code, out, err = call(*arguments)
        assert code == 0, err
        return json.loads(out) if "--json" in arguments else out

    return run


def refused(answer, message, code=2):
    """Whether a command ended with this code and one line."""
    given, _, err = answer
    last = err.strip().splitlines()[-1]
    assert (given, last.startswith("bitfront: "), message in last) == (code, True, True), err
    assert "Traceback" not in err


def test_a_job_by_its_verbs(bitfront):
    made = bitfront("submit", "job.yaml", "--priority", "2", "--key", "k", "--json")
    assert (made["state"], made["priority"]) == ("queued", 2)
    assert bitfront("submit", "job.yaml", "--key", "k", "--json")["id"] == made["id"]
    told = bitfront("submit", "job.yaml", "--key", "k")
    assert f"bitfront logs {made['id']} -f" in told
    assert [row["id"] for row in bitfront("jobs", "--json")] == [made["id"]]
    assert bitfront("jobs", "--state", "running", "--json") == []
    assert made["id"] in bitfront("jobs", "--owner", "sam", "--name", "igi")
    assert bitfront("pause", made["id"], "--json")["state"] == "paused"
    assert "state     queued" in bitfront("resume", made["id"])
    assert bitfront("cancel", made["id"], "--json")["state"] == "cancelled"
    assert bitfront("retry", made["id"], "--json")["state"] == "queued"
    shown = bitfront("show", made["id"], "--json")
    assert shown["specification"]["model"]["zoo"] == "digits_resnet20"
    assert [each["type"] for each in shown["conditions"]] == ["Queued", "Paused", "Queued", "Cancelled", "Queued"]
    told = bitfront("show", made["id"])
    assert "owner     sam, priority 2" in told
    assert "Cancelled" in told


def test_logs_and_waiting(bitfront, live, call):
    made = bitfront("submit", "job.yaml", "--key", "k", "--json")
    claims = Claims(live.store, live.settings.limits)
    lease = claims.claim("worker", 0)
    events = [
        ("stage", {"stage": "search", "state": "started", "total": 8}),
        ("log", {"line": "round 1"}),
        ("stage", {"stage": "search", "state": "done", "seconds": 1.25}),
    ]
    Events(live.store).add(made["id"], events)
    claims.finish(lease, "succeeded", "Done", "best p01")
    assert bitfront("logs", made["id"], "-f").splitlines() == [
        "search: started (8 steps)", "round 1", "search: done in 1.25 s"
    ]  # fmt: skip
    assert "round 1" in bitfront("logs", made["id"])
    _, out, _ = call("logs", made["id"], "--json")
    assert [json.loads(line)["kind"] for line in out.splitlines()] == ["stage", "log", "stage"]
    _, out, _ = call("logs", made["id"], "-f", "--json")
    assert [json.loads(line)["content"].get("line") for line in out.splitlines()] == [None, "round 1", None]
    assert bitfront("submit", "job.yaml", "--key", "k", "--wait", "--json")["state"] == "succeeded"


def test_a_job_that_did_not_succeed_is_exit_code_1(bitfront, live, call):
    bitfront("submit", "job.yaml", "--key", "k", "--json")
    claims = Claims(live.store, live.settings.limits)
    claims.finish(claims.claim("worker", 0), "failed", "Broken", "no luck")
    refused(call("submit", "job.yaml", "--key", "k", "--wait"), "is failed: no luck", 1)


def test_the_front_of_a_job_that_has_measured_nothing(bitfront, call):
    made = bitfront("submit", "job.yaml", "--json")
    assert "nothing is measured yet" in bitfront("front", made["id"])
    assert bitfront("front", made["id"], "--json")["points"] == []
    refused(call("front", made["id"], "--budget", "size_mb=1"), "neither prices nor scores")
    refused(call("front", made["id"], "--budget", "size_mb"), "size_mb")
    refused(call("export", made["id"]), made["id"])


def test_what_a_server_refuses_is_one_line_and_exit_code_2(bitfront, live, call, tmp_path, monkeypatch):
    refused(call("show", "0123456789ab"), "no job '0123456789ab'")
    refused(call("submit", "nothing.yaml"), "cannot read the job file nothing.yaml")
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump({**JOB, "serch": {}}))
    refused(call("submit", "wrong.yaml"), "did you mean 'search'")
    made = bitfront("submit", "job.yaml", "--json")
    refused(call("resume", made["id"]), "there is nothing to resume")
    refused(call("users", "add", "eve"), "admin")
    refused(call("jobs", "--server", live.url, "--store", "sqlite:///x.db"), "not both")
    refused(call("submit", "job.yaml", "--server", "nonsense"), "write http://HOST:PORT")
    monkeypatch.setenv("BITFRONT_TOKEN", "bf_wrong")
    refused(call("jobs"), "BITFRONT_TOKEN")


def test_no_server_is_a_failure_that_says_how_to_start_one(call, monkeypatch, tmp_path):
    monkeypatch.setattr("bitfront.service.http_connection.time.sleep", lambda seconds: None)
    monkeypatch.setenv("BITFRONT_TOKEN", "bf_x")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    refused(call("show", "0123456789ab", "--server", url), "start one with `bitfront serve`", 1)


def test_users_on_the_store_itself(call, tmp_path, monkeypatch):
    monkeypatch.delenv("BITFRONT_SERVER", raising=False)
    store = f"sqlite:///{tmp_path}/own.db"
    assert call("users", "add", "ann", "--role", "viewer", "--store", store)[0] == 0
    code, out, _ = call("users", "token", "ann", "--days", "1", "--store", store)
    assert code == 0
    opened = Store(store)
    assert Access(opened).identify(out.strip()).role == "viewer"
    assert json.loads(call("users", "list", "--store", store, "--json")[1]) == [{"name": "ann", "role": "viewer"}]
    refused(call("users", "add", "ann", "--role", "king", "--store", store), "unknown role 'king'")
    refused(call("users", "token", "bob", "--store", store), "no user 'bob'")
    refused(call("users", "token", "ann", "--days", "0", "--store", store), "above 0")
    assert call("users", "remove", "ann", "--store", store)[0] == 0
    assert Access(opened).identify(out.strip()) is None
    assert [line.action for line in Access(opened).trail()] == ["users remove", "users token", "users add"]
    assert out.strip() not in str([line.detail for line in Access(opened).trail()])
    opened.close()


def test_users_on_a_server(live, call, monkeypatch):
    monkeypatch.setenv("BITFRONT_SERVER", live.url)
    monkeypatch.setenv("BITFRONT_TOKEN", live.tokens["ada"])
    assert call("users", "add", "ann")[0] == 0
    token = json.loads(call("users", "token", "ann", "--json")[1])["token"]
    assert Access(live.store).identify(token).role == "submitter"
    assert {"name": "ann", "role": "submitter"} in json.loads(call("users", "list", "--json")[1])
    assert call("users", "remove", "ann")[0] == 0
    assert Access(live.store).identify(token) is None


def test_jobs_without_a_server_are_those_of_the_store(call, tmp_path, monkeypatch):
    monkeypatch.delenv("BITFRONT_SERVER", raising=False)
    code, out, _ = call("jobs", "--store", f"sqlite:///{tmp_path}/own.db", "--json")
    assert (code, json.loads(out)) == (0, [])
    refused(call("jobs", "--state", "runing", "--store", f"sqlite:///{tmp_path}/own.db"), "choose queued, running")


# -- serve and worker before they serve -------------------------------------------------------------------------------


def test_a_taken_port_is_one_line_before_anything_starts(call, tmp_path, monkeypatch):
    monkeypatch.setenv("BITFRONT_STORE", f"sqlite:///{tmp_path}/own.db")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused(call("serve", "--port", port), f"cannot listen on 127.0.0.1:{port}")
    assert not (tmp_path / "own.db").exists()


def test_servers_that_would_let_everybody_in_are_refused(call, tmp_path, monkeypatch):
    monkeypatch.setenv("BITFRONT_STORE", f"sqlite:///{tmp_path}/own.db")
    refused(call("serve", "--host", "0.0.0.0", "--port", "0", "--insecure"), "administrator")


def test_settings_come_from_a_file_and_options_go_before_it(call, tmp_path):
    (tmp_path / "service.yaml").write_text(
        "store: postgresql+psycopg://bitfront@db/bitfront\noutputs: s3://bucket/jobs\nray_address: ray://head:10001\n"
        "allowed_modules: [my_models]\nlimits: {per_owner: 2}\n"
    )
    found = read_settings(tmp_path / "service.yaml")
    assert (found.store, found.outputs) == ("postgresql+psycopg://bitfront@db/bitfront", "s3://bucket/jobs")
    assert (found.allowed_modules, found.limits.per_owner, found.port) == (("my_models",), 2, 8765)
    assert from_json(to_json(found)) == found
    assert read_settings(None) == Settings()
    (tmp_path / "wrong.yaml").write_text("stor: x\n")
    refused(call("worker", "--config", "wrong.yaml"), "did you mean 'store'")
    (tmp_path / "wrong.yaml").write_text("limits: {lease_second: 1}\n")
    refused(call("worker", "--config", "wrong.yaml"), "unknown key 'limits.lease_second'; did you mean 'lease_seconds'")
    (tmp_path / "wrong.yaml").write_text("port: high\n")
    refused(call("serve", "--config", "wrong.yaml"), "port")
    (tmp_path / "wrong.yaml").write_text("- a list\n")
    refused(call("serve", "--config", "wrong.yaml"), "must hold keys")
    refused(call("serve", "--config", "nothing.yaml"), "cannot read the settings file")
    refused(call("worker", "--executor", "spark"), "choose ray or local")


def test_files_of_old_jobs_are_swept_unless_they_are_pinned(bitfront, live, call, tmp_path):
    made = bitfront("submit", "job.yaml", "--json")
    bitfront("cancel", made["id"])
    Events(live.store).add(made["id"], [("log", {"line": "long ago"})])
    (tmp_path / "service.yaml").write_text(f"store: {live.settings.store}\nkeep_days: 1.0e-9\nkeep_newest: 0\n")
    arguments = ("sweep", "--config", "service.yaml", "--outputs", str(tmp_path / "jobs"))
    assert bitfront(*arguments, "--dry-run", "--json")["jobs"] == [made["id"]]
    assert bitfront("pin", made["id"], "--store", live.settings.store, "--json") == {"id": made["id"], "pinned": True}
    assert bitfront(*arguments, "--json")["jobs"] == []
    assert "no longer pinned" in bitfront("pin", made["id"], "--off", "--store", live.settings.store)
    assert "0 files (0.0 MB) and 1 events of 1 jobs" in bitfront(*arguments)
    assert Events(live.store).after(made["id"]) == []
    refused(call("sweep", "--store", live.settings.store), "give --keep-days")
    refused(call("pin", "0123456789ab", "--store", live.settings.store), "no job")


@pytest.mark.parametrize(
    "verb",
    ["submit", "jobs", "show", "logs", "cancel", "pause", "resume", "retry", "front", "export", "serve", "worker",
     "reproduce", "sweep", "pin", "users add", "users list", "users remove", "users token"],
)  # fmt: skip
def test_the_help_teaches_by_examples(call, verb):
    code, out, _ = call(*verb.split(), "--help")
    assert code == 0
    assert f"bitfront {verb}" in out
    assert "--json" in out
