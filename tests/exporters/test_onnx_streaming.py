"""Large models: tensors are computed and written one at a time, into a file beside the graph where protobuf ends."""

import weakref

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from bitfront.evaluators import QuantizedModel
from bitfront.exporters import export
from bitfront.exporters.onnx_check import initializers
from bitfront.exporters.onnx_exporter import OnnxExporter
from bitfront.exporters.onnx_trace import trace
from bitfront.exporters.onnx_weights import deferred
from bitfront.exporters.protocol import ExportRequest
from bitfront.exporters.scales import weight_scales
from bitfront.formats import Format
from bitfront.space import Configuration, SearchSpace
from bitfront.task import Batch

NAMES = ("w4", "w8", "w4g32", "fp16", "w2")


class Stack(nn.Module):
    def __init__(self, width=64) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(len(NAMES) + 1)))

    def forward(self, x):
        return self.layers(x)


def request():
    torch.manual_seed(0)
    model, example = Stack().eval(), Batch.of(torch.randn(3, 64, generator=torch.Generator().manual_seed(1)))
    space = SearchSpace.from_model(model, example, formats=[*NAMES, "fp32"], ties="none")
    chosen = Configuration.from_dict({f"layers.{index}": name for index, name in enumerate(NAMES)})
    quantized = QuantizedModel(model, space, weight_scales(model, space, chosen))
    return ExportRequest(quantized, chosen, example, name="m.onnx", options={"external_bytes": 0})


def test_large_tensors_lie_beside_the_graph(tmp_path):
    wanted = request()
    reports = [
        export(wanted.model, wanted.configuration, tmp_path / folder / "m.onnx", example_inputs=wanted.example,
               options={"external_bytes": limit}, rounds=0)
        for folder, limit in (("beside", 0), ("inside", 10**9))
    ]  # fmt: skip
    beside, inside = tmp_path / "beside", tmp_path / "inside"
    assert sorted(path.name for path in beside.iterdir()) == [
        "m.onnx",
        "m.onnx.bitfront.json",
        "m.onnx.data",
    ]
    assert sorted(path.name for path in inside.iterdir()) == ["m.onnx", "m.onnx.bitfront.json"]
    assert reports[0].bytes_on_disk == sum((beside / name).stat().st_size for name in ("m.onnx", "m.onnx.data"))
    assert reports[0].relative_error == reports[1].relative_error < 1e-5
    assert abs(reports[0].bytes_on_disk - reports[1].bytes_on_disk) < 5000
    assert (beside / "m.onnx").stat().st_size < 0.3 * (inside / "m.onnx").stat().st_size
    stored, other = initializers(beside / "m.onnx"), initializers(inside / "m.onnx")
    assert set(stored) == set(other)
    assert all((stored[name] == other[name]).all() for name in stored)
    onnx.checker.check_model(str(beside / "m.onnx"))


def test_one_weight_is_in_memory_at_a_time(tmp_path, monkeypatch):
    """Codes are computed when they are written, each once, and are gone before the next ones."""
    wanted = request()
    alive, most, computed = set(), [0], []
    plain = ir.LazyTensor._evaluate

    def evaluate(tensor):
        found = plain(tensor)
        computed.append(tensor.name)
        alive.add(id(found))
        most[0] = max(most[0], len(alive))
        weakref.finalize(found, alive.discard, id(found))
        return found

    monkeypatch.setattr(ir.LazyTensor, "_evaluate", evaluate)
    folder = tmp_path / "out"
    folder.mkdir()
    OnnxExporter().export(wanted, folder)
    assert sorted(set(computed)) == sorted(f"layers.{index}.weight" for index in range(len(NAMES)))
    assert most[0] == 1
    assert not alive


def test_deferred_codes_are_those_of_the_quantized_weight():
    wanted = request()
    site = next(site for site in wanted.space.sites if site.name == "layers.2")
    target = Format.parse("w4g32").weight
    weight = deferred(wanted, site, target)
    again = wanted.quantized.calibration.quantize(site, wanted.model.get_parameter(site.parameter), target)
    assert torch.equal(weight.codes, again.codes)
    assert weight.target == target
    assert weight.channel_axis == 0


def test_the_size_of_the_float_file_is_told_without_writing_it(tmp_path):
    traced = trace(request(), 21)
    ir.save(traced.model, tmp_path / "float.onnx")
    assert traced.float_bytes == pytest.approx((tmp_path / "float.onnx").stat().st_size, abs=300)


def test_the_same_bytes_twice(tmp_path):
    wanted = request()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        OnnxExporter().export(wanted, tmp_path / folder)
    for name in ("m.onnx", "m.onnx.data"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
