"""Jobs that finetune the best configuration: the second artifact, the note, and neither where nothing is gained."""

import sys

import numpy as np
import pytest
import yaml
from bitfront.service import export_stage, read_job
from bitfront.service import run_job as running

FACTORY = """
import torch
from torch import nn


def normed():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )
    model(torch.randn(64, 3, 8, 8))
    return model
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a tiny job in this process; gives its result, document and output folder."""
    (tmp_path / "normed_factory.py").write_text(FACTORY)
    generator = np.random.default_rng(0)
    for name, count in (("calib", 40), ("val", 32)):
        np.savez(tmp_path / f"{name}.npz", inputs=generator.normal(size=(count, 3, 8, 8)).astype("float32"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.delitem(sys.modules, "normed_factory", raising=False)

    def run(name, **changes):
        content = {
            "model": {"factory": "normed_factory:normed"},
            "data": {"calibration": "calib.npz", "validation": "val.npz", "batch": 8},
            "space": {"formats": ["w2", "w4"]},
            "objectives": ["quality", "size_mb"],
            "proxies": ["weight_mse"],
            "search": {"evaluations": 4},
            "export": {"target": "onnx"},
        }
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(content | changes))
        job, folder = read_job(tmp_path / "job.yaml")
        out = tmp_path / name
        result, document = running.run_job(job, folder, out, store=f"sqlite:///{tmp_path}/store.db", executor="local")
        return result, document, out

    yield run
    sys.modules.pop("normed_factory", None)


def finetuning_notes(document):
    return [note for note in document["notes"] if "finetuning" in note]


def test_a_job_that_finetunes_writes_a_second_artifact_and_a_note(run, monkeypatch):
    asked = {}
    exporting = running.export

    def export(model, configuration, path, *given, **named):
        asked[path.name] = named.get("batch_norm")
        return exporting(model, configuration, path, *given, **named)

    monkeypatch.setattr(running, "export", export)
    monkeypatch.setattr(export_stage, "export", export)
    result, document, out = run(
        "tuned", quantization={"batch_norm": True}, finetune={"epochs": 2, "learning_rate": 0.002}
    )
    best = document["best"]
    assert [each["path"] for each in document["exports"]] == [f"export/{best}.onnx", f"export/{best}-finetuned.onnx"]
    first, second = ((out / each["path"]).read_bytes() for each in document["exports"])
    assert first != second
    assert all(each["relative_error"] <= each["bound"] for each in document["exports"])
    assert asked[f"{best}.onnx"] is not None
    assert asked[f"{best}-finetuned.onnx"] is None  # it was trained and measured with the float model's statistics
    (note,) = finetuning_notes(document)
    assert note.startswith("with quantization-aware finetuning (epoch ")
    assert "no post-training result" in note
    assert "batch normalization has the float model's statistics, also in the artifact" in note
    assert note.endswith(f"{best} has {result.choose().point.quality:.4g}")


def test_where_nothing_is_gained_there_is_one_artifact_and_the_note_says_so(run):
    _, document, out = run("untuned", finetune={"epochs": 1, "learning_rate": 10})
    assert [each["path"] for each in document["exports"]] == [f"export/{document['best']}.onnx"]
    assert not list((out / "export").glob("*-finetuned*"))
    (note,) = finetuning_notes(document)
    assert note == (
        "quantization-aware finetuning gained nothing in 1 epochs; the weights are as they were, "
        "and no finetuned artifact is written"
    )
