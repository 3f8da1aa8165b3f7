"""The command line as a user runs it: results, exit codes, one line of error, kill and resume."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from pathlib import Path

import bitfront as bf
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from bitfront.service.cli import main
from safetensors.torch import save_file

HERE = Path(__file__).parent
BITFRONT = Path(sys.executable).with_name("bitfront")


@pytest.fixture
def folder(tmp_path):
    """A folder with a job, its data, and the factory's module."""
    (tmp_path / "tiny_factory.py").write_text((HERE / "tiny_factory.py").read_text())
    generator = np.random.default_rng(0)
    for name, count in (("calib", 16), ("val", 32)):
        np.savez(tmp_path / f"{name}.npz", inputs=generator.normal(size=(count, 3, 8, 8)).astype("float32"))
    write(tmp_path)
    return tmp_path


def write(folder, **changes):
    job = {
        "name": "tiny",
        "model": {"factory": "tiny_factory:tiny"},
        "data": {"calibration": "calib.npz", "validation": "val.npz", "batch": 8},
        "space": {"formats": ["w2", "w4", "w8", "w8a8", "bf16"]},
        "objectives": ["quality", "size_mb"],
        "search": {"evaluations": 14},
        "export": {"target": "onnx"},
    }
    job |= changes
    (folder / "job.yaml").write_text(yaml.safe_dump({key: value for key, value in job.items() if value != "drop"}))


def bitfront(folder, *arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **options.pop("env", {})}
    return subprocess.run(
        [BITFRONT, *arguments], cwd=folder, capture_output=True, text=True, timeout=200, env=environment, **options
    )


def test_run_writes_everything_and_the_rest_reads_it(folder):
    done = bitfront(folder, "run", "job.yaml", "--out", "out/tiny", "--executor", "local")
    assert done.returncode == 0, done.stderr
    assert "best next to uniform" in done.stdout
    out = folder / "out/tiny"
    written = {path.name for path in out.iterdir()}
    assert written == {"front.json", "front.parquet", "best.json", "report.html", "export", "run.log"}

    document = json.loads((out / "front.json").read_text())
    assert document["schema_version"] == 1
    frame = pd.read_parquet(out / "front.parquet")
    assert list(frame["id"]) == [point["id"] for point in document["points"]]
    best = next(point for point in document["points"] if point["id"] == document["best"])
    assert bf.Configuration.from_json(out / "best.json").to_dict() == best["config"]
    assert "<script" in (out / "report.html").read_text()
    assert (out / document["exports"][0]["path"]).stat().st_size == document["exports"][0]["bytes_on_disk"]
    assert document["exports"][0]["relative_error"] <= document["exports"][0]["bound"]
    assert "measure" in (out / "run.log").read_text()

    shown = bitfront(folder, "front", "out/tiny", "--budget", "size_mb=0.001", "--json")
    assert shown.returncode == 0, shown.stderr
    assert all(point["prices"]["size_mb"]["value"] <= 0.001 for point in json.loads(shown.stdout)["points"])

    exported = bitfront(folder, "export", "out/tiny", "--point", "uniform-w8a8", "--target", "onnx", "--json")
    assert exported.returncode == 0, exported.stderr
    assert (folder / json.loads(exported.stdout)["path"]).is_file()
    again = json.loads((out / "front.json").read_text())
    assert len(again["exports"]) == 2

    jobs = json.loads(bitfront(folder, "jobs", "--json").stdout)
    assert [job["state"] for job in jobs] == ["succeeded"]


