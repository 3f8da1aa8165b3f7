"""The compressed-tensors target: schemes and packing as the library has them, loaded back by transformers."""

import json

import pytest
import torch
from torch import nn

pytest.importorskip("compressed_tensors")
pytest.importorskip("transformers")

from bitfront.errors import ExportMismatch, InvalidInput, UnsupportedModel
from bitfront.evaluators import Calibration, QuantizedModel
from bitfront.evaluators.quantizers import Range, choose_scales
from bitfront.exporters import compressed_loader, export, get
from bitfront.exporters.comparison import reference, relative_error
from bitfront.exporters.compressed_difference import rule_distance, with_rules
from bitfront.exporters.compressed_packing import pack_bytes, pack_words
from bitfront.exporters.compressed_schemes import library_weight
from bitfront.exporters.compressed_shards import Layer, write_file, write_shards
from bitfront.exporters.protocol import ExportRequest
from bitfront.formats import Format, activation_name, weight_name
from bitfront.space import Configuration, SearchSpace
from bitfront.task import Batch
from compressed_tensors.compressors.nvfp4.helpers import pack_fp4_to_uint8, unpack_fp4_from_uint8
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationConfig
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj")
OTHERS = ("self_attn.o_proj", "mlp.down_proj")
WEIGHTS = ["w2", "w3", "w4", "w6", "w8", "w4g32", "w3g64", "we4m3", "we4m3t", "wmxfp4", "wmxfp8", "w4g128"]
INPUTS = ["w8a8", "w8a8s", "w8a8dz", "fp8", "fp8d", "fp8b128", "w8a8dz", "fp8"]


def llama(layers=4, tied=False):
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=96,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
            use_cache=False,
        )
    ).eval()


def by_group(formats):
    """One format after the other for the fused groups and single layers of a Llama."""
    found = {}
    for number, name in enumerate(formats):
        layer, part = divmod(number, 4)
        for leaf in (ATTENTION, MLP, *((each,) for each in OTHERS))[part]:
            found[f"model.layers.{layer}.{leaf}"] = name
    return found


def requested(model, configuration, batch=None, **options):
    """A request with scales and ranges for the formats that ``configuration`` names by site."""
    if batch is None:
        batch = {"input_ids": torch.randint(0, 96, (2, 12), generator=torch.Generator().manual_seed(1))}
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


def loaded_back(request, folder, scratch):
    """Outputs of the folder as the loader of the other process computes them, here in this one."""
    runtime = get("compressed-tensors").runtime(request, folder, scratch)
    inputs = [(name, tensor.numpy()) for name, tensor in request.example.tensors.items()]
    return [torch.from_numpy(value) for _, value in compressed_loader.load(str(folder), runtime.settings).run(inputs)]


def exported(tmp_path, request):
    """Export and check into a new folder; the folder and an empty one beside it."""
    folder, scratch = tmp_path / "artifact", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    target = get("compressed-tensors")
    assert target.validate(request) == []
    target.export(request, folder)
    target.check(request, folder)
    return folder, scratch


