"""Certificates, and how artifacts take their place: whole or not at all, the same bytes from every process."""

import hashlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from bitfront.errors import ExportMismatch, InvalidInput
from bitfront.exporters import certificate_path, check_files, export, get, names
from bitfront.exporters.placement import placing
from torch import nn

WRITE = """
import pathlib, sys, torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from bitfront import SearchSpace, Task, calibrate
from bitfront.evaluators import QuantizedModel
from bitfront.exporters import ExportRequest, get
from bitfront.exporters.rules import takes, violations
from bitfront.formats import Format
from bitfront.space import Configuration
from bitfront.task import Batch

torch.manual_seed(0)
network = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
language = LlamaForCausalLM(LlamaConfig(
    vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=False, use_cache=False)).eval()
FORMATS = ["w4", "w8", "w4g32", "w8a8", "w8a8s", "fp32"]
prepared = {}
for kind, model, batch in (
    ("network", network, torch.randn(2, 32)), ("language", language, {"input_ids": torch.arange(12).reshape(2, 6)})
):
    space = SearchSpace.from_model(model, Batch.of(batch), formats=FORMATS, ties="none")
    task = Task(model, calibration=[batch], validation=[batch], holdout=[batch])
    prepared[kind] = QuantizedModel(model, space, calibrate(task, space)), Batch.of(batch)
for name in sys.argv[2:]:
    target = get(name)
    quantized, example = prepared["language" if name in ("compressed-tensors", "llama-cpp") else "network"]
    groups = [set(tie.sites) for tie in target.fused(quantized.space)]
    chosen = {}
    for number, site in enumerate(quantized.space.sites):
        sibling = [chosen[each] for group in groups if site.name in group for each in group if each in chosen]
        order = sibling or FORMATS[number % 5:] + FORMATS[:number % 5] + ["fp32"]
        chosen[site.name] = next(
            each for each in order if site.offers(each) and takes(target, site, Format.parse(each)))
    folder = pathlib.Path(sys.argv[1]) / name
    folder.mkdir()
    request = ExportRequest(quantized, Configuration.from_dict(chosen), example, name="m.onnx")
    assert violations(target, request) == [], (name, violations(target, request))
    assert len(set(chosen.values())) > 1, (name, chosen)
    target.export(request, folder)
"""


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


def test_the_same_configuration_gives_the_same_bytes_in_every_process(tmp_path):
    """Every target whose packages are here, each in two processes that hash strings differently."""
    here = [name for name in names() if all(find_spec(package) for package in get(name).packages)]
    assert set(names()) - set(here) <= {"executorch"}  # an extra that is not installed for tests
    running = []
    for seed, place in (("1", "a"), ("2", "b")):
        (tmp_path / place).mkdir()
        environment = os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", WRITE, str(tmp_path / place), *here]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment))
    for process in running:
        _, errors = process.communicate(timeout=280)
        assert process.returncode == 0, errors.decode()[-2000:]
    first, second = (
        {
            str(file.relative_to(tmp_path / place)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in (tmp_path / place).rglob("*")
            if file.is_file()
        }
        for place in "ab"
    )
    assert {name.partition("/")[0] for name in first} == set(here)
    assert first == second


def test_a_certificate_says_what_went_in_and_what_came_out(tmp_path):
    example = torch.randn(2, 32)
    report = export(network(), {"0": "w4"}, tmp_path / "m.onnx", example_inputs=example, rounds=2)
    content = json.loads((tmp_path / "m.onnx.bitfront.json").read_text())
    assert certificate_path(tmp_path / "m.onnx", "file").name == "m.onnx.bitfront.json"
    assert content["schema_version"] == 2
    assert content["files"]["m.onnx"]["bytes"] == (tmp_path / "m.onnx").stat().st_size == report.bytes_on_disk
    assert content["files"]["m.onnx"]["sha256"] == hashlib.sha256((tmp_path / "m.onnx").read_bytes()).hexdigest()
    assert set(content["versions"]) == {"python", "bitfront", "torch", "numpy", "onnx", "onnxscript", "onnxruntime"}
    assert all(content["versions"][name] for name in ("torch", "numpy", "onnxruntime"))
    assert content["machine"]["cpus"] >= 1
    assert content["inputs"]["samples"] == 2
    assert content["report"]["latency"]["passes"] == 2
    assert report.files == (str(tmp_path / "m.onnx"), str(tmp_path / "m.onnx.bitfront.json"))
    assert check_files(tmp_path / "m.onnx.bitfront.json") == content


def test_digests_follow_the_model_and_the_data(tmp_path):
    found = []
    for shift, seed in ((0.0, 0), (0.0, 0), (1.0, 0), (0.0, 1)):
        model = network()
        with torch.no_grad():
            model[2].bias += shift
        example = torch.randn(2, 32, generator=torch.Generator().manual_seed(seed))
        export(model, {"0": "w4"}, tmp_path / "m", "auto-round", example_inputs=example)
        found.append(json.loads((tmp_path / "m.bitfront.json").read_text())["inputs"])
    assert found[0] == found[1]
    assert found[2]["model"] != found[0]["model"]
    assert found[2]["data"] == found[0]["data"] != found[3]["data"]


def test_a_changed_or_missing_file_is_found(tmp_path):
    export(network(), {"0": "w4"}, tmp_path / "m", "auto-round", example_inputs=torch.randn(2, 32))
    sealed = tmp_path / "m.bitfront.json"
    (tmp_path / "m").write_text((tmp_path / "m").read_text().replace("4", "5", 1))
    with pytest.raises(ExportMismatch, match="is not the file that was checked"):
        check_files(sealed)
    (tmp_path / "m").unlink()
    with pytest.raises(ExportMismatch, match="is missing"):
        check_files(sealed)
    sealed.write_text("{}")
    with pytest.raises(InvalidInput, match="is not a certificate"):
        check_files(sealed)
    with pytest.raises(InvalidInput, match="no certificate"):
        check_files(tmp_path / "other.json")


def test_files_appear_together_with_the_main_one_last(tmp_path, monkeypatch):
    moved = []
    plain = type(tmp_path).replace

    def recorded(self, target):
        moved.append(self.name)
        return plain(self, target)

    monkeypatch.setattr(type(tmp_path), "replace", recorded)
    with placing(tmp_path / "deep" / "m", "file") as side:
        for name in ("m", "m.data", "a"):
            (side / name).write_text(name)
        assert not (tmp_path / "deep" / "m").exists()
    assert moved[-1] == "m"
    assert sorted(file.name for file in (tmp_path / "deep").iterdir()) == ["a", "m", "m.data"]


def test_a_folder_takes_the_place_of_the_old_one_or_nothing_changes(tmp_path, monkeypatch):
    for text in ("old", "new"):
        with placing(tmp_path / "b", "folder") as side:
            (side / text).write_text(text)
    assert [file.name for file in tmp_path.rglob("*")] == ["b", "new"]

    def broken():
        with placing(tmp_path / "b", "folder") as side:
            (side / "worse").write_text("")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert [file.name for file in tmp_path.rglob("*")] == ["b", "new"]
    plain = type(tmp_path).rename

    def failing(self, target):
        if self.suffix == ".tmp":
            raise OSError("no space")
        return plain(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", failing)
    with pytest.raises(OSError, match="no space"), placing(tmp_path / "b", "folder") as side:
        (side / "worse").write_text("")
    assert [file.name for file in tmp_path.rglob("*")] == ["b", "new"]
