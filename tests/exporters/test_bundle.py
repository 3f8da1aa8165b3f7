"""Bundles: read in a process in which bitfront cannot be imported."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from bitfront import SearchSpace, Task
from bitfront.errors import ExportMismatch, InvalidInput
from bitfront.evaluators import QuantizedModel, calibrate
from bitfront.exporters import check_files, export
from bitfront.exporters.bundle import BundleTarget
from bitfront.formats import Format
from bitfront.service.evidence import evidence_of, options_for
from torch import nn

READ = """
import sys
sys.modules["bitfront"] = None
import json, os
import numpy as np
from safetensors.numpy import load_file
os.chdir(sys.argv[1])
sites = json.load(open("sites.json"))["sites"]
weights, scales = load_file("model.safetensors"), load_file("quantization.safetensors")
site = sites[0]
assert json.load(open("configuration.json"))[site["name"]] == site["format"] == "w4"
weight, bits = weights[site["parameter"]], site["weight"]["bits"]
scale = scales[f"scale|{site['format']}|{site['name']}"].reshape(-1, 1)
decoded = np.clip(np.round(weight / scale), -2 ** (bits - 1), 2 ** (bits - 1) - 1) * scale
np.save(sys.argv[2], decoded)
import torch
program = torch.export.load("model.pt2").module()
np.save(sys.argv[3], program(torch.ones(5, 16)).detach().numpy())
print(json.dumps(json.load(open("evidence.json"))["evidence"]["measured"]))
"""

DOCUMENT = {
    "metric": "kl",
    "objectives": ["quality", "latency_ms"],
    "float": {},
    "environment": {"torch": "2"},
    "price_tables": {"latency_ms": {"values": [[1.0]], "source": "measured", "provenance": "cpu, onnxruntime"}},
    "recipe": {"chosen": {"weights": "mse"}},
    "job": {"model": {"zoo": "digits_resnet20"}, "data": {}},
    "points": [],
}
POINT = {"id": "p1", "predicted": {"quality": 0.1}, "measured": {"holdout": {"value": 0.2}}, "prices": {}}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.second.weight = self.first.weight
        self.third = nn.Linear(16, 4)

    def forward(self, x):
        return self.third(self.second(self.first(x)).relu())


@pytest.fixture
def bundled(tmp_path):
    torch.manual_seed(0)
    model, example = Tied().eval(), torch.randn(4, 16)
    space = SearchSpace.from_model(model, example, formats=["w4", "w8a8"])
    calibration = calibrate(Task(model, calibration=[example], validation=[example, example]), space)
    chosen = {"first": "w4", "third": "w8a8"}
    options = options_for("bundle", evidence_of(DOCUMENT, POINT))
    report = export(
        model, chosen, tmp_path / "b", "bundle", example_inputs=example, calibration=calibration, space=space,
        options=options,
    )  # fmt: skip
    return model, QuantizedModel(model, space, calibration), report


def test_a_bundle_is_read_without_bitfront(tmp_path, bundled):
    model, quantized, _ = bundled
    decoded, outputs = tmp_path / "decoded.npy", tmp_path / "outputs.npy"
    told = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "b"), str(decoded), str(outputs)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    wanted = quantized.weight(quantized.space.sites[0], Format.parse("w4").weight).numpy()
    assert np.array_equal(np.load(decoded), wanted)
    assert np.allclose(np.load(outputs), model(torch.ones(5, 16)).detach().numpy(), atol=1e-5)
    assert json.loads(told.splitlines()[-1]) == POINT["measured"]


def test_a_bundle_holds_everything_and_its_certificate(tmp_path, bundled):
    _, _, report = bundled
    names = ["README.md", "configuration.json", "evidence.json", "model.pt2", "model.safetensors",
             "quantization.safetensors", "sites.json"]  # fmt: skip
    assert sorted(file.name for file in (tmp_path / "b").iterdir()) == sorted([*names, "bitfront.json"])
    assert sorted(check_files(tmp_path / "b" / "bitfront.json")["files"]) == sorted(names)
    assert report.bytes_on_disk == sum((tmp_path / "b" / name).stat().st_size for name in names)
    assert report.relative_error is None
    readme = (tmp_path / "b" / "README.md").read_text()
    for text in ("`w8a8`", "predicted.quality | 0.1", "data.licence", "tables.latency_ms.digest", "torch.export.load"):
        assert text in readme or text.replace("data.", "data.data.") in readme


def test_a_shared_weight_is_stored_once_under_both_names(tmp_path, bundled):
    from safetensors.numpy import load_file

    stored = load_file(tmp_path / "b" / "model.safetensors")
    aliases = json.loads((tmp_path / "b" / "sites.json").read_text())["aliases"]
    assert aliases == {"second.weight": "first.weight"}
    assert "second.weight" not in stored
    scales = load_file(tmp_path / "b" / "quantization.safetensors")
    assert set(scales) == {"scale|w4|first", "scale|w8|third", "range|a8|third"}


def test_no_path_of_this_machine_is_in_the_program(tmp_path, bundled):
    content = (tmp_path / "b" / "model.pt2").read_bytes()
    assert b"test_bundle.py" not in content
    assert str(tmp_path).encode() not in content


def test_a_changed_tensor_or_program_fails_the_check(bundled, monkeypatch, tmp_path):
    plain = BundleTarget.export

    def corrupting(self, request, folder):
        artifact = plain(self, request, folder)
        with torch.no_grad():
            request.model.third.bias += 1.0
        return artifact

    monkeypatch.setattr(BundleTarget, "export", corrupting)
    model = bundled[0]
    with pytest.raises(ExportMismatch, match=r"third\.bias in model\.safetensors"):
        export(model, {"first": "w4"}, tmp_path / "c", "bundle", example_inputs=torch.randn(2, 16))
    assert not (tmp_path / "c").exists()


def test_a_model_that_cannot_be_traced_has_no_program_and_says_so(tmp_path):
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x) if float(x.sum()) > 0 else self.fc(-x)

    report = export(Branch().eval(), {"fc": "w4"}, tmp_path / "b", "bundle", example_inputs=torch.ones(2, 4))
    assert not (tmp_path / "b" / "model.pt2").exists()
    assert any("no model.pt2: torch.export refuses Branch" in note for note in report.notes)
    assert any("no evidence was given" in note for note in report.notes)
    assert "missing: torch.export refuses" in (tmp_path / "b" / "README.md").read_text()


def test_evidence_that_is_no_json_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"evidence: must be plain JSON with finite numbers"):
        export(
            nn.Sequential(nn.Linear(4, 4)).eval(), {"0": "w4"}, tmp_path / "b", "bundle",
            example_inputs=torch.ones(2, 4), options={"evidence": {"value": float("nan")}},
        )  # fmt: skip


def test_evidence_goes_only_where_it_is_understood():
    evidence = evidence_of(DOCUMENT, POINT)
    assert options_for("onnx", evidence) == {}
    assert options_for("bundle", evidence)["evidence"]["data"]["data"]["licence"]
    assert len(evidence["tables"]["latency_ms"]["digest"]) == 16