@pytest.mark.parametrize("formats", [WEIGHTS, INPUTS], ids=["weights", "inputs"])
def test_transformers_computes_what_the_fake_quantized_model_does(tmp_path, formats):
    request = requested(llama(-(-len(formats) // 4)), by_group(formats))
    target = get("compressed-tensors")
    for site in request.space.sites:
        assert target.capability(request.format_of(site), site), site.name
    folder, scratch = exported(tmp_path, request)
    (given,), wanted = loaded_back(request, folder, scratch), reference(request)
    assert relative_error(given, wanted[0]) < 1e-6
    assert target.default_bound(request, 0.0) == (1e-4 if formats is WEIGHTS else 5e-3)


@pytest.mark.parametrize("name", ["w8a8d", "w4a8d", "wnvfp4", "nvfp4", "bf16"])
def test_where_the_library_has_another_rule_the_difference_is_that_rule(tmp_path, name):
    request = requested(llama(1), by_group([name, name]))
    folder, scratch = exported(tmp_path, request)
    (given,) = loaded_back(request, folder, scratch)
    rules = with_rules(request, weights=library_weight)
    distance = relative_error(given, reference(request)[0])
    assert relative_error(given, reference(rules)[0]) < 0.1 * distance
    assert 1e-5 < distance <= get("compressed-tensors").default_bound(request, 0.0)
    assert distance == pytest.approx(rule_distance(request, weights=library_weight), rel=0.1)


def test_weights_take_the_bytes_that_their_price_counts(tmp_path):
    request = requested(llama(3), by_group(WEIGHTS))
    folder, _ = exported(tmp_path, request)
    stored = load_file(folder / "model.safetensors")
    for site in request.space.sites:
        own = [tensor for name, tensor in stored.items() if name.startswith(f"{site.name}.")]
        size = sum(tensor.numel() * tensor.element_size() for tensor in own)
        size -= 16 * any(name == f"{site.name}.weight_shape" for name in stored)
        assert size == request.format_of(site).stored_bits(site.weight_shape, site.channel_axis) // 8, site.name


def test_the_configuration_names_every_linear_layer_once(tmp_path):
    chosen = by_group(["w4", "w8a8", "w4"])
    folder, _ = exported(tmp_path, requested(llama(1), chosen))
    content = json.loads((folder / "config.json").read_text())
    assert content["architectures"] == ["LlamaForCausalLM"]
    assert content["dtype"] == "float32"
    assert content["hidden_size"] == 128
    own = QuantizationConfig.model_validate(content["quantization_config"])
    groups = {tuple(each.targets): each for each in own.config_groups.values()}
    packed, rounded = (f"model.layers.0.{leaf}" for leaf in ("self_attn.o_proj", "mlp.gate_proj"))
    by_target = {name: each for targets, each in groups.items() for name in targets}
    assert by_target[packed].format == "pack-quantized"
    assert by_target[packed].weights.num_bits == 4
    assert by_target[rounded].format == "int-quantized"
    assert not by_target[rounded].input_activations.symmetric
    assert own.format == "mixed-precision"
    assert own.quantization_status == "compressed"
    assert sorted(by_target) == sorted(chosen)
    # servers refuse, or quantize, a linear layer that neither a group nor ``ignore`` names
    assert sorted(own.ignore) == ["lm_head", "model.layers.0.mlp.down_proj"]
    assert set(load_file(folder / "model.safetensors")) >= {f"{packed}.weight_packed", f"{rounded}.input_zero_point"}


def frame(request, path, **arguments):
    return export(
        request.model,
        request.configuration,
        path,
        target="compressed-tensors",
        example_inputs=request.example,
        calibration=request.quantized.calibration,
        space=request.space,
        rounds=0,
        **arguments,
    )


def test_the_frame_loads_it_in_another_process_and_certifies(tmp_path):
    request = requested(llama(1), by_group(["w4g32", "w8a8s", "w8"]))
    report = frame(request, tmp_path / "out")
    assert report.relative_error < 1e-6
    assert (report.runtime, report.dynamic_batch) == ("transformers", True)
    content = json.loads((tmp_path / "out" / "bitfront.json").read_text())
    assert set(content["files"]) == {"config.json", "generation_config.json", "model.safetensors"}


def test_fused_layers_must_share_a_format(tmp_path):
    request = requested(llama(1), {**by_group(["w4", "w8"]), "model.layers.0.self_attn.k_proj": "w8"})
    with pytest.raises(InvalidInput, match=r"q_proj.*k_proj.*v_proj.*one matrix.*nearest that works: w8"):
        frame(request, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_gate_and_up_must_share_a_format_and_a_group_size(tmp_path):
    for gate, up in (("w4", "bf16"), ("w4g32", "w4g128"), ("w8", "w8a8")):
        request = requested(llama(1), {"model.layers.0.mlp.gate_proj": gate, "model.layers.0.mlp.up_proj": up})
        with pytest.raises(
            InvalidInput, match=rf"gate_proj {gate}, .*up_proj {up}: must share a format .*nearest that works: "
        ):
            frame(request, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_layer_left_out_beside_a_narrow_sibling_is_refused(tmp_path):
    request = requested(llama(1), {"model.layers.0.mlp.gate_proj": "w4"})
    with pytest.raises(InvalidInput, match=r"gate_proj.*up_proj"):
        frame(request, tmp_path / "out")


def test_the_output_layer_stays_wide(tmp_path):
    request = requested(llama(1), {"lm_head": "w8"})
    with pytest.raises(InvalidInput, match=r"site lm_head: w8: the servers keep the output layer wide"):
        frame(request, tmp_path / "out")


def test_a_tied_output_layer_is_stored_once_and_ignored(tmp_path):
    request = requested(llama(1, tied=True), {**by_group(["w4"]), "model.embed_tokens": "bf16"})
    folder, scratch = exported(tmp_path, request)
    stored = load_file(folder / "model.safetensors")
    assert "lm_head.weight" not in stored
    assert stored["model.embed_tokens.weight"].dtype == torch.bfloat16
    content = json.loads((folder / "config.json").read_text())
    assert content["tie_word_embeddings"]
    assert "lm_head" in content["quantization_config"]["ignore"]
    # the output layer shares the weight, and its input is not rounded to 16 bits
    wanted = reference(with_rules(request))[0]
    assert relative_error(loaded_back(request, folder, scratch)[0], wanted) < 1e-6
    narrow = requested(llama(1, tied=True), {"model.embed_tokens": "w8"})
    with pytest.raises(InvalidInput, match=r"model\.embed_tokens: w8: .*shared with another layer"):
        frame(narrow, tmp_path / "out")


class Sentences(nn.Module):
    """A BERT and what a sentence encoder computes from its states."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=50,
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=128,
            max_position_embeddings=32,
        )
        self.bert = BertModel(config, add_pooling_layer=False)

    def forward(self, input_ids, attention_mask):
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.to(states.dtype)[..., None]
        return nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)


def sentences(configuration):
    mask = torch.ones(3, 10, dtype=torch.int64)
    mask[1, 6:] = 0
    ids = torch.randint(0, 50, (3, 10), generator=torch.Generator().manual_seed(1))
    return requested(Sentences().eval(), configuration, {"input_ids": ids, "attention_mask": mask})


def test_what_lies_around_the_transformers_model_is_kept_in_the_check(tmp_path):
    path = "bert.encoder.layer.0"
    request = sentences(
        {f"{path}.attention.self.{leaf}": "w4g32" for leaf in ("query", "key", "value")}
        | {f"{path}.intermediate.dense": "w8a8"}
    )
    folder, scratch = exported(tmp_path, request)
    stored = load_file(folder / "model.safetensors")
    assert "encoder.layer.0.attention.self.query.weight_packed" in stored
    assert [set(tie.sites) for tie in get("compressed-tensors").fused(request.space)] == [
        {f"{path}.attention.self.{leaf}" for leaf in ("query", "key", "value")}
    ]
    (given,) = loaded_back(request, folder, scratch)
    assert given.shape == (3, 64)
    assert relative_error(given, reference(request)[0]) < 1e-6


def test_models_without_a_place_on_the_hub_are_refused():
    plain = requested(nn.Sequential(nn.Linear(8, 8)), {"0": "w4"}, torch.randn(2, 3, 8))
    (found,) = get("compressed-tensors").validate(plain)
    assert "holds 0 transformers models" in str(found)
    with pytest.raises(UnsupportedModel, match="choose torchao or onnx"):
        get("compressed-tensors").export(plain, None)
    outside = Sentences().eval()
    outside.head = nn.Linear(64, 2)
    (found,) = get("compressed-tensors").validate(ExportRequest(
        QuantizedModel(outside, sentences({}).space, Calibration()), Configuration.from_dict({}), sentences({}).example
    ))  # fmt: skip
    assert "parameters outside" in str(found)
    assert "head.weight" in str(found)


def test_shards_hold_whole_layers_and_load_the_same(tmp_path):
    request = requested(llama(2), by_group(["w4", "w8a8", "w8"]), shard_bytes=60_000)
    folder, scratch = exported(tmp_path, request)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 3
    sizes = [sum(each.numel() * each.element_size() for each in load_file(folder / name).values()) for name in files]
    assert sum(sizes) == index["metadata"]["total_size"]
    packed = "model.layers.0.self_attn.q_proj."
    assert len({file for name, file in index["weight_map"].items() if name.startswith(packed)}) == 1
    assert relative_error(loaded_back(request, folder, scratch)[0], reference(request)[0]) < 1e-6
    bad = requested(llama(1), {}, shard_bytes=-1)
    assert "positive number of bytes" in str(get("compressed-tensors").validate(bad)[0])


def test_the_same_bytes_twice(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        get("compressed-tensors").export(requested(llama(1), by_group(["w4g32", "w8a8", "fp8"])), tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == ["config.json", "generation_config.json", "model.safetensors"]
    assert all((tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes() for name in files)


def test_a_changed_file_fails_the_check(tmp_path):
    request = requested(llama(1), by_group(["w4"]))
    folder, _ = exported(tmp_path, request)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.k_proj.weight_packed"][3, 1] ^= 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportMismatch, match=r"site model\.layers\.0\.self_attn\.k_proj"):
        get("compressed-tensors").check(request, folder)
    del tensors["lm_head.weight"]
    tensors["model.layers.0.self_attn.k_proj.weight_packed"][3, 1] ^= 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportMismatch, match=r"lm_head\.weight is not in the file"):
        get("compressed-tensors").check(request, folder)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nf4", "no tables"),
        ("w4g128z", "one scheme for all layers"),
        ("w8t", "one scale per channel or group"),
        ("we5m2", "only e4m3"),
        ("we4m3g32", "per tensor, channel or square"),
        ("we4m3b128", "inputs in groups of 128"),
        ("wmxfp6", "6-bit floats"),
        ("mxfp4", "another rule than that of OCP MX"),
        ("mxfp8", "another rule"),
        ("w8a4", "inputs of 8 bits"),
        ("w8g32a8d", "one scale per channel"),
        ("w4a8", "4-bit weights go with symmetric"),
        ("w2a8d", "4 or 8 bits"),
        ("w8a8c", "per tensor or token"),
        ("w4ae4m3", "inputs are e4m3, with weights of e4m3"),
        ("we4m3b128ae4m3d", "go with inputs in groups of 128"),
    ],
)
def test_what_no_scheme_says_is_refused(name, reason):
    capability = get("compressed-tensors").capability(Format.parse(name))
    assert not capability
    assert reason in capability.reason


@given(bits=st.sampled_from([2, 4, 8]), rows=st.integers(1, 5), columns=st.integers(1, 70), seed=st.integers(0, 99))
def test_words_are_packed_as_the_library_packs_them(bits, rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    unsigned = torch.randint(0, 1 << bits, (rows, columns), generator=generator, dtype=torch.uint8)
    signed = (unsigned.to(torch.int16) - (1 << (bits - 1))).to(torch.int8)
    assert torch.equal(pack_words(unsigned, bits), pack_to_int32(signed, bits))
    along = pack_words(unsigned.T.contiguous(), bits).T
    assert torch.equal(along, pack_to_int32(signed, bits, packed_dim=0))


def test_floats_of_4_bits_are_packed_as_the_library_packs_them():
    codes = torch.arange(16, dtype=torch.uint8).repeat(2, 1)
    packed = pack_bytes(codes, 4)
    values = unpack_fp4_from_uint8(packed, 2, 16, torch.float32)
    assert values[0].tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]
    assert torch.equal(pack_fp4_to_uint8(values), packed)


def test_files_are_what_safetensors_reads(tmp_path):
    tensors = {
        "a": torch.arange(3, dtype=torch.uint8),
        "b": torch.randn(2, 3, dtype=torch.float64),
        "c": torch.tensor(1.5).to(torch.float8_e8m0fnu),
        "d": torch.zeros(0, 4),
        "e": torch.randn(5).to(torch.bfloat16),
    }
    write_file(tmp_path / "x.safetensors", [Layer.of(tensors)], {"z": "1", "a": "ü"})
    given = load_file(tmp_path / "x.safetensors")
    assert given.keys() == tensors.keys()
    assert all(torch.equal(given[name].double(), tensor.double()) for name, tensor in tensors.items())
    assert write_shards(tmp_path, [Layer.of({"a": tensors["a"]})], {}) == ["model.safetensors"]
    wrong = Layer({"a": (torch.uint8, (4,))}, lambda: {"a": tensors["a"]})
    with pytest.raises(ExportMismatch, match="were announced"):
        write_file(tmp_path / "y.safetensors", [wrong], {})
