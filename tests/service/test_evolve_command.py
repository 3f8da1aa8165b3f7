"""``bitfront proxies evolve JOB.yaml`` as a user runs it, and a job that names the formula that it wrote."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from bitfront.errors import InvalidInput
from bitfront.proxies.formulas.library import read_library
from bitfront.search.evolution import EvolutionSettings
from bitfront.service import evolve_job as module
from bitfront.service.cli import main
from bitfront.service.evolve_job import settings_for
from bitfront.service.job import parse_job, read_job
from bitfront.service.run_bench import asked, separated

HERE = Path(__file__).parent
QUICK = ["--evaluations", "48", "--seconds", "0.5", "--executor", "local"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a job; its store is filled by the first test that measures."""
    path = tmp_path_factory.mktemp("evolve")
    (path / "evolve_factory.py").write_text((HERE / "tiny_factory.py").read_text())
    generator = np.random.default_rng(0)
    for name in ("calib", "val"):
        np.savez(path / f"{name}.npz", inputs=generator.normal(size=(16, 3, 8, 8)).astype("float32"))
    job = {
        "name": "tiny",
        "model": {"factory": "evolve_factory:tiny"},
        "data": {"calibration": "calib.npz", "validation": "val.npz", "batch": 8},
        "space": {"formats": ["w2", "w3", "w4", "w8"]},
        "objectives": ["quality", "size_mb"],
        "proxies": ["weight_mse"],
        "search": {"evaluations": 6},
        "export": None,
    }
    (path / "job.yaml").write_text(yaml.safe_dump(job))
    (path / "own.yaml").write_text(yaml.safe_dump({**job, "proxies": ["formula:job.formula.json"]}))
    return path


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """Runs ``bitfront`` in this process, in that folder: exit code, standard output, standard error."""

    def run(*arguments):
        with monkeypatch.context() as patch, warnings.catch_warnings():
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["bitfront", *arguments])
            patch.setattr(sys, "path", list(sys.path))
            patch.setattr("logging.disable", lambda level: None)
            with pytest.raises(SystemExit) as stopped:
                main()
        shown = capsys.readouterr()
        return stopped.value.code, shown.out, shown.err

    return run


def test_a_formula_is_kept_only_if_it_beats_the_hand_made_one(command, folder):
    """Against a weak proxy it wins, is written, and a job can name the file; against a strong one it says so."""
    code, out, err = command(
        "proxies", "evolve", "job.yaml", *QUICK, "--seconds", "4", "--proxies", "bparams", "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    assert (found["rival"], found["measured"]) == ("bparams", 48)
    duel = found["seen"]["comparisons"]["bparams"]
    assert found["beaten"] == (duel["difference"]["low"] > 0)
    assert found["beaten"], "better than a score of the bits alone"
    assert found["kept"] == "formula:job.formula.json"
    assert "the evolved formula beats bparams" in found["verdict"]
    assert found["seen"]["points"] == {"tiny": 24}
    (entry,) = read_library(folder / "job.formula.json").values()
    assert entry.held_out["configurations"]["comparisons"]["bparams"]["difference"] == duel["difference"]
    assert entry.found["networks"] == ["tiny"]

    job, _ = read_job(folder / "own.yaml")
    assert job.proxies == [found["proxy"]]
    code, _, err = command("run", "own.yaml", "--out", "out/own", "--executor", "local")
    assert code == 0, err
    document = json.loads((folder / "out/own/front.json").read_text())
    assert document["job"]["proxies"] == [found["proxy"]]

    code, out, err = command("proxies", "job.yaml", "--proxies", f"weight_mse,{found['proxy']}", "--evaluations", "48")
    assert code == 0, err
    assert "weight_mse" in out


def test_a_hand_made_proxy_that_is_as_good_is_kept(command, folder):
    code, out, err = command(
        "proxies", "evolve", "job.yaml", *QUICK, "--proxies", "measured_quality", "--out", "other.json"
    )
    assert code == 0, err
    told = " ".join(out.split())
    assert "the evolved formula does not beat measured_quality, which is kept" in told
    assert 'proxies: ["measured_quality"]' in told
    assert "evolved (chosen on the other half)" in out
    assert not (folder / "other.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["job.yaml", "--evaluations", "20"], "at least 48"),
        (["job.yaml", "--seconds", "0"], "positive time"),
        (["job.yaml", "--proxies", "hesian"], "unknown proxy 'hesian'"),
        (["job.yaml", "--proxies", "evolved"], "no hand-made proxy to beat"),
        (["job.yaml", "--out", "formula.txt"], "ends in .json"),
        (["job.yaml", "--executor", "rya"], "choose ray or local"),
        (["nothing.yaml"], "no job file"),
        ([], "JOB.yaml"),
    ],
)
def test_bad_input_is_one_line(command, arguments, message):
    code, _, err = command("proxies", "evolve", *arguments)
    assert code == 2
    assert message in err.strip().splitlines()[-1]
    assert "Traceback" not in err


def test_the_commands_of_the_group(command):
    code, out, _ = command("proxies")
    assert code == 0
    assert "weight_mse" in out
    code, out, _ = command("proxies", "--json")
    assert code == 0
    assert any(row["proxy"] == "weight_mse" for row in json.loads(out))
    for arguments in (["proxies", "--help"], ["proxies", "evolve", "--help"], ["proxies", "judge", "--help"]):
        code, out, _ = command(*arguments)
        assert code == 0
        assert "Usage" in out


def test_a_missing_formula_is_told_before_anything_is_loaded(folder):
    (folder / "gone.yaml").write_text(yaml.safe_dump({"model": {"zoo": "minilm_l6"}, "proxies": ["formula:gone.json"]}))
    with pytest.raises(InvalidInput, match=r"no file .*gone\.json"):
        read_job(folder / "gone.yaml")


def test_commas_in_parentheses_belong_to_a_formula():
    assert separated("a, formula:minimum(b, max(c)) ,,d") == ["a", "formula:minimum(b, max(c))", "d"]
    job = parse_job({"model": {"zoo": "minilm_l6"}})
    assert asked(job, "sqnr,formula:mean(minimum(error, weight))")[0][1] == "formula:mean(minimum(error, weight))"


def test_small_benches_have_fewer_folds():
    assert [settings_for(points, 3).folds for points in (48, 96, 1000)] == [2, 4, 4]
    assert settings_for(40, 3).folds == 0
    assert settings_for(48, 3) == EvolutionSettings(seed=3, folds=2)


def test_what_cannot_be_scored_by_any_proxy_is_refused(command, monkeypatch):
    monkeypatch.setattr(module, "scores_of", lambda *arguments: ({}, {"weight_mse": "it has no weights"}))
    code, _, err = command("proxies", "evolve", "job.yaml", *QUICK)
    assert code == 2
    assert "no hand-made proxy can score this model: it has no weights" in err
