"""The recipe of llama.cpp: names as gguf has them, anchored patterns, types of ggml."""

import re

import pytest
import torch
from bitfront import SearchSpace
from bitfront.errors import InvalidInput
from bitfront.exporters import export
from torch import nn

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")


def llama():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        vocab_size=96, use_cache=False, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def test_every_line_is_a_pattern_that_finds_its_tensor_alone_and_a_type_that_gguf_knows(tmp_path):
    model, tokens = llama(), {"input_ids": torch.zeros(1, 4, dtype=torch.int64)}
    space = SearchSpace.from_model(model, tokens, formats=["w4g32", "w8g32", "bf16"])
    formats = ["w4g32", "w8g32", "bf16"]
    chosen = {site.name: formats[index % 3] for index, site in enumerate(space.sites)}
    chosen |= dict.fromkeys((name for tie in space.ties for name in tie.sites), "w4g32")
    export(model, chosen, tmp_path / "types.txt", "llama-cpp", example_inputs=tokens, space=space)
    lines = [line.rpartition("=") for line in (tmp_path / "types.txt").read_text().splitlines()]
    assert len(lines) == len(space.sites)
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    tensors = {site: f"{table.get_name(site)}.weight" for site in space.names}
    expected = {"w4g32": "q4_0", "w8g32": "q8_0", "bf16": "bf16"}
    for pattern, _, kind in lines:
        assert gguf.GGMLQuantizationType[kind.upper()] in gguf.GGML_QUANT_SIZES
        found = [site for site, tensor in tensors.items() if re.search(pattern, tensor)]
        assert len(found) == 1
        assert expected[chosen[found[0]]] == kind
    assert ("^blk\\.0\\.attn_q\\.weight$", "=", "q4_0") in lines


def test_a_model_without_an_architecture_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"architecture '' with 0 blocks: gguf has no names for it; give options="):
        export(
            nn.Sequential(nn.Linear(32, 4)).eval(),
            {"0": "w4g32"},
            tmp_path / "r",
            "llama-cpp",
            example_inputs=torch.ones(2, 32),
        )


def test_layers_without_a_name_in_gguf_are_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"site 0: gguf has no tensor of this name in architecture 'llama'"):
        export(
            nn.Sequential(nn.Linear(32, 4)).eval(),
            {"0": "w4g32"},
            tmp_path / "r",
            "llama-cpp",
            example_inputs=torch.ones(2, 32),
            options={"architecture": "llama", "blocks": 1},
        )


def test_an_unknown_option_and_a_format_without_an_equal_are_told_together(tmp_path):
    with pytest.raises(
        InvalidInput,
        match=r"3 violations: \(1\) site 0: w4g64: no type of ggml .* works: w4g32; \(2\) colour: no option .*; \(3\)",
    ):
        export(
            nn.Sequential(nn.Linear(64, 4)).eval(),
            {"0": "w4g64"},
            tmp_path / "r",
            "llama-cpp",
            example_inputs=torch.ones(2, 64),
            options={"colour": 1},
        )
