"""The OpenVINO target: packed constants bit for bit, integer kernels, the same bytes twice, and what it refuses."""

import json

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("openvino")
pytest.importorskip("onnxscript")

import openvino as ov
from bitfront.errors import ExportMismatch, InvalidInput
from bitfront.evaluators import calibrate
from bitfront.evaluators.quantizers import Layout, choose_scales, quantize_weight
from bitfront.exporters import export, get
from bitfront.exporters.bit_packing import packed, unpacked
from bitfront.exporters.openvino_check import decoded
from bitfront.exporters.openvino_ir import BIN, XML, Constant, compact, constants
from bitfront.exporters.openvino_target import OpenVinoTarget
from bitfront.exporters.openvino_weights import decompression
from bitfront.formats import Format
from bitfront.space import SearchSpace
from bitfront.task import Task
from hypothesis import given
from hypothesis import strategies as st

MATRIX = ["w2", "w3", "w4", "w8", "w2z", "w4z", "w8z", "w8t", "w4g32", "w8g64z", "w2g32z", "nf4", "we4m3", "we5m2",
          "we2m1", "wmxfp4", "wmxfp8", "wnvfp4", "w4b128"]  # fmt: skip
F32 = {"EXECUTION_MODE_HINT": "ACCURACY"}


class Small(nn.Module):
    """A convolution with a residual around a depthwise one, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.first, self.last = nn.Linear(8, 32), nn.Linear(32, 4, bias=False)

    def forward(self, image):
        x = self.stem(image).relu()
        x = x + self.depthwise(x)
        return self.last(self.first(x.mean((2, 3))).relu())


class Words(nn.Module):
    """An embedding and linear layers on three-dimensional inputs that come by name."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 64)
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 32)

    def forward(self, ids, mask):
        return self.last(self.first(self.embed(ids) * mask[..., None]).relu())


def images(seed, count=4):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def words(seed, count=4):
    generator = torch.Generator().manual_seed(seed)
    return {
        "ids": torch.randint(30, (count, 5), generator=generator),
        "mask": torch.rand(count, 5, generator=generator),
    }


def exported(folder, model, data, name, **options):
    torch.manual_seed(0)
    model = model.eval()
    task = Task(model, calibration=[data(1)], validation=[data(2), data(3)], quality="relative_error")
    space = SearchSpace.from_model(model, data(0), formats=[name, "w8", "fp32"], ties="none")
    chosen = {site.name: name if site.offers(name) else "w8" for site in space.sites}
    return chosen, export(
        model,
        chosen,
        folder,
        target="openvino",
        example_inputs=data(4),
        calibration=calibrate(task, space),
        space=space,
        rounds=0,
        **options,
    )


def quantized(name, shape=(128, 256), channel_axis=0):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    target = Format.parse(name).weight
    return quantize_weight(weight, target, choose_scales(weight, target, channel_axis), channel_axis)


