"""The ONNX exporter on small networks of every site kind: what is in the file, what runs, and that it is checked."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import onnx
import onnxruntime
from bitfront.errors import ExportMismatch, InvalidInput, UnsupportedModel
from bitfront.evaluators import QuantizedModel, calibrate
from bitfront.exporters import ExportReport, export
from bitfront.exporters.onnx_exporter import OnnxExporter
from bitfront.formats import Format
from bitfront.space import SearchSpace
from bitfront.task import Task
from transformers.pytorch_utils import Conv1D

CODES = {2: "INT2", 3: "INT4", 4: "INT4", 5: "INT8", 6: "INT8", 7: "INT8", 8: "INT8"}


class ConvNet(nn.Module):
    """Convolution, depthwise and pointwise convolutions, a residual, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.expand = nn.Conv2d(16, 32, 1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.project = nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, image):
        x = self.stem(image).relu()
        x = x + self.project(self.depthwise(self.expand(x).clamp(0, 6)).relu())
        return self.head(x.mean((2, 3)))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 30, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(self.layer(self.embed(tokens)))


class Upsampler(nn.Module):
    """Transposed and one-dimensional convolutions and Hugging Face's Conv1D."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2)
        self.grouped = nn.ConvTranspose2d(6, 6, 3, padding=1, groups=2)
        self.line = nn.Conv1d(6, 8, 3, padding=1, padding_mode="circular")
        self.fc = Conv1D(12, 8)

    def forward(self, x):
        x = self.grouped(self.up(x).relu())
        return self.fc(self.line(x.flatten(2)).transpose(1, 2).contiguous())


class Twice(nn.Module):
    """Several sites read one tensor; one layer runs twice; inputs and outputs are dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.again = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, states, scale):
        q, k = self.query(states), self.key(states)
        return {"mixed": self.again(self.again(q)) * scale, "scores": q @ k.transpose(1, 2)}


def images(count=4, seed=0):
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def tokens(count=4, seed=0):
    return torch.randint(30, (count, 7), generator=torch.Generator().manual_seed(seed))


def maps(count=4, seed=0):
    return torch.randn(count, 4, 4, 4, generator=torch.Generator().manual_seed(seed))


def states(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"states": torch.randn(count, 5, 8, generator=generator), "scale": torch.rand(count, 5, 1) + 0.5}


MODELS = {"conv": (ConvNet, images), "encoder": (Encoder, tokens), "up": (Upsampler, maps), "twice": (Twice, states)}


def prepared(kind, formats):
    torch.manual_seed(3)
    build, data = MODELS[kind]
    model = build().eval()
    task = Task(model, calibration=[data(seed=1)], validation=[data(seed=2), data(seed=3)], quality="relative_error")
    space = SearchSpace.from_model(model, data(), formats=formats, ties="none")
    return model, data(seed=4), space, calibrate(task, space)


def exported(tmp_path, kind, formats, configuration=None, **options) -> tuple[ExportReport, QuantizedModel, dict]:
    model, example, space, calibration = prepared(kind, formats)
    chosen = (configuration or (lambda space: space.uniform(formats[0])))(space)
    report = export(
        model, chosen, tmp_path / "m.onnx", example_inputs=example, calibration=calibration, space=space, **options
    )
    return report, QuantizedModel(model, space, calibration), dict(chosen)


def stored(path):
    """Initializer name -> (type name, decoded array)."""
    import onnx_ir

    return {
        name: (value.const_value.dtype.name, value.const_value.numpy())
        for name, value in onnx_ir.load(path).graph.initializers.items()
    }


def alternating(formats):
    return lambda space: {site.name: formats[index % len(formats)] for index, site in enumerate(space.sites)}


