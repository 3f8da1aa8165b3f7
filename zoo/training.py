"""The training loop that all of the zoo's own networks share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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
        fast: Factor on the learning rate of the parameters given to `fit` as `fast`.
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
    fast: float = 1.0
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
    fast: Collection[torch.Tensor] = (),
) -> None:
    """Train in place with AdamW, a one-cycle schedule (linear up and down) and gradients clipped to norm 1.

    Args:
        model: Initialised; trained in place and left in eval mode.
        recipe: Steps, learning rate, weight decay, seed.
        draw: Gives one training batch (inputs, targets).
        loss: Of (outputs, targets).
        progress: Told (steps done, steps in all, loss) after every step.
        fast: Parameters whose learning rate is `recipe.fast` times the others' (embeddings see few tokens a step).
    """
    quick = {id(parameter) for parameter in fast}
    groups: list[dict[str, Any]] = [
        {"params": [], "lr": rate, "weight_decay": decay}
        for rate in (recipe.learning_rate, recipe.learning_rate * recipe.fast)
        for decay in (0.0, recipe.weight_decay)
    ]
    for parameter in model.parameters():
        groups[2 * (id(parameter) in quick) + (parameter.ndim >= 2)]["params"].append(parameter)
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in groups],
        total_steps=recipe.steps,
        pct_start=recipe.warmup,
        anneal_strategy="linear",
        cycle_momentum=False,
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
