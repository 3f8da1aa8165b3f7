"""Recipes: what each says of a format, in the words of its tool, and what it refuses."""

import json

import pytest
import torch
import yaml
from bitfront import SearchSpace, Task
from bitfront.errors import ExportMismatch, InvalidInput
from bitfront.evaluators import Calibration, QuantizedModel, calibrate
from bitfront.exporters import ExportRequest, export, get
from bitfront.exporters.recipes import Recipe
from bitfront.formats import Format
from bitfront.space import Configuration
from bitfront.task import Batch
from torch import nn

NARROW = {
    "modelopt": ["w4", "w8a8s", "bf16"],
    "llm-compressor": ["w4g32", "w8a8d", "bf16"],
    "auto-round": ["w3g32", "w8a8d", "bf16"],
    "aimet": ["w4", "w4g32z", "fp32"],
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 4)).eval()


def written(tmp_path, target, formats):
    """The recipe of a small network, its text, and what was asked for."""
    model = network()
    example = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    space = SearchSpace.from_model(model, example, formats=formats)
    calibration = calibrate(Task(model, calibration=[example], validation=[example, example]), space)
    chosen = dict(zip(space.names, formats, strict=True))
    path = tmp_path / "recipe"
    report = export(model, chosen, path, target, example_inputs=example, calibration=calibration, space=space)
    return report, path.read_text(), calibration


@pytest.mark.parametrize("target", NARROW)
def test_a_recipe_is_written_read_back_and_the_same_twice(tmp_path, target):
    report, text, _ = written(tmp_path / "a", target, NARROW[target])
    _, again, _ = written(tmp_path / "b", target, NARROW[target])
    assert text == again
    assert report.relative_error is None
    assert report.runtime == ""
    assert isinstance(get(target), Recipe)
    assert get(target).usage in report.notes
    certificate = json.loads((tmp_path / "a" / "recipe.bitfront.json").read_text())
    assert certificate["configuration"] == dict(zip("024", NARROW[target], strict=True))


def test_modelopt_switches_all_off_and_then_some_on(tmp_path):
    _, text, _ = written(tmp_path, "modelopt", ["w4", "w8a8s", "bf16"])
    assert yaml.safe_load(text) == {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "0.weight_quantizer", "cfg": {"num_bits": 4, "axis": 0}},
            {"quantizer_name": "2.weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}},
            {"quantizer_name": "2.input_quantizer", "cfg": {"num_bits": 8, "axis": None}},
        ],
        "algorithm": "max",
    }


def test_modelopt_has_blocks_and_floats(tmp_path):
    _, text, _ = written(tmp_path, "modelopt", ["w4g32", "fp8", "nvfp4"])
    given = {each["quantizer_name"]: each["cfg"] for each in yaml.safe_load(text)["quant_cfg"][1:]}
    # coarse to fine: the sites take nvfp4, w4g32 and fp8 in the order that they were asked for
    assert given["0.weight_quantizer"] == {"num_bits": 4, "block_sizes": {-1: 32}}
    assert given["2.weight_quantizer"] == {"num_bits": [4, 3], "axis": 0}
    block = {"num_bits": [2, 1], "block_sizes": {-1: 16, "type": "dynamic", "scale_bits": [4, 3]}}
    assert given["4.weight_quantizer"] == given["4.input_quantizer"] == block


def test_llm_compressor_has_one_group_for_each_format(tmp_path):
    _, text, _ = written(tmp_path, "llm-compressor", ["w4g32", "w8a8d", "bf16"])
    modifier = yaml.safe_load(text)["default_stage"]["default_modifiers"]["QuantizationModifier"]
    assert modifier["ignore"] == ["4"]
    first, second = modifier["config_groups"].values()
    assert first["targets"] == ["0"]
    assert first["weights"] == {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "dynamic": False,
        "group_size": 32,
    }
    assert second["input_activations"]["strategy"] == "token"
    assert second["input_activations"]["dynamic"] is True


def test_auto_round_has_an_entry_for_every_layer(tmp_path):
    _, text, _ = written(tmp_path, "auto-round", ["w3g32", "w8a8d", "bf16"])
    given = json.loads(text)
    assert given["0"] == {"bits": 3, "group_size": 32, "sym": True, "data_type": "int", "act_bits": 16}
    assert (given["2"]["act_group_size"], given["2"]["act_dynamic"]) == (-1, True)
    assert given["4"]["bits"] == 16


