"""``bitfront proxies JOB.yaml`` and ``proxies: auto`` as a user runs them."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from bitfront.proxies import proxies
from bitfront.search.proxy_choice import AUTO
from bitfront.service.cli import main
from bitfront.service.job import parse_job
from bitfront.service.run_bench import asked

HERE = Path(__file__).parent


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs ``bitfront`` in this process, in a folder with a job: exit code, standard output, standard error."""
    (tmp_path / "tiny_factory.py").write_text((HERE / "tiny_factory.py").read_text())
    generator = np.random.default_rng(0)
    for name in ("calib", "val"):
        np.savez(tmp_path / f"{name}.npz", inputs=generator.normal(size=(16, 3, 8, 8)).astype("float32"))
    job = {
        "name": "tiny",
        "model": {"factory": "tiny_factory:tiny"},
        "data": {"calibration": "calib.npz", "validation": "val.npz", "batch": 8},
        "space": {"formats": ["w2", "w4", "w8", "w8a8", "bf16"]},
        "objectives": ["quality", "size_mb"],
        "search": {"evaluations": 16},
        "export": None,
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    (tmp_path / "auto.yaml").write_text(yaml.safe_dump({**job, "proxies": "auto"}))

    def run(*arguments):
        with monkeypatch.context() as patch, warnings.catch_warnings():
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", ["bitfront", *arguments])
            patch.setattr(sys, "path", list(sys.path))
            patch.delitem(sys.modules, "tiny_factory", raising=False)
            patch.setattr("logging.disable", lambda level: None)
            with pytest.raises(SystemExit) as stopped:
                main()
        shown = capsys.readouterr()
        return stopped.value.code, shown.out, shown.err

    return run


def test_the_bench_is_measured_once_and_told_as_a_table_and_as_json(command):
    code, out, err = command("proxies", "job.yaml", "--proxies", "weight_mse,kurtosis", "--evaluations", "12")
    assert code == 0, err
    for text in (
        "weight_mse",
        "kurtosis",
        "size (baseline)",
        "random (baseline)",
        "τ at fixed",
        "12 measured",
        "choice",
    ):
        assert text in out
    code, out, err = command("proxies", "job.yaml", "--proxies", "weight_mse", "--evaluations", "12", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["measured"], found["measured_now"]) == (12, 0)
    assert list(found["trust"]["rows"]) == ["weight_mse", "size", "bops", "random"]
    assert found["trust"]["choice"]["proxy"] == "weight_mse"


def test_a_job_with_auto_shows_the_choice_in_its_report(command, tmp_path):
    code, _, err = command("run", "auto.yaml", "--out", "out/auto", "--executor", "local")
    assert code == 0, err
    choice = json.loads((tmp_path / "out/auto/front.json").read_text())["trust"]["choice"]
    assert set(choice["weights"]) == set(AUTO)
    page = (tmp_path / "out/auto/report.html").read_text()
    assert "How far can the predictions be trusted?" in page
    assert f"Chosen by the measurements: {choice['proxy']}" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--proxies", "weight_mse"], "need a job"),
        (["--evaluations", "8"], "need a job"),
        (["job.yaml", "--proxies", "hesian"], "unknown proxy 'hesian'"),
        (["job.yaml", "--proxies", ","], "names no proxy"),
        (["job.yaml", "--evaluations", "2"], "at least 3"),
        (["job.yaml", "--executor", "rya"], "choose ray or local"),
        (["nothing.yaml"], "no job file"),
    ],
)
def test_bad_input_is_one_line(command, arguments, message):
    code, _, err = command("proxies", *arguments)
    assert code == 2
    assert message in err.strip().splitlines()[-1]
    assert "Traceback" not in err


def test_which_proxies_are_asked_for():
    job = parse_job({"model": {"zoo": "minilm_l6"}, "proxies": ["sqnr"]})
    assert asked(job, None) == (["sqnr"], False)
    assert asked(job, "weight_mse, sqnr") == (["weight_mse", "sqnr"], False)
    assert asked(job, "auto") == (list(AUTO), True)
    assert asked(job, "all") == (list(proxies()), True)
    assert asked(parse_job({"model": {"zoo": "minilm_l6"}, "proxies": "auto"}), None) == (list(AUTO), True)
