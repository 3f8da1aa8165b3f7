"""Recipes, read by the packages of the tools themselves; each is skipped where its package is missing."""

import importlib.util
import json

import onnx
import pytest
import torch
import yaml
from bitfront import SearchSpace, Task
from bitfront.evaluators import calibrate
from bitfront.exporters import export
from torch import nn

pytestmark = pytest.mark.optional


def needs(package):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: pip install --no-deps it and what it needs")


def written(tmp_path, target, formats):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32)).eval()
    example = torch.randn(4, 64)
    space = SearchSpace.from_model(model, example, formats=formats)
    calibration = calibrate(Task(model, calibration=[example], validation=[example, example]), space)
    chosen = dict(zip(space.names, formats, strict=True))
    path = tmp_path / f"recipe.{target}"
    export(model, chosen, path, target, example_inputs=example, calibration=calibration, space=space)
    return model, example, path


@needs("modelopt")
@pytest.mark.parametrize(
    ("formats", "bits"), [(["w4", "w8a8s", "bf16"], [4, 8, None]), (["w4g32", "fp8", "nvfp4"], [4, (4, 3), (2, 1)])]
)
def test_modelopt_quantizes_with_it(tmp_path, formats, bits):
    import modelopt.torch.quantization as mtq

    model, example, path = written(tmp_path, "modelopt", formats)
    quantized = mtq.quantize(model, yaml.safe_load(path.read_text()), lambda each: each(example))
    for layer, wanted in zip((quantized[0], quantized[2], quantized[4]), bits, strict=True):
        assert layer.weight_quantizer.is_enabled is (wanted is not None)
        if wanted is not None:
            assert layer.weight_quantizer.num_bits == wanted
    assert quantized[2].input_quantizer.is_enabled
    assert not quantized[0].input_quantizer.is_enabled


@needs("llmcompressor")
@pytest.mark.parametrize("formats", [["w4g32", "w8a8d", "bf16"], ["w3g32z", "fp8", "nvfp4"], ["wmxfp4", "w8", "fp8d"]])
def test_llm_compressor_reads_it(tmp_path, formats):
    from llmcompressor.recipe import Recipe

    _, _, path = written(tmp_path, "llm-compressor", formats)
    (modifier,) = Recipe.create_instance(str(path)).modifiers
    config = modifier.resolve_quantization_config()
    targets = {target: scheme for scheme in config.config_groups.values() for target in scheme.targets}
    narrow = [site for site, name in zip("024", formats, strict=True) if name != "bf16"]
    assert sorted(targets) == narrow
    assert targets["0"].weights.num_bits == int(formats[0][1]) if formats[0][1].isdigit() else 4
    assert config.ignore == (["4"] if "bf16" in formats else [])


@needs("auto_round")
def test_auto_round_resolves_it(tmp_path):
    from auto_round.compressors.config_resolution import resolve_scheme_value
    from auto_round.compressors.layer_config_resolver import resolve_layer_config

    model, _, path = written(tmp_path, "auto-round", ["w3g32", "w8a8d", "bf16"])
    for name, module in model.named_modules():
        module.global_name = name
    given = json.loads(path.read_text())
    found = resolve_layer_config(model=model, scheme=resolve_scheme_value("W4A16", {}), layer_config=given)
    for name, wanted in given.items():
        for key in ("bits", "group_size", "sym", "act_bits"):
            if key in wanted:
                assert found[name][key] == wanted[key]


@needs("aimet_onnx")
def test_aimet_loads_the_encodings(tmp_path):
    import aimet_onnx
    from aimet_onnx.quantsim import load_encodings_to_sim

    model, example, path = written(tmp_path, "aimet", ["w4", "w8z", "fp32"])
    torch.onnx.export(model, (example,), str(tmp_path / "m.onnx"), dynamo=True, optimize=False, opset_version=21)
    sim = aimet_onnx.QuantizationSimModel(onnx.load(tmp_path / "m.onnx"), param_type="int8", activation_type="int16")
    for quantizer in sim.qc_quantize_op_dict.values():
        quantizer.enabled = False
    load_encodings_to_sim(sim, str(path), strict=False)
    loaded = sim.qc_quantize_op_dict
    assert loaded["0.weight"].bitwidth == 4
    assert loaded["2.weight"].bitwidth == 8
    wanted = {each["name"]: each for each in json.loads(path.read_text())["param_encodings"]}
    for name in ("0.weight", "2.weight"):
        scales = [encoding.delta for encoding in loaded[name].get_encodings()]
        assert scales == pytest.approx(wanted[name]["scale"], rel=1e-6)