@pytest.mark.parametrize("formats", [["w2", "w3", "w4", "w5", "w6"], ["w8", "w7", "w4", "w3", "w5"]])
def test_the_file_holds_codes_that_dequantize_to_the_fake_quantized_weight_bit_for_bit(tmp_path, formats):
    report, quantized, chosen = exported(tmp_path, "conv", formats, alternating(formats))
    assert report.opset == (25 if "w2" in formats else 21)
    initializers = stored(report.path)
    for site in quantized.space.sites:
        name = chosen[site.name]
        kind, codes = initializers[site.parameter]
        assert kind == CODES[int(name[1])]
        scale = initializers[f"{site.parameter}.scale"][1]
        assert scale.dtype == np.float32
        assert scale.shape == (site.weight_shape[0],)
        value = codes.astype(np.float32) * scale.reshape(-1, *[1] * (codes.ndim - 1))
        assert np.array_equal(value, quantized.weight(site, Format.parse(name).weight).numpy())
    assert report.relative_error < 1e-5
    assert report.bytes_on_disk < report.float_bytes


def test_two_bit_codes_fall_back_to_four_bits_in_an_older_operator_set(tmp_path):
    report, quantized, _ = exported(tmp_path, "conv", ["w2"], opset=21)
    assert report.opset == 21
    assert {stored(report.path)[site.parameter][0] for site in quantized.space.sites} == {"INT4"}


@pytest.mark.parametrize(("kind", "name"), [*((kind, "w4") for kind in MODELS), ("up", "fp32")])
def test_weight_only_formats_agree_to_float_accuracy(tmp_path, kind, name):
    report, _, _ = exported(tmp_path, kind, [name])
    assert report.bound == 1e-4
    assert report.relative_error < 1e-5
    assert report.noise == 0.0
    assert report.dynamic_batch


@pytest.mark.parametrize(
    ("kind", "name"),
    [("conv", "w4a8"), ("conv", "w6a5"), ("conv", "bf16"), ("up", "w8a8"), ("up", "bf16"), ("twice", "w4a8")],
)
def test_rounded_inputs_agree_within_the_bound(tmp_path, kind, name):
    report, quantized, _ = exported(tmp_path, kind, [name, "w8"])
    assert report.relative_error <= report.bound <= 0.5
    assert set(report.integer_kernels) | set(report.float_kernels) == (
        set() if name == "bf16" else {site.name for site in quantized.space.sites}
    )


@pytest.mark.parametrize("name", ["w8a8", "w4a8"])
def test_a_transformer_runs_its_feed_forward_on_integer_kernels(tmp_path, name):
    report, _, chosen = exported(tmp_path, "encoder", [name, "w8"])
    assert chosen["embed"] == "w8"
    assert report.integer_kernels == {
        "layer.linear1": "MatMulIntegerToFloat",
        "layer.linear2": "MatMulIntegerToFloat",
    }
    assert report.node_counts["MatMulIntegerToFloat"] == 2
    assert stored(report.path)["layer.linear1.weight"][0] == CODES[int(name[1])]


def test_convolutions_run_on_integer_kernels(tmp_path):
    report, _, _ = exported(tmp_path, "conv", ["w8a8"])
    assert report.integer_kernels == {
        "expand": "QLinearConv",  # its output is rounded, and the clamp between implied by that
        "depthwise": "QLinearConv",
        "project": "MatMulIntegerToFloat",  # pointwise
        "head": "MatMulIntegerToFloat",
    }
    assert report.float_kernels == ("stem",)  # its output is also added in float
    operators = Counter(node.op_type for node in onnx.load(report.path).graph.node)
    assert not operators.keys() & {"Clip", "Min", "Max"}


class Guarded(nn.Module):
    """Convolutions that onnxruntime would give weights of its own, and paddings of all kinds."""

    def __init__(self, bias) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, bias=bias)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=bias)
        self.third = nn.Conv2d(8, 8, 3, bias=bias)

    def forward(self, x):
        x = nn.functional.pad(x, (0, 1, 1, 0))
        x = self.first(x)
        x = x + self.second(x)  # first: rounded for second, and used in float
        x = nn.functional.max_pool2d(self.second(x).relu(), 2)
        return self.third(nn.functional.pad(x, (1, 1, 1, 1), value=0.25))


