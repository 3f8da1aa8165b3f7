"""Every format that the ONNX exporter takes: bit for bit through onnxruntime, in as many bytes as its price says."""

import re

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import onnx_ir as ir
import onnxruntime
from bitfront.errors import ExportMismatch, InvalidInput
from bitfront.evaluators import QuantizedModel, Recipe, calibrate
from bitfront.evaluators.equalization import prepared
from bitfront.evaluators.quantizers import Layout, Range, activation_quantizer, choose_scales, quantize_weight
from bitfront.exporters import export
from bitfront.exporters.onnx_check import initializers
from bitfront.exporters.onnx_exporter import OnnxExporter
from bitfront.exporters.onnx_rounding import Rounding, unsigned
from bitfront.exporters.onnx_storage import decoded, needed_opset, scale_arrays
from bitfront.exporters.onnx_weights import StoredWeight
from bitfront.formats import Format
from bitfront.hw_models import price
from bitfront.space import SearchSpace
from bitfront.task import Task

PLAIN = ["w2", "w3", "w4", "w6", "w8", "w2z", "w3z", "w4z", "w8z", "w8t", "w4tz", "we4m3", "we5m2", "we3m4", "we2m1"]
SHARED = ["w4g32", "w8g64z", "w3g128", "w2g32z", "w4b128", "we4m3b128", "we2m1g32", "nf4"]
BLOCKS = ["wmxfp8", "wmxfp4", "wnvfp4"]
IR_VERSIONS = {21: 10, 24: 12, 25: 13}