def test_aimet_holds_the_scales_that_were_measured(tmp_path):
    """A value in AIMET is scale * (code + offset), codes from 0: decoded so, it is the fake-quantized one."""
    _, text, calibration = written(tmp_path, "aimet", ["w4", "w4g32z", "fp32"])
    encodings = {each["name"]: each for each in json.loads(text)["param_encodings"]}
    assert set(encodings) == {"0.weight", "2.weight"}
    model = network()
    space = SearchSpace.from_model(model, torch.randn(4, 64), formats=["w4", "w4g32z", "fp32"])
    quantized = QuantizedModel(model, space, calibration)
    for site, name in (("0", "w4"), ("2", "w4g32z")):
        encoding, weight = encodings[f"{site}.weight"], model.get_parameter(f"{site}.weight").detach().double()
        scale, offset = (torch.tensor(encoding[key], dtype=torch.float64) for key in ("scale", "offset"))
        groups = weight.reshape(len(scale), -1)
        codes = ((groups / scale[:, None]).round() - offset[:, None]).clamp(0, 15)
        decoded = (scale[:, None] * (codes + offset[:, None])).reshape(weight.shape)
        wanted = quantized.weight(next(each for each in space.sites if each.name == site), Format.parse(name).weight)
        assert torch.allclose(decoded, wanted.double(), atol=1e-6)


@pytest.mark.parametrize(
    ("target", "name", "reason"),
    [
        ("modelopt", "w4z", "no zero-points"),
        ("modelopt", "w8a8", "no zero-points"),
        ("modelopt", "nf4", "no tables"),
        ("modelopt", "we5m2", "no e5m2"),
        ("modelopt", "we3m2", "in blocks"),
        ("llm-compressor", "nf4", "no tables"),
        ("llm-compressor", "we5m2", "only e4m3"),
        ("llm-compressor", "w8a8c", "not per feature"),
        ("llm-compressor", "wmxfp6", "no e2m3"),
        ("auto-round", "nf4", "no tables"),
        ("auto-round", "w4b128", "no squares"),
        ("auto-round", "w8a8c", "not per feature"),
        ("auto-round", "we2m1", "e2m1"),
        ("aimet", "w8a8", "calibrates them itself"),
        ("aimet", "fp8", "calibrates them itself"),
        ("aimet", "we4m3", "are integers"),
        ("aimet", "w4b128", "no squares"),
        ("llama-cpp", "w4", "an equal"),
        ("llama-cpp", "w4g64", "an equal"),
    ],
)
def test_what_a_tool_cannot_say_is_refused_with_the_reason(target, name, reason):
    capability = get(target).capability(Format.parse(name))
    assert not capability
    assert reason in capability.reason


@pytest.mark.parametrize("target", ["modelopt", "llm-compressor", "auto-round", "aimet"])
def test_every_other_kind_of_layer_stays_in_float(tmp_path, target):
    model = nn.Sequential(nn.Embedding(8, 32), nn.Linear(32, 4)).eval()
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(InvalidInput, match=r"site 0: w4: .* not embedding; nearest that works: bf16"):
        export(model, {"0": "w4", "1": "w4"}, tmp_path / "r", target, example_inputs=tokens)
    report = export(model, {"0": "bf16", "1": "w4"}, tmp_path / "r", target, example_inputs=tokens)
    assert "1" in (tmp_path / "r").read_text()
    assert report.bytes_on_disk == (tmp_path / "r").stat().st_size


def test_a_changed_recipe_fails_the_check(tmp_path):
    model, example = network(), torch.randn(2, 64)
    space = SearchSpace.from_model(model, example, formats=["w4"])
    chosen = Configuration.from_dict(dict.fromkeys(space.names, "w4"))
    request = ExportRequest(QuantizedModel(model, space, Calibration()), chosen, Batch.of(example), name="r")
    target = get("modelopt")
    target.export(request, tmp_path)
    target.check(request, tmp_path)
    path = tmp_path / "r"
    path.write_text(path.read_text().replace("num_bits: 4", "num_bits: 5", 1))
    with pytest.raises(ExportMismatch, match=r"^0\.weight_quantizer: the recipe says .*5.* the configuration .*4"):
        target.check(request, tmp_path)