@pytest.mark.parametrize("bias", [True, False])
def test_float_weights_are_not_rounded_a_second_time(tmp_path, bias):
    torch.manual_seed(0)
    model = Guarded(bias).eval()
    task = Task(model, calibration=[images(seed=1)], validation=[images(seed=2)] * 2, quality="relative_error")
    space = SearchSpace.from_model(model, images(), formats=["w8a8"], ties="none")
    report = export(
        model,
        space.uniform("w8a8"),
        tmp_path / "m.onnx",
        example_inputs=images(seed=3),
        calibration=calibrate(task, space),
        space=space,
    )
    assert report.relative_error < 3 * max(report.noise, 1e-6)
    paddings = [node for node in onnx.load(report.path).graph.node if node.op_type == "Pad"]
    assert len(paddings) == 1  # zeros went into the convolution, 0.25 cannot


def test_sites_that_read_one_tensor_share_one_rounding_where_it_is_the_same(tmp_path):
    report, _, _ = exported(tmp_path, "twice", ["w8a8"])
    operators = Counter(node.op_type for node in onnx.load(report.path).graph.node)
    assert operators["QuantizeLinear"] == 3  # query and key share one; again runs twice
    assert len(report.output_errors) == 2


def test_a_mixed_configuration(tmp_path):
    formats = ["w2", "w4", "w8", "w4a8", "w8a8", "bf16", "fp32"]

    report, quantized, chosen = exported(tmp_path, "conv", formats, alternating(formats))
    kinds = {"w2": "INT2", "w4": "INT4", "w8": "INT8", "w4a8": "INT4", "w8a8": "INT8", "bf16": "BFLOAT16"}
    for site in quantized.space.sites:
        assert stored(report.path)[site.parameter][0] == kinds.get(chosen[site.name], "FLOAT")


def test_a_shared_weight_is_stored_once(tmp_path):
    report, _, _ = exported(tmp_path, "encoder", ["w4"])
    names = [name for name in stored(report.path) if name in ("embed.weight", "head.weight")]
    assert len(names) == 1


def test_the_batch_size_is_free_even_when_the_example_has_one_sample(tmp_path):
    model, _, space, calibration = prepared("conv", ["w8"])
    chosen = space.uniform("w8")
    report = export(model, chosen, tmp_path / "m.onnx", example_inputs=images(1), calibration=calibration, space=space)
    assert report.dynamic_batch
    session = onnxruntime.InferenceSession(report.path, providers=["CPUExecutionProvider"])
    for count in (1, 3, 8):
        given = session.run(None, {session.get_inputs()[0].name: images(count).numpy()})[0]
        with QuantizedModel(model, space, calibration).applied(chosen) as quantized, torch.no_grad():
            assert np.allclose(given, quantized(images(count)).numpy(), atol=1e-5)


def test_space_and_weight_scales_are_found_when_they_are_not_given(tmp_path):
    model, example, space, calibration = prepared("conv", ["w4", "w8"])
    chosen = {site.name: ("w4", "w8")[index % 2] for index, site in enumerate(space.sites)}
    first = export(model, chosen, tmp_path / "a.onnx", example_inputs=example)
    export(model, chosen, tmp_path / "b.onnx", example_inputs=example, calibration=calibration, space=space)
    assert first.relative_error < 1e-5
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_sites_left_out_stay_in_float(tmp_path):
    model, example, _, _ = prepared("conv", ["w4"])
    report = export(model, {"head": "w4"}, tmp_path / "m.onnx", example_inputs=example)
    assert stored(report.path)["stem.weight"][0] == "FLOAT"
    assert stored(report.path)["head.weight"][0] == "INT4"


def test_the_certificate_lies_beside_the_model(tmp_path):
    report, _, chosen = exported(tmp_path, "conv", ["w8a8"])
    content = json.loads((tmp_path / "m.onnx.bitfront.json").read_text())
    assert content["configuration"] == chosen
    assert content["report"] == json.loads(json.dumps(report.to_dict()))
    assert report.bytes_on_disk == (tmp_path / "m.onnx").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.bitfront.json"]


def test_no_trace_of_this_machine_is_in_the_file(tmp_path):
    report, _, _ = exported(tmp_path, "encoder", ["w4"])
    model = onnx.load(report.path)
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert {entry.domain for entry in model.opset_import} == {""}