def evaluations(folder):
    database = folder / ".bitfront/store.db"
    if not database.exists():
        return {}
    with sqlite3.connect(database, timeout=30) as connection:
        try:
            rows = connection.execute("SELECT context, configuration, split, created_at FROM evaluations").fetchall()
        except sqlite3.OperationalError:  # the tables are not there yet
            rows = []
    connection.close()
    return {row[:3]: row[3] for row in rows}


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_killed_run_goes_on_and_redoes_nothing(folder, executor):
    """SIGKILL in the middle, the same command again: what was committed is not evaluated a second time."""
    write(folder, model={"factory": "tiny_factory:slow"}, export=None)
    command = [BITFRONT, "run", "job.yaml", "--out", "out/tiny", "--executor", executor]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while len(evaluations(folder)) < 8:
        assert running.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)  # polls the database; the assertion does not depend on it
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not (folder / "out/tiny/front.json").exists()
    before = evaluations(folder)
    assert len(before) >= 8

    done = bitfront(folder, "run", "job.yaml", "--out", "out/tiny", "--executor", executor)
    assert done.returncode == 0, done.stderr
    after = evaluations(folder)
    assert set(before) < set(after)
    assert {key: after[key] for key in before} == before  # the very same rows: nothing was written again
    log = (folder / "out/tiny/run.log").read_text()
    asked = sum(
        int(line.split(": ran ")[1].split()[0])
        for line in log.splitlines()[_second_start(log) :]
        if re.search(r"stage (measure|refine|validate): ran ", line)
    )
    assert asked == len(after) - len(before)  # the second run asked for exactly what was missing


def _second_start(log):
    return [number for number, line in enumerate(log.splitlines()) if "load model and data: started" in line][1]