@given(st.sampled_from([2, 4, 8]), st.lists(st.integers(0, 255), min_size=1, max_size=40), st.booleans())
def test_unpacking_inverts_packing(bits, numbers, signed):
    wide = np.array(numbers, np.uint8).astype(np.int16) % (1 << bits)
    codes = np.where(wide >= 1 << (bits - 1), wide - (1 << bits), wide) if signed else wide
    data = packed(codes.astype(np.int8 if signed else np.uint8), bits)
    assert data.nbytes == -(-len(codes) * bits // 8)
    assert np.array_equal(unpacked(data, bits, len(codes), signed), codes)


@pytest.mark.parametrize(
    ("name", "shape", "axis"),
    [
        *((name, (128, 256), 0) for name in MATRIX),
        *((name, (256, 128), 1) for name in ("w4", "w4g32z", "w4b128")),
        *((name, (6, 4, 3, 3), 0) for name in ("w2", "w4", "w8z", "w8t")),
        *((name, (4, 6, 3, 3), 1) for name in ("w4", "w3z", "w2")),
    ],
)
@pytest.mark.parametrize("integer", [False, True])
def test_openvino_reads_the_fake_quantized_weight_bit_for_bit_in_as_many_bytes(tmp_path, name, shape, axis, integer):
    weight = quantized(name, shape, axis)
    wanted = weight.dequantize().numpy()
    other = ov.opset15.parameter(list(shape), ov.Type.f32)
    model = ov.Model([ov.opset15.add(other, decompression("w", weight, integer))], [other])
    ov.save_model(model, tmp_path / XML, compress_to_fp16=False)
    compact(tmp_path / XML, ["w", "w.scale", "w.zero_point", "w.tensor_scale"])
    found = ov.Core().compile_model(tmp_path / XML, "CPU", F32)(np.zeros(shape, np.float32))
    assert np.array_equal(next(iter(found.values())), wanted)
    stored = constants(tmp_path)
    assert np.array_equal(decoded(stored, "w", Layout(shape, axis, weight.target)), wanted)
    own = sum(each.data.nbytes for key, each in stored.items() if key.partition(".")[0] == "w")
    assert own == -(-Format.parse(name).stored_bits(shape, axis) // 8)


@pytest.mark.parametrize("name", ["w8a8", "w2a8", "w3a4"])
def test_every_product_runs_on_an_integer_kernel(tmp_path, name):
    chosen, report = exported(tmp_path / "m", Small(), images, name)
    assert set(report.integer_kernels) == set(chosen)
    assert not report.float_kernels
    assert report.relative_error <= report.bound
    assert report.dynamic_batch
    assert report.runtime == "openvino"


@pytest.mark.parametrize("name", ["w2", "fp16"])
def test_narrow_weights_agree_and_are_small(tmp_path, name):
    chosen, report = exported(tmp_path / "m", Small(), images, name)
    assert report.relative_error < (1e-3 if name == "fp16" else 1e-5)
    assert not report.integer_kernels
    data = (tmp_path / "m" / BIN).stat().st_size
    assert abs(data - report.predicted_bytes) < 300  # constants of the graph, padding
    assert report.bytes_on_disk == data + (tmp_path / "m" / XML).stat().st_size
    assert set(chosen.values()) == {name}


@pytest.mark.parametrize("name", ["w4g32z", "nf4", "w8a8d", "w4za8"])
def test_groups_tokens_and_named_inputs(tmp_path, name):
    chosen, report = exported(tmp_path / "m", Words(), words, name)
    assert chosen["first"] == name
    assert report.relative_error <= report.bound
    kinds = {each.element_type for each in constants(tmp_path / "m").values()}
    assert kinds & {"i4", "u4", "nf4", "i8", "f4e2m1"}


def test_packed_products_do_not_round_their_input_by_themselves(tmp_path):
    """OpenVINO rounds the input of a packed product to 8 bits unless the file says otherwise."""
    exported(tmp_path / "m", Words(), words, "w4")
    compiled = ov.Core().compile_model(tmp_path / "m" / XML, "CPU", F32)
    assert compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE") == 0
    kinds = {
        node.get_rt_info()["runtimePrecision"].astype(str)
        for node in compiled.get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].astype(str) == "FullyConnected"
    }
    assert kinds <= {"i4", "u4", "i8", "u8"}  # the weight is packed in memory


def test_the_same_bytes_twice(tmp_path):
    for folder in ("a", "b"):
        exported(tmp_path / folder, Small(), images, "w4a8")
    for file in (XML, BIN):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_certificate_lies_in_the_folder(tmp_path):
    chosen, report = exported(tmp_path / "m", Small(), images, "w8a8")
    assert json.loads((tmp_path / "m" / "bitfront.json").read_text())["configuration"] == chosen
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["bitfront.json", BIN, XML]
    assert any("ACCURACY" in note for note in report.notes)


@pytest.mark.parametrize("shift", [3, -1])
def test_a_changed_code_fails_the_check(tmp_path, monkeypatch, shift):
    plain = OpenVinoTarget.export

    def corrupting(self, request, folder):
        artifact = plain(self, request, folder)
        place = constants(folder)["stem.weight" if shift > 0 else "first.weight.scale"].data
        data = bytearray((folder / BIN).read_bytes())
        start = data.index(place.tobytes())
        data[start + shift % 4] ^= 0x11
        (folder / BIN).write_bytes(bytes(data))
        return artifact

    monkeypatch.setattr(OpenVinoTarget, "export", corrupting)
    with pytest.raises(ExportMismatch, match="stem" if shift > 0 else "first"):
        exported(tmp_path / "m", Small(), images, "w4")
    assert not (tmp_path / "m").exists()


def test_a_constant_of_another_type_is_named():
    layout = Layout((2, 4), 0, Format.parse("w4").weight)
    stored = {"w": Constant("i8", (2, 4), np.zeros(8, np.uint8))}
    with pytest.raises(ExportMismatch, match="stored as i8, not i4"):
        decoded(stored, "w", layout)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bf16", "take fp16 or fp32"),
        ("fp8", "we4m3 leaves them alone"),
        ("w8a8g32", "w8 leaves them alone"),
        ("wmxfp6", "e4m3, e5m2 and e2m1"),
        ("we3m4", "e4m3, e5m2 and e2m1"),
    ],
)
def test_what_openvino_cannot_represent_is_refused(name, reason):
    capability = get("openvino").capability(Format.parse(name))
    assert not capability
    assert reason in capability.reason


def test_squares_that_do_not_divide_the_weight_are_refused_with_the_nearest_choice(tmp_path):
    with pytest.raises(InvalidInput, match=r"do not divide a weight of 64 x 64; nearest that works: \S+"):
        exported(tmp_path / "m", Words(), words, "w4b128")


def test_an_operator_set_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="leave opset out"):
        exported(tmp_path / "m", Small(), images, "w4", opset=21)