def test_the_model_is_left_as_it_was(tmp_path):
    model, example, space, calibration = prepared("conv", ["w8a8"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    model.head.eval()
    export(
        model, space.uniform("w8a8"), tmp_path / "m.onnx", example_inputs=example, calibration=calibration, space=space
    )
    assert model.training
    assert model.stem.training
    assert not model.head.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def corrupted(path, change):
    model = onnx.load(path)
    for initializer in model.graph.initializer:
        value = change(initializer.name)
        if value is not None:
            array = onnx.numpy_helper.to_array(initializer)
            initializer.CopyFrom(onnx.numpy_helper.from_array((array * value).astype(array.dtype), initializer.name))
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name: 1.001 if name == "head.weight.scale" else None, "head"),
        (lambda name: 1.001 if name.startswith("bitfront.float32") else None, "rounds inputs"),
        (lambda name: 3.0 if name == "head.bias" else None, "relative error"),
    ],
)
def test_a_corrupted_file_fails_the_check_and_is_not_left_behind(tmp_path, monkeypatch, change, message):
    plain = OnnxExporter.export

    def corrupting(self, request, folder):
        artifact = plain(self, request, folder)
        corrupted(folder / request.name, change)
        return artifact

    monkeypatch.setattr(OnnxExporter, "export", corrupting)
    (tmp_path / "m.onnx").write_text("the older file")
    with pytest.raises(ExportMismatch, match=message):
        exported(tmp_path, "conv", ["w8a8"])
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "the older file"


def test_a_bound_of_the_callers_own_is_kept(tmp_path):
    with pytest.raises(ExportMismatch, match="bound 0"):
        exported(tmp_path, "conv", ["w4"], bound=0.0)
    assert not list(tmp_path.iterdir())


class DataDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x) if float(x.sum()) > 0 else self.fc(-x)


def test_a_model_that_cannot_be_traced_is_refused_in_one_line(tmp_path):
    with pytest.raises(UnsupportedModel, match=r"^torch\.onnx\.export cannot express DataDependent: \S.*$") as caught:
        export(DataDependent(), {"fc": "w8"}, tmp_path / "m.onnx", example_inputs=torch.ones(2, 4))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_fixed_batch_size_is_kept_and_reported(tmp_path):
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x) + torch.arange(1.0, 4.0)[:, None]

    report = export(Fixed(), {"fc": "w8"}, tmp_path / "m.onnx", example_inputs=torch.randn(3, 4))
    assert not report.dynamic_batch


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"configuration": {"stem": "w8a8"}}, "calibration="),
        ({"configuration": {"stme": "w8"}}, "stme"),
        ({"configuration": {"stem": "w9"}}, "unknown format"),
        ({"target": "onxx"}, "nearest: onnx"),
        ({"opset": 17}, "at least 21"),
        ({"example_inputs": "image"}, "a batch is"),
    ],
)
def test_bad_input_is_named(tmp_path, arguments, message):
    given = {"configuration": {"stem": "w8"}, "example_inputs": images(), "target": "onnx", **arguments}
    configuration = given.pop("configuration")
    with pytest.raises(InvalidInput, match=message):
        export(ConvNet().eval(), configuration, tmp_path / "m.onnx", **given)
    assert not list(tmp_path.iterdir())


def test_a_site_that_does_not_offer_the_format_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"site embed: w8a8 rounds the input.*nearest that works: w8$"):
        export(Encoder().eval(), {"embed": "w8a8"}, tmp_path / "m.onnx", example_inputs=tokens())


def test_half_precision_models_are_refused(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4)).bfloat16()
    with pytest.raises(InvalidInput, match=r"model\.float\(\)"):
        export(model, {"0": "w8"}, tmp_path / "m.onnx", example_inputs=torch.ones(2, 4).bfloat16())


def test_missing_packages_are_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("bitfront.exporters.rules.find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"pip install 'bitfront\[onnx\]'"):
        export(ConvNet().eval(), {"stem": "w8"}, tmp_path / "m.onnx", example_inputs=images())


def test_a_folder_is_no_path(tmp_path):
    with pytest.raises(InvalidInput, match="is a folder"):
        export(ConvNet().eval(), {"stem": "w8"}, tmp_path, example_inputs=images())
