"""The torchao target: every format through its tensors, packed as its price says, in a folder without bitfront."""

import importlib.util
import json

import pytest
import torch
from torch import nn

pytest.importorskip("torchao")

from bitfront.errors import ExportMismatch, InvalidInput
from bitfront.evaluators import Calibration, QuantizedModel
from bitfront.evaluators.quantizers import Range, choose_scales
from bitfront.exporters import export, get
from bitfront.exporters.comparison import reference, relative_error
from bitfront.exporters.compressed_difference import as_runtime, rule_distance, with_rules
from bitfront.exporters.protocol import ExportRequest
from bitfront.exporters.torchao_tensors import Packed
from bitfront.formats import Format, activation_name, weight_name
from bitfront.space import Configuration, SearchSpace
from bitfront.task import Batch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

WEIGHTS = ["w2", "w3", "w4", "w8", "w8t", "w2z", "w4z", "w8z", "w4tz", "w4g32", "w4g32z", "w3g64z", "w4b128", "w8b128",
           "we4m3", "we4m3t", "wnvfp4", "bf16"]  # fmt: skip
INPUTS = ["w8a8", "w8a8s", "w8a8d", "w8a8dz", "w8ta8s", "w4a8", "w4a8dz", "w4g32a8dz", "w4za8dz", "fp8d", "mxfp8",
          "mxfp4", "fp16"]  # fmt: skip


class Parallel(nn.Module):
    """One linear layer a format, all on the same input: outputs [formats, batch, tokens, features]."""

    def __init__(self, count):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(128, 128, bias=number % 2 > 0) for number in range(count))

    def forward(self, x):
        return torch.stack([layer(x) for layer in self.layers])


class Words(nn.Module):
    """An embedding whose weight the last layer shares."""

    def __init__(self):
        super().__init__()
        self.embed, self.last = nn.Embedding(40, 64), nn.Linear(64, 40)
        self.last.weight = self.embed.weight

    def forward(self, ids):
        return self.last(self.embed(ids))


