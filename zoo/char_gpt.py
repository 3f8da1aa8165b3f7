"""A small causal language model over characters, trained here on CPython's language reference."""

from __future__ import annotations

import string

import torch
from torch import nn

from ..errors import InvalidInput
from . import topics
from .entry import BATCH_SIZE, Batch, Card, Loaded, Options, Sizes, batches
from .training import Recipe, fit, reproducible
from .weights_cache import cached

CONTEXT = 128
"""Characters of a sequence."""

ALPHABET = "\n" + string.printable[:95]
"""What the model can read and write: newline and the printable ASCII characters; others become a question mark."""


class Attention(nn.Module):
    """Causal self-attention with separate projections and rotary positions (Su et al., 2021, eq. 34).

    Written out with matrix products, so that it exports and differentiates twice.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        size = width // heads
        angles = torch.arange(CONTEXT)[:, None] * 10_000 ** (-torch.arange(0, size, 2) / size)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.register_buffer("mask", torch.full((CONTEXT, CONTEXT), float("-inf")).triu(1), persistent=False)
        self.cos: torch.Tensor
        self.sin: torch.Tensor
        self.mask: torch.Tensor

    def _rotated(self, x: torch.Tensor) -> torch.Tensor:
        """Turn each pair of features by an angle that grows with the position: [B, heads, T, size] -> the same."""
        cos, sin = self.cos[: x.shape[2]], self.sin[: x.shape[2]]
        left, right = x.chunk(2, -1)
        return torch.cat([left * cos - right * sin, left * sin + right * cos], -1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, width] -> [B, T, width]."""
        batch, length, width = x.shape

        def split(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

        q, k, v = self._rotated(split(self.q_proj(x))), self._rotated(split(self.k_proj(x))), split(self.v_proj(x))
        scores = q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5 + self.mask[:length, :length]
        mixed: torch.Tensor = self.o_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width))
        return mixed


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.up_proj = nn.Linear(width, 4 * width)
        self.down_proj = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, width] -> [B, T, width]."""
        x = x + self.attention(self.attention_norm(x))
        y: torch.Tensor = self.down_proj(nn.functional.gelu(self.up_proj(self.mlp_norm(x))))
        return x + y


class CharGPT(nn.Module):
    """Characters [B, T] to logits of the next character [B, T, 96]; T is at most 128.

    Args:
        width: Features.
        layers: Blocks.
        heads: Attention heads.
    """

    def __init__(self, width: int = 128, layers: int = 5, heads: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET), width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(ALPHABET), bias=False)
        nn.init.normal_(self.embedding.weight, std=0.5)
        nn.init.zeros_(self.head.weight)
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)  # every block begins as the identity, so the bigrams are learnt first
            elif name.endswith("proj.weight"):
                nn.init.normal_(parameter, std=width**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """int64 [B, T] -> logits float32 [B, T, 96]."""
        logits: torch.Tensor = self.head(self.norm(self.blocks(self.embedding(x))))
        return logits


def encode(text: str) -> torch.Tensor:
    """Characters as indices into `ALPHABET`.

    Args:
        text: N characters.

    Returns:
        int64 [N].
    """
    index = {character: place for place, character in enumerate(ALPHABET)}
    return torch.tensor([index.get(character, index["?"]) for character in text])


def next_character_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats a character over all positions.

    Args:
        outputs: Logits [B, T, V].
        targets: The characters that come next, int64 [B, T].
    """
    return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def recipe() -> Recipe:
    """The fixed recipe; its data digest is that of this Python's text."""
    return Recipe("char_gpt", 1, topics.digest(), steps=100, batch=16, learning_rate=2e-3, warmup=0.08, fast=4.0)


def _windows(text: torch.Tensor, starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences of `CONTEXT` characters and the same shifted by one."""
    places = starts[:, None] + torch.arange(CONTEXT + 1)
    return text[places][:, :-1], text[places][:, 1:]


def _split(split: str, count: int, seed: int) -> list[Batch]:
    """`count` windows that do not overlap."""
    text = encode(topics.text(split))
    room = (len(text) - 1) // CONTEXT
    if count > room:
        raise InvalidInput(f"char_gpt: {split}={count}, but this Python's text has {room} sequences there")
    chosen = torch.randperm(room, generator=torch.Generator().manual_seed(seed))[:count]
    return batches(*_windows(text, chosen * CONTEXT), size=BATCH_SIZE)


def _load(options: Options) -> Loaded:
    made = recipe()

    def train(model: CharGPT) -> None:
        text = encode(topics.text("train"))

        def draw(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
            return _windows(text, torch.randint(len(text) - CONTEXT, (made.batch,), generator=generator))

        fit(model, made, draw, next_character_loss, options.progress, (model.embedding.weight, model.head.weight))

    with reproducible(made.seed):
        model = CharGPT()
    return Loaded(
        model=cached(model, made, train, options.cache),
        calibration=_split("calibration", options.sizes.calibration, options.seed),
        validation=_split("validation", options.sizes.validation, options.seed),
        holdout=_split("holdout", options.sizes.holdout, options.seed),
        loss=next_character_loss,
    )


CARD = Card(
    name="char_gpt",
    description="causal language model over characters, 5 layers of width 128, 128 characters",
    quality="perplexity",
    licence=f"weights Apache-2.0 (trained here); {topics.LICENCE}",
    source=f"trained by the zoo; {topics.SOURCE}",
    parameters=1_013_632,
    sizes=Sizes(128, 128, 128),
    loader=_load,
)
