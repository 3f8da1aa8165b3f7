"""The training loop that all of the zoo's own networks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from .entry import Loss, Progress


@dataclass(frozen=True)
class Recipe:
    """All that determines trained weights; its digest names them in the cache.

    Attributes:
        name: Name of the entry.
        version: Raised whenever the code of the network or of the training changes.
        data: Digest of the training data.
        steps: Optimizer steps.
        batch: Samples a step.
        learning_rate: Peak of the one-cycle schedule.
        weight_decay: AdamW's, on parameters of two and more dimensions.
        warmup: Share of the steps with rising learning rate.
        seed: Of the initialisation and of the order of the samples.
    """

    name: str
    version: int
    data: str
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.05
    warmup: float = 0.1
    seed: int = 0


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """One torch thread and a seeded global generator inside, both as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def fit(
    model: nn.Module,
    recipe: Recipe,
    draw: Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]],
    loss: Loss,
    progress: Progress | None = None,
) -> None:
    """Train in place with AdamW, a one-cycle cosine schedule and gradients clipped to norm 1.

    Args:
        model: Initialised; trained in place and left in eval mode.
        recipe: Steps, learning rate, weight decay, seed.
        draw: Gives one training batch (inputs, targets).
        loss: Of (outputs, targets).
        progress: Told (steps done, steps in all, loss) after every step.
    """
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.steps, pct_start=recipe.warmup, cycle_momentum=False
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    model.train()
    with reproducible(recipe.seed):
        for step in range(recipe.steps):
            inputs, targets = draw(generator)
            value = loss(model(inputs), targets)
            optimizer.zero_grad()
            torch.autograd.backward(value)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if progress is not None:
                progress(step + 1, recipe.steps, float(value.detach()))
    model.eval()