class Image(nn.Module):
    """Convolutions, one of them depthwise, one with padding by name, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 3, padding="same", groups=8)
        self.norm, self.last = nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x):
        return self.last(self.norm(self.deep(self.stem(x).relu())).mean((2, 3)))


def requested(model, batch, configuration, **options):
    """A request with scales and ranges for the formats that ``configuration`` names by site."""
    model.eval()
    space = SearchSpace.from_model(model, batch, formats=sorted({*configuration.values(), "fp32"}), ties="none")
    found = Calibration()
    for site in space.sites:
        target = Format.parse(configuration.get(site.name, "fp32"))
        if not target.weight.is_wide:
            weight = model.get_parameter(site.parameter)
            scales = choose_scales(weight, target.weight, site.channel_axis, "minmax")
            found.weights[site.name, weight_name(target.weight)] = scales
        if target.needs_ranges:
            ends = Range(torch.tensor(-3.0), torch.tensor(2.5))
            found.ranges[site.name, activation_name(target.activation)] = ends
    chosen = Configuration.from_dict(configuration)
    return ExportRequest(QuantizedModel(model, space, found), chosen, Batch.of(batch), options=options)


def loader(folder):
    """The ``load.py`` of a folder, imported from there."""
    specification = importlib.util.spec_from_file_location("load", folder / "load.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def parallel(names, **options):
    torch.manual_seed(0)
    sites = {f"layers.{number}": name for number, name in enumerate(names)}
    return requested(Parallel(len(names)), torch.randn(3, 5, 128), sites, **options)


@pytest.fixture(scope="module", params=[WEIGHTS, INPUTS], ids=["weights", "inputs"])
def all_formats(request, tmp_path_factory):
    """A folder with one layer a format, and its request."""
    wanted, folder = parallel(request.param), tmp_path_factory.mktemp("formats")
    get("torchao").export(wanted, folder)
    return wanted, folder


def test_every_format_computes_what_the_fake_quantized_model_does(all_formats):
    request, folder = all_formats
    target, names = get("torchao"), [str(request.format_of(site)) for site in request.space.sites]
    assert set(names) in ({*WEIGHTS}, {*INPUTS})
    assert all(target.capability(request.format_of(site), site) for site in request.space.sites)
    assert target.validate(request) == []
    target.check(request, folder)
    with torch.no_grad():
        (given,) = loader(folder).load(folder)(request.example.inputs[0])
    (wanted,), (by_rule,) = reference(request), reference(with_rules(request, _but_half))
    for number, name in enumerate(names):
        assert relative_error(given[number], by_rule[number]) < 1e-6, name
        assert (relative_error(given[number], wanted[number]) < 1e-6) is (name != "w8a8d"), name


def _but_half(target, quantizer):
    return quantizer if target.is_wide else as_runtime(target, quantizer)


def test_weights_take_the_bytes_that_their_price_counts(all_formats):
    request, folder = all_formats
    stored = load_file(folder / "model.safetensors")
    for site in request.space.sites:
        target = request.format_of(site)
        own = [tensor for name, tensor in stored.items() if name.startswith((f"{site.name}._", f"{site.name}.weight"))]
        size = sum(tensor.numel() * tensor.element_size() for tensor in own)
        static = 5 if target.needs_ranges else 0  # scale and zero-point of the input
        wanted = -(-target.stored_bits(site.weight_shape, site.channel_axis) // 8)
        assert wanted <= size <= wanted + static, (site.name, str(target))


def test_a_shared_weight_is_stored_once_and_read_under_both_names(tmp_path):
    torch.manual_seed(0)
    request = requested(Words(), torch.randint(0, 40, (2, 7)), {"embed": "w4g32"})
    get("torchao").export(request, tmp_path)
    get("torchao").check(request, tmp_path)
    assert sum("qdata" in name for name in load_file(tmp_path / "model.safetensors")) == 1
    for decode in (True, False):
        with torch.no_grad():
            (given,) = loader(tmp_path).load(tmp_path, decode)(request.example.inputs[0])
        assert relative_error(given, reference(request)[0]) < 1e-6
    own = Words()
    own.load_state_dict(loader(tmp_path).state_dict(tmp_path), assign=True)
    with torch.no_grad():
        assert relative_error(own(request.example.inputs[0]), reference(request)[0]) < 1e-6


@pytest.mark.parametrize("name", ["w4", "w8z", "w4t"])
def test_convolutions_with_a_free_batch_size(tmp_path, name):
    torch.manual_seed(0)
    request = requested(Image(), torch.randn(4, 3, 9, 9), {"stem": name, "deep": name, "last": name})
    get("torchao").export(request, tmp_path)
    for decode in (True, False):
        model = loader(tmp_path).load(tmp_path, decode)
        with torch.no_grad():
            assert relative_error(model(request.example.inputs[0])[0], reference(request)[0]) < 1e-6
            assert model(torch.randn(7, 3, 9, 9))[0].shape == (7, 5)


def test_static_inputs_run_compiled_on_integers(tmp_path):
    torch.manual_seed(0)
    batch = torch.randn(3, 5, 128)
    request = requested(Parallel(2), batch, {"layers.0": "w8a8s", "layers.1": "w4g32"})
    get("torchao").export(request, tmp_path)
    model = loader(tmp_path).load(tmp_path)
    with torch.no_grad():
        (given,) = torch.compile(model)(batch)
    assert relative_error(given, reference(request)[0]) < 1e-6
    kinds = [type(parameter).__name__ for name, parameter in model.named_parameters() if name.endswith("weight")]
    assert kinds == ["Int8Tensor", "IntxUnpackedToInt8Tensor"]


def test_the_frame_runs_it_in_another_process_and_certifies(tmp_path):
    torch.manual_seed(0)
    batch = torch.randn(3, 5, 128)
    request = requested(Parallel(2), batch, {"layers.0": "w8a8d", "layers.1": "bf16"})
    model, own = request.model, request.quantized
    report = export(
        model,
        request.configuration,
        tmp_path / "out",
        target="torchao",
        example_inputs=batch,
        calibration=own.calibration,
        space=own.space,
        rounds=0,
    )
    distance = rule_distance(request, _but_half)
    assert 0 < report.relative_error <= report.bound
    assert report.relative_error == pytest.approx(distance, rel=1e-3)
    assert report.dynamic_batch
    content = json.loads((tmp_path / "out" / "bitfront.json").read_text())
    assert set(content["files"]) == {"load.py", "model.py", "model.safetensors"}
    assert content["report"]["runtime"] == "torchao"


def test_the_same_bytes_twice_and_the_same_tensors_in_shards(tmp_path):
    request = parallel(["w4", "w8a8", "we4m3"])
    folders = [tmp_path / name for name in ("first", "second", "cut")]
    for folder in folders:
        folder.mkdir()
    get("torchao").export(request, folders[0])
    get("torchao").export(request, folders[1])
    files = sorted(path.name for path in folders[0].iterdir())
    assert files == ["load.py", "model.py", "model.safetensors"]
    assert all((folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in files)
    cut = parallel(["w4", "w8a8", "we4m3"], shard_bytes=20_000)
    artifact = get("torchao").export(cut, folders[2])
    assert len([name for name in artifact.files if name.endswith(".safetensors")]) == 3
    get("torchao").check(cut, folders[2])
    module = loader(folders[2])
    with torch.no_grad():
        assert relative_error(module.load(folders[2])(cut.example.inputs[0])[0], reference(cut)[0]) < 1e-6


def test_corrected_biases_are_in_the_file(tmp_path):
    request = parallel(["w2", "w2"])
    own = request.quantized
    shift = torch.arange(128.0)
    calibration = own.calibration.merged(Calibration(biases={("layers.1", "w2"): shift}))
    corrected = ExportRequest(QuantizedModel(own.model, own.space, calibration), request.configuration, request.example)
    get("torchao").export(corrected, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert torch.equal(stored["layers.1.bias"], own.model.layers[1].bias + shift)
    with torch.no_grad():
        (given,) = loader(tmp_path).load(tmp_path)(request.example.inputs[0])
    assert relative_error(given, reference(corrected)[0]) < 1e-6


def test_a_changed_file_fails_the_check(tmp_path):
    request = parallel(["w4", "w8"])
    get("torchao").export(request, tmp_path)
    path = tmp_path / "model.safetensors"
    with safe_open(path, framework="pt") as stream:
        metadata = stream.metadata()
    tensors = load_file(path)
    tensors["layers.1._weight_qdata"][0] += 1
    save_file(tensors, path, metadata)
    with pytest.raises(ExportMismatch, match=r"site layers\.1"):
        get("torchao").check(request, tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nf4", "rounds its scales"),
        ("wmxfp4", "round the input to the same format"),
        ("nvfp4", "need a GPU kernel"),
        ("fp8", "one scale per token"),
        ("w8a4", "8-bit integers"),
        ("w4za8", "asymmetric 8-bit inputs per token"),
        ("we5m2", "torchao has e4m3"),
        ("we4m3g32", "per channel or tensor"),
        ("w8a8g32", "per tensor or token"),
    ],
)
def test_what_torchao_has_no_tensor_for_is_refused(name, reason):
    capability = get("torchao").capability(Format.parse(name))
    assert not capability
    assert reason in capability.reason


def test_refusals_name_the_site_and_the_nearest_choice(tmp_path):
    torch.manual_seed(0)
    request = requested(Image(), torch.randn(4, 3, 9, 9), {"stem": "w8a8", "deep": "we4m3", "last": "w8a8"})
    with pytest.raises(InvalidInput, match=r"site stem: w8a8: .*alone.*nearest that works: w8.*site deep: we4m3"):
        export(
            request.model,
            request.configuration,
            tmp_path / "out",
            target="torchao",
            example_inputs=request.example,
            calibration=request.quantized.calibration,
            space=request.space,
        )
    assert not (tmp_path / "out").exists()


def test_options_and_types_are_checked():
    request = parallel(["w4"])
    bad = ExportRequest(
        request.quantized, request.configuration, request.example, options={"compile": 1, "shard_bytes": 0}
    )
    told = "; ".join(map(str, get("torchao").validate(bad)))
    assert "shard_bytes: expected a positive number" in told
    assert "compile: expected true or false" in told
    double = requested(Parallel(1), torch.randn(2, 3, 128), {"layers.0": "w4"})
    double.model.double()
    assert "export model.float()" in str(get("torchao").validate(double)[0])


@given(
    bits=st.sampled_from([2, 4, 8]),
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_packed_codes_come_back(bits, shape, seed):
    from bitfront.exporters.torchao_load import _unpacked

    half = 1 << (bits - 1)
    codes = torch.randint(-half, half, tuple(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.int8)
    how = Packed(bits, half, tuple(shape))
    packed = how.pack(codes)
    assert packed.shape == (how.bytes,)
    assert torch.equal(torch.cat(list(_unpacked(packed, bits, half)))[: codes.numel()].reshape(shape), codes)
