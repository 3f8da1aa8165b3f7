"""Products that stay packed in memory: MatMulNBits on int8 inputs and on float inputs, bit for bit in the file."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from bitfront.errors import ExportMismatch, InvalidInput, NotMeasured, UnsupportedModel
from bitfront.evaluators import QuantizedModel, calibrate
from bitfront.evaluators.quantizers import Layout
from bitfront.exporters import export, get
from bitfront.exporters.onnx_check import initializers
from bitfront.exporters.onnx_exporter import OnnxExporter
from bitfront.exporters.onnx_nbits import decoded
from bitfront.formats import Format
from bitfront.hw_models.kernels import computes_in
from bitfront.space import SearchSpace
from bitfront.task import Task
from transformers.pytorch_utils import Conv1D


class Mixed(nn.Module):
    """A linear layer on three axes, one on two without bias, and Hugging Face's Conv1D."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.turned = nn.Linear(128, 256), Conv1D(128, 256)
        self.last = nn.Linear(128, 8, bias=False)

    def forward(self, x):
        return self.last(self.turned(self.first(x).relu()).mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(16, 128), nn.Linear(128, 16, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.embed(ids))


def rows(seed, count=4):
    return torch.randn(count, 6, 128, generator=torch.Generator().manual_seed(seed))


def ids(seed, count=4):
    return torch.randint(16, (count, 6), generator=torch.Generator().manual_seed(seed))


def exported(path, model, data, names, **arguments):
    torch.manual_seed(0)
    model = model.eval()
    task = Task(model, calibration=[data(1)], validation=[data(2)] * 2, quality="relative_error")
    space = SearchSpace.from_model(model, data(0), formats=[*names, "fp32"], ties="none")
    calibration = calibrate(task, space)
    chosen = {site.name: names[index % len(names)] for index, site in enumerate(space.sites)}
    chosen = {site.name: chosen[site.name] if site.offers(chosen[site.name]) else "fp32" for site in space.sites}
    report = export(
        model, chosen, path, example_inputs=data(3), calibration=calibration, space=space, rounds=0, **arguments
    )
    return report, chosen, QuantizedModel(model, space, calibration)


def nodes(path):
    return {node.name: node for node in onnx.load(path).graph.node if node.op_type == "MatMulNBits"}


@pytest.mark.parametrize(
    "names", [["w4g32a8g32", "w8g64a8g64", "w2g128a8g128"], ["w4g32za8g32", "w3g64a8g64", "w6g32za8g32"]]
)
def test_inputs_in_groups_run_on_integers_as_they_were_measured(tmp_path, names):
    report, chosen, quantized = exported(tmp_path / "m.onnx", Mixed(), rows, names)
    assert set(chosen.values()) == set(names)
    assert report.relative_error < 3 * max(report.noise, 1e-6)
    assert set(report.integer_kernels) == set(chosen)
    assert not report.float_kernels
    assert report.dynamic_batch
    found = nodes(report.path)
    assert len(found) == len(chosen)
    stored = initializers(tmp_path / "m.onnx")
    for site in quantized.space.sites:
        target = Format.parse(chosen[site.name]).weight
        layout = Layout(site.weight_shape, site.channel_axis, target)
        wanted = quantized.weight(site, target).numpy()
        assert np.array_equal(decoded(stored, site.parameter, layout), wanted)
        parts = [name for name in stored if name.startswith(site.parameter)]
        assert sum(stored[name].nbytes for name in parts) <= -(-Format.parse(chosen[site.name]).stored_bits(
            site.weight_shape, site.channel_axis) // 8)  # fmt: skip


@pytest.mark.parametrize("names", [["w4", "w4g32", "w3g64z"]])
def test_packed_weights_compute_on_float_inputs(tmp_path, names):
    report, chosen, _ = exported(tmp_path / "m.onnx", Mixed(), rows, names, options={"weights": "packed"})
    assert report.relative_error < 1e-5
    assert not report.integer_kernels
    levels = {
        attribute.i
        for node in nodes(report.path).values()
        for attribute in node.attribute
        if attribute.name == "accuracy_level"
    }
    assert levels == {1}
    assert len(nodes(report.path)) == len(chosen)
    assert report.node_counts["MatMulNBits"] == len(chosen)
    folded, _, _ = exported(tmp_path / "f.onnx", Mixed(), rows, names)
    assert "MatMulNBits" not in folded.node_counts
    assert abs(report.bytes_on_disk - folded.bytes_on_disk) < 3000


def test_what_has_no_packed_kernel_is_folded(tmp_path):
    report, _, _ = exported(tmp_path / "m.onnx", Tied(), ids, ["w4"], options={"weights": "packed"})
    assert report.relative_error < 1e-5
    assert not nodes(report.path)


def test_a_weight_that_is_also_looked_up_has_no_kernel_for_inputs_in_groups(tmp_path):
    torch.manual_seed(0)
    model = Tied().eval()
    with pytest.raises((UnsupportedModel, InvalidInput), match=r"head"):
        export(model, {"head": "w4g32a8g32"}, tmp_path / "m.onnx", example_inputs=ids(0))


@pytest.mark.parametrize("name", ["w4g32a8g64", "w4g32a4g32", "we2m1g32a8g32", "w8a8g32"])
def test_other_groups_of_the_input_are_refused(name):
    assert not get("onnx").capability(Format.parse(name))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "small"}, "choose one of folded, packed"),
        ({"external_bytes": -1}, "0 or more"),
        ({"kind": 1}, "it has"),
    ],
)
def test_options_are_checked(tmp_path, options, message):
    with pytest.raises(InvalidInput, match=message):
        export(Mixed().eval(), {"first": "w8"}, tmp_path / "m.onnx", example_inputs=rows(0), options=options)


@pytest.mark.parametrize("end", ["", ".scale", ".zero_point"])
def test_a_changed_tensor_fails_the_check(tmp_path, monkeypatch, end):
    plain = OnnxExporter.export

    def corrupting(self, request, folder):
        artifact = plain(self, request, folder)
        model = onnx.load(folder / request.name)
        for tensor in model.graph.initializer:
            if tensor.name == f"first.weight{end}":
                tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]
        onnx.save(model, folder / request.name)
        return artifact

    monkeypatch.setattr(OnnxExporter, "export", corrupting)
    with pytest.raises(ExportMismatch, match="first"):
        exported(tmp_path / "m.onnx", Mixed(), rows, ["w4g32za8g32"])
    assert not list(tmp_path.iterdir())


def test_its_latency_is_refused_and_not_guessed_from_other_kernels():
    for name in ("w4g32a8g32", "w8g128a8g128"):
        weight = name.partition("a")[0]
        with pytest.raises(NotMeasured, match=rf"^format {name}: runs as MatMulNBits .* offer {weight}a8 or {weight}$"):
            computes_in(name)
    with pytest.raises(NotMeasured, match="one static scale only"):
        computes_in("w8a8g32")