def run(graph, opset, feeds, folder):
    """The only output of a graph in onnxruntime, with all its optimizations."""
    path = folder / "graph.onnx"
    ir.save(ir.Model(graph, ir_version=IR_VERSIONS[opset]), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def quantized(name, shape, channel_axis, seed=0):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    target = Format.parse(name).weight
    return quantize_weight(weight, target, choose_scales(weight, target, channel_axis), channel_axis)


@pytest.mark.parametrize(
    ("name", "shape", "channel_axis"),
    [
        *((name, (24, 128), 0) for name in PLAIN + SHARED + BLOCKS),
        *((name, (128, 24), 1) for name in ("w4", "w4g64z", "w8b128", "we4m3b128", "nf4", "wnvfp4")),
        *((name, (130, 256), 0) for name in ("w4b128", "we2m1b128")),  # squares are cut off at the rim
        *((name, (6, 4, 3, 3), 0) for name in PLAIN),
        *((name, (4, 6, 3, 3), 1) for name in ("w4", "w4z", "w8t", "we4m3", "we1m2")),
    ],
)
def test_onnxruntime_reads_the_fake_quantized_weight_bit_for_bit_in_as_many_bytes(tmp_path, name, shape, channel_axis):
    weight, target = quantized(name, shape, channel_axis), Format.parse(name).weight
    opset = needed_opset(target)
    initializer = ir.Value(name="w", const_value=ir.Tensor(np.zeros(shape, np.float32), name="w"))
    node = ir.node("Identity", [initializer])
    graph = ir.Graph([], node.outputs, nodes=[node], initializers=[initializer], opset_imports={"": opset}, name="g")
    node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, ir.Shape(shape)
    node.outputs[0].name = "y"
    StoredWeight(graph, initializer, weight, opset).replace_float()
    wanted = weight.dequantize().numpy()
    assert np.array_equal(run(graph, opset, {}, tmp_path), wanted)
    stored = initializers(tmp_path / "graph.onnx")
    assert np.array_equal(decoded(stored, "w", Layout(shape, channel_axis, target)), wanted)
    own = [value.const_value.nbytes for key, value in graph.initializers.items() if key.split(".")[0] == "w"]
    assert sum(own) == -(-Format.parse(name).stored_bits(shape, channel_axis) // 8)
    assert stored.keys() >= {"w", *scale_arrays("w", weight)}


@pytest.mark.parametrize(
    "name",
    [
        "a8",
        "a8s",
        "a5",
        "a5s",
        "a2",
        "a8d",
        "a4d",
        "a8dz",
        "a3dz",
        "ae4m3",
        "ae5m2",
        "ae4m3d",
        "ae5m2d",
        "bf16",
        "fp16",
    ],
)
def test_onnxruntime_rounds_an_input_bit_for_bit(tmp_path, name):
    target = Format.parse(name if name.endswith("16") else f"w8{name}").activation
    quantizer = activation_quantizer(target, Range(torch.tensor(-2.5), torch.tensor(3.0)))
    x = 2 * torch.randn(64, 32, generator=torch.Generator().manual_seed(1))
    x[0] = 0.0
    x[1, 0] = 1e30
    scale = getattr(quantizer, "scale", 3.0 / target.largest)
    x[2:34] = (torch.arange(-512.0, 512.0).reshape(32, 32) / 2) * scale  # ties, and both ends
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", 32]))
    node = ir.node("Identity", [value])
    graph = ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": 21}, name="g")
    node.outputs[0].dtype, node.outputs[0].shape, node.outputs[0].name = ir.DataType.FLOAT, value.shape, "y"
    node.replace_input_with(0, Rounding(graph, node, value).by(unsigned(quantizer)))
    given = run(graph, 21, {"x": x.numpy()}, tmp_path)
    assert np.array_equal(given, quantizer(x).numpy())
    assert not np.array_equal(given, x.numpy())


class Dense(nn.Module):
    """An embedding and a chain of linear layers, with and without bias, ReLU and residual."""

    def __init__(self, layers) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 128)
        self.layers = nn.ModuleList(nn.Linear(128, 128, bias=index % 3 > 0) for index in range(layers))

    def forward(self, tokens):
        x = self.embed(tokens)
        for index, layer in enumerate(self.layers):
            x = x + layer(x).relu() if index % 2 else layer(x)
        return x


class Flat(nn.Module):
    """Linear layers on a matrix, and convolutions with a ReLU between, one of them without bias to one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
        self.one, self.up = nn.Conv2d(8, 1, 3, bias=False), nn.ConvTranspose2d(1, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.first, self.second = nn.Linear(256, 64), nn.Linear(64, 64, bias=False)

    def forward(self, image):
        x = self.norm(self.up(self.one(self.depthwise(self.stem(image).relu()).relu()))).relu()
        return self.second(self.first(x.flatten(1)).relu())


def tokens(seed):
    return torch.randint(40, (4, 7), generator=torch.Generator().manual_seed(seed))


def images(seed):
    return torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def exported(tmp_path, model, data, configuration, recipe=None, **options):
    recipe = recipe or Recipe()
    formats = sorted({*configuration, "fp32"})
    task = Task(model.eval(), calibration=[data(1), data(2)], validation=[data(3)] * 2, quality="relative_error")
    space = SearchSpace.from_model(model, data(0), formats=formats, ties="none")
    task = prepared(task, space, recipe)
    calibration = calibrate(task, space, recipe)
    chosen = {site.name: configuration[index % len(configuration)] for index, site in enumerate(space.sites)}
    chosen = {site.name: chosen[site.name] if site.offers(chosen[site.name]) else "fp32" for site in space.sites}
    report = export(
        task.model,
        chosen,
        tmp_path / "m.onnx",
        example_inputs=data(4),
        calibration=calibration,
        space=space,
        batch_norm=task.calibration if recipe.batch_norm else None,
        **options,
    )
    return report, chosen, space, QuantizedModel(task.model, space, calibration)


def test_weight_only_formats_of_all_kinds_in_one_file(tmp_path):
    torch.manual_seed(0)
    names = ["w4g32", "w4b128", "nf4", "wmxfp4", "wnvfp4", "w8t", "w4z", "we4m3"]
    report, chosen, space, _ = exported(tmp_path, Dense(len(names)), tokens, names)
    assert set(chosen.values()) == set(names)
    assert report.relative_error < 1e-6
    assert not report.integer_kernels
    assert set(report.node_counts) <= {"MatMul", "Add", "Gather", "Relu"}  # all weights are folded while loading
    size = 1e6 * price(space, metrics=["size_mb"]).of(chosen)["size_mb"].value
    assert 0 < report.bytes_on_disk - size < 1500 * len(chosen)  # names and nodes of the graph


def test_inputs_of_all_kinds_in_one_file(tmp_path):
    torch.manual_seed(0)
    names = ["w8a8", "w4a8s", "w8a8d", "fp8", "w4ta6s", "fp8d", "w8za8", "w4g32a8", "w4a4dz", "nf4", "fp16", "w8a8dz"]
    report, chosen, _, _ = exported(tmp_path, Dense(len(names)), tokens, names)
    assert set(chosen.values()) >= set(names) - {"w8a8"}
    assert report.relative_error <= max(2 * report.noise, 1e-5)
    assert {chosen[site] for site in report.integer_kernels} <= {"w8a8", "w4a8s", "w4ta6s"}
    assert {chosen[site] for site in report.float_kernels} >= {
        "w8a8d", "fp8", "fp8d", "w8za8", "w4g32a8", "w4a4dz", "w8a8dz"
    }  # fmt: skip
    assert report.integer_kernels


@pytest.mark.parametrize("name", ["w8a8s", "w4za8"])
def test_float_weights_between_roundings_are_not_rounded_again(tmp_path, name):
    """Behind a ReLU that the rounding does not imply, without a bias, with one output channel, in a transposed one."""
    torch.manual_seed(0)
    report, chosen, space, quantized = exported(tmp_path, Flat(), images, [name])
    assert set(chosen.values()) == {name}
    session = onnxruntime.InferenceSession(report.path, providers=["CPUExecutionProvider"])
    image = torch.cat([images(seed) for seed in range(8)])
    given = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: image.numpy()})[0])
    with quantized.applied(chosen) as model, torch.no_grad():
        wanted = model(image)
    errors = (given - wanted).norm(dim=1) / wanted.norm(dim=1)
    assert errors.median() < 1e-5  # of samples in which no value next to the middle of two codes fell to the other side
    if name == "w4za8":
        assert len(report.float_kernels) == len(space.sites)


@pytest.mark.parametrize("recipe", [Recipe(bias_correction=True), Recipe(batch_norm=True), Recipe("gptq")], ids=str)
def test_what_a_recipe_changes_is_in_the_file(tmp_path, recipe):
    torch.manual_seed(0)
    model = Flat()
    report, _, _, quantized = exported(tmp_path, model, images, ["w3"], recipe)
    assert report.relative_error < 1e-5
    stored = initializers(tmp_path / "m.onnx")
    if recipe.bias_correction:
        assert np.array_equal(
            stored["first.bias"],
            (quantized.model.first.bias + quantized.calibration.biases["first", "w3"]).detach().numpy(),
        )
        assert np.array_equal(stored["one.bias"], quantized.calibration.biases["one", "w3"].numpy())
    if recipe.batch_norm:
        assert not np.allclose(stored["norm.running_mean"], model.norm.running_mean.numpy())
        assert torch.equal(model.norm.running_mean, torch.zeros(4))
    if recipe.reconstructs:
        assert np.array_equal(stored["first.weight"], quantized.calibration.codes["first", "w3"].numpy())


@pytest.mark.parametrize("name", ["stem.bias", "bitfront.e2m1"])
def test_a_changed_bias_or_table_fails_the_check(tmp_path, monkeypatch, name):
    plain = OnnxExporter.export

    def corrupting(self, request, folder):
        artifact = plain(self, request, folder)
        path = folder / request.name
        model = ir.load(path)
        value = model.graph.initializers[name]
        array = value.const_value.numpy().copy()
        array.flat[1] = array.flat[1] + array.dtype.type(1)
        value.const_value = ir.Tensor(array, name=name)
        ir.save(model, path)
        return artifact

    monkeypatch.setattr(OnnxExporter, "export", corrupting)
    torch.manual_seed(0)
    with pytest.raises(ExportMismatch, match="bias stem" if "bias" in name else "site"):
        exported(tmp_path, Flat(), images, ["w4z", "we2m1"], Recipe(bias_correction=True))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wmxfp6", "no 6-bit elements; offer .*wmxfp4"),
        ("we3m2a8", "no 6-bit"),
        ("mxfp4", "wmxfp4 leaves them alone"),
        ("nvfp4", "wnvfp4 leaves them alone"),
        ("fp8b128", "one per token"),
        ("w8a8c", "one static scale"),
        ("w8a8g32", "w8 leaves"),
        ("we4m3ae3m4", "e4m3 or e5m2"),
    ],
)
def test_other_formats_are_refused_with_what_to_offer_instead(name, reason):
    capability = OnnxExporter().capability(Format.parse(name))
    assert not capability
    assert re.search(reason, capability.reason)


def test_an_operator_set_without_powers_of_two_is_refused(tmp_path):
    torch.manual_seed(0)
    with pytest.raises(InvalidInput, match="wmxfp4; give at least 24"):
        exported(tmp_path, Dense(1), tokens, ["wmxfp4"], opset=21)