def test_ctrl_c_leaves_a_run_that_resumes(folder):
    write(folder, model={"factory": "tiny_factory:slow"}, export=None)
    running = subprocess.Popen(
        [BITFRONT, "run", "job.yaml", "--out", "out/tiny", "--executor", "local"],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells start background jobs with it ignored
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(evaluations(folder)) < 3:
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert errors.strip().splitlines()[-1] == "bitfront: interrupted; run the same command to go on"
    assert json.loads(bitfront(folder, "jobs", "--json").stdout)[0]["state"] == "paused"
    assert bitfront(folder, "run", "job.yaml", "--out", "out/tiny", "--executor", "local").returncode == 0


BAD = {
    "misspelt key": ({"serch": {"evaluations": 3}}, "unknown key 'serch'; did you mean 'search'?"),
    "misspelt inner key": (
        {"search": {"evaluation": 3}},
        "unknown key 'search.evaluation'; did you mean 'evaluations'?",
    ),
    "no model": ({"model": "drop"}, "key 'model' is missing"),
    "two models": ({"model": {"zoo": "minilm_l6", "factory": "a:b"}}, "exactly one of zoo, factory"),
    "unknown zoo entry": ({"model": {"zoo": "efficientnet"}, "data": {}}, "efficientnet_lite0"),
    "no such module": ({"model": {"factory": "nowhere:tiny"}}, "no module 'nowhere'"),
    "no such function": ({"model": {"factory": "tiny_factory:tny"}}, "has no 'tny'"),
    "not a model": ({"model": {"factory": "tiny_factory:not_a_model"}}, "returned int, not an nn.Module"),
    "missing weights": ({"model": {"factory": "tiny_factory:tiny", "weights": "w.safetensors"}}, "no file"),
    "missing data": ({"data": {"calibration": "no.npz", "validation": "val.npz"}}, "data.calibration: no file"),
    "unknown format": ({"space": {"formats": ["w4", "int3"]}}, "unknown format 'int3'"),
    "unreachable budget": ({"constraints": {"size_mb": 1e-5}}, "smallest reachable alone"),
    "unknown price": ({"constraints": {"size": 3}}, "did you mean 'size_mb'?"),
    "glob without site": ({"space": {"formats": ["w4"], "exclude": ["head*"]}}, "'head*' matches no site"),
    "unknown device": ({"device": {"name": "h100"}, "objectives": ["quality", "latency_ms"]}, "h100"),
    "unknown proxy": ({"proxies": ["hesian"]}, "did you mean 'hessian_trace'"),
    "unknown target": ({"export": {"target": "onx"}}, "onnx"),
    "weights with NaN": ({"model": {"factory": "tiny_factory:tiny", "arguments": {"broken": True}}}, "NaN"),
    "wrong type": ({"search": {"evaluations": "many"}}, "search.evaluations"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(folder, refused, case):
    changes, message = BAD[case]
    write(folder, **changes)
    refused(message, "run", "job.yaml", "--out", "out/tiny", "--executor", "local")
    assert not list((folder / "out").rglob("front.*"))


@pytest.fixture
def refused(folder, monkeypatch, capsys):
    """Runs the command in this process and checks that it is refused with one clear line and exit code 2."""

    def run(message, *arguments):
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["bitfront", *arguments])
            patch.setattr(sys, "path", list(sys.path))
            patch.delitem(sys.modules, "tiny_factory", raising=False)
            patch.setattr("logging.disable", lambda level: None)
            with warnings.catch_warnings(), pytest.raises(SystemExit) as stopped:
                main()
        check_refused(stopped.value.code, capsys.readouterr().err, message)

    return run


def check_refused(code, stderr, message):
    last = stderr.strip().splitlines()[-1]
    assert code == 2, stderr
    assert last.startswith("bitfront: ")
    assert message in last
    assert "Traceback" not in stderr


def test_bad_data_is_refused(folder, refused):
    wrong = np.zeros((16, 4, 8, 8), dtype="float32")
    np.savez(folder / "calib.npz", inputs=wrong)
    refused("(2, 4, 8, 8)", "run", "job.yaml", "--out", "o", "--executor", "local")
    np.savez(folder / "calib.npz", inputs=np.full((16, 3, 8, 8), np.inf, dtype="float32"))
    refused("NaN or infinity", "run", "job.yaml", "--out", "o", "--executor", "local")
    np.savez(folder / "calib.npz", inputs=np.array([{"pickled": 1}]))
    refused("plain arrays", "run", "job.yaml", "--out", "o", "--executor", "local")
    (folder / "calib.npz").write_bytes(b"torn")
    refused("plain arrays", "run", "job.yaml", "--out", "o", "--executor", "local")


def test_bad_files_are_refused(folder, refused):
    refused("no job file nothing.yaml", "run", "nothing.yaml", "--out", "o")
    (folder / "job.yaml").write_text("model: {zoo: [}\n")
    refused("not YAML in line 1", "run", "job.yaml", "--out", "o")
    write(folder)
    (folder / "file").write_text("")
    refused("is a file", "run", "job.yaml", "--out", "file")
    refused("no nowhere/front.json", "front", "nowhere")
    done = bitfront(folder, "rnu")
    check_refused(done.returncode, done.stderr, "No such command 'rnu'")
    refused("--out", "run", "job.yaml")


def test_weights_are_loaded_and_nothing_is_unpickled(folder, refused):
    import importlib.util

    spec = importlib.util.spec_from_file_location("tiny_factory", HERE / "tiny_factory.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    state = {name: tensor + 1 for name, tensor in module.tiny().state_dict().items()}
    save_file(state, folder / "w.safetensors")
    write(folder, model={"factory": "tiny_factory:tiny", "weights": "w.safetensors"}, export=None)
    from bitfront.service import read_job
    from bitfront.service.assemble import assemble

    made = assemble(*read_job(folder / "job.yaml"))
    assert torch.equal(made.task.model[0].weight, state["0.weight"])

    torch.save(module.tiny(), folder / "w.pt")  # a pickled module, not a state dict
    write(folder, model={"factory": "tiny_factory:tiny", "weights": "w.pt"})
    refused("holds no plain tensors", "run", "job.yaml", "--out", "o", "--executor", "local")
    save_file({"other": torch.zeros(2)}, folder / "w.safetensors")
    write(folder, model={"factory": "tiny_factory:tiny", "weights": "w.safetensors"})
    refused("does not fit Sequential", "run", "job.yaml", "--out", "o", "--executor", "local")


def test_the_small_verbs(folder):
    assert "hessian_trace" in bitfront(folder, "proxies").stdout
    rows = json.loads(bitfront(folder, "proxies", "--json").stdout)
    assert list(rows[0]) == ["proxy", "additive", "gradients", "what", "source"]
    assert {row["proxy"]: row["gradients"] for row in rows}["weight_mse"] == 0
    assert any(row["device"] == "nvidia-h100-sxm" for row in json.loads(bitfront(folder, "devices", "--json").stdout))
    doctor = bitfront(folder, "doctor")
    assert doctor.returncode == 0, doctor.stdout
    help_text = bitfront(folder, "--help")
    assert help_text.returncode == 0
    for verb in ("run", "front", "export", "devices", "proxies", "jobs", "dashboard", "doctor"):
        assert verb in help_text.stdout


def test_import_is_light():
    script = (
        "import bitfront, sys; print([m for m in ('torch', 'ray', 'pandas', 'streamlit', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
