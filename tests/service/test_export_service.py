"""Exports as users order them: from a server that a worker serves, and a failed one on the command line."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bitfront import Configuration
from bitfront.exporters import check_files
from bitfront.exporters.onnx_exporter import OnnxExporter
from bitfront.service.cli import main
from bitfront.service.client import Client
from bitfront.service.job import parse_job
from bitfront.service.run_job import run_job
from bitfront.service.settings import Settings
from bitfront.service.worker import JobWorker
from torch import nn

HERE = Path(__file__).parent


def arrays(path, samples, shape):
    np.savez(path, inputs=np.random.default_rng(0).normal(size=(samples, *shape)).astype("float32"))


def command(monkeypatch, *arguments):
    """The exit code of a command line in this process."""
    monkeypatch.setattr(sys, "argv", ["bitfront", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def submitted(client, folder):
    """A search for formats of a program that was sent to the server; its id."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval(), torch.randn(4, 6)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(exported, folder / "net.pt2")
    arrays(folder / "data.npz", 32, (6,))
    program, data = (
        f"upload:{client.upload(folder / name, kind=kind)}"
        for name, kind in (("net.pt2", "exported"), ("data.npz", "data"))
    )
    job = {
        "model": {"exported": program},
        "data": {"calibration": data, "validation": data, "batch": 8},
        "space": {"formats": ["w4", "w8"]},
        "objectives": ["quality", "size_mb"],
        "proxies": ["weight_mse"],
        "search": {"evaluations": 3},
        "export": None,
    }
    return client.submit(job)


def test_a_bundle_is_ordered_from_a_server_and_made_by_a_worker(live, tmp_path, monkeypatch):
    client = Client(live.url, token=live.tokens["sam"])
    worker = JobWorker(Settings(store=live.settings.store, outputs=live.settings.outputs,
                                uploads=live.settings.uploads, executor="local"))  # fmt: skip
    made = submitted(client, tmp_path)
    assert worker.run_once()
    front = client.front_document(made.id)["points"]
    wanted = next(point for point in front if len(set(point["config"].values())) == 1)
    order = client.export(made.id, wanted["id"], "bundle")
    assert worker.run_once()
    worker.close()
    done = client.show(order.id)
    assert done.state == "succeeded", done.reason
    assert "bundle" in done.reason

    monkeypatch.setenv("BITFRONT_TOKEN", live.tokens["sam"])
    given = ("export", made.id, "--point", wanted["id"], "--target", "bundle", "--to", str(tmp_path / "here"))
    assert command(monkeypatch, *given, "--server", live.url, "--json") == 0
    client.close()
    folder = tmp_path / "here" / f"{wanted['id']}.bundle"
    content = check_files(folder / "bitfront.json")
    assert set(content["files"]) | {"bitfront.json"} == {file.name for file in folder.iterdir()}
    assert json.loads((folder / "configuration.json").read_text()) == wanted["config"]
    evidence = json.loads((folder / "evidence.json").read_text())
    assert evidence["digest"] == Configuration.from_dict(wanted["config"]).digest
    given = evidence["evidence"]
    assert (given["point"], given["metric"]) == (wanted["id"], "kl")
    for split in ("validation", "holdout"):
        assert given["measured"][split]["value"] == wanted["measured"][split]["value"]


def test_a_failed_check_is_exit_code_1_and_leaves_the_folder_as_it_was(tmp_path, monkeypatch, capsys):
    (tmp_path / "tiny_export_factory.py").write_text((HERE / "tiny_factory.py").read_text())
    for name in ("calib", "val"):
        arrays(tmp_path / f"{name}.npz", 16, (3, 8, 8))
    job = {
        "model": {"factory": "tiny_export_factory:tiny"},
        "data": {"calibration": "calib.npz", "validation": "val.npz", "batch": 8},
        "space": {"formats": ["w4", "w8"]},
        "objectives": ["quality", "size_mb"],
        "proxies": ["weight_mse"],
        "search": {"evaluations": 3},
        "export": None,
    }
    out = tmp_path / "out"
    run_job(parse_job(job, "tiny"), tmp_path, out, store=f"sqlite:///{tmp_path}/store.db", executor="local")
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    monkeypatch.setattr(OnnxExporter, "default_bound", lambda self, request, noise: 1e-12)
    monkeypatch.setenv("BITFRONT_STORE", f"sqlite:///{tmp_path}/store.db")
    assert command(monkeypatch, "export", str(out), "--point", "uniform-w8", "--target", "onnx") == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "does not compute what the fake-quantized model computes" in told
    assert told.endswith("nothing was written")
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    assert command(monkeypatch, "export", str(out), "--point", "uniform-w8", "--target", "onix") == 2
