"""Training of a supernet: phases of progressive shrinking, deterministic by seed, resumable after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ....zoo.entry import Progress
from .checkpoint import load_checkpoint, save_checkpoint
from .importance import sort_channels
from .network import ElasticNet
from .phases import opened_space
from .recipe import ElasticRecipe
from .sandwich import sandwich, sandwich_backward

Draw = Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]
"""Gives one training batch (images [B, C, H, W], classes [B]) on the CPU, by a generator and nothing else."""


def train(
    net: ElasticNet,
    recipe: ElasticRecipe,
    draw: Draw,
    *,
    checkpoint: Path | None = None,
    every: int = 100,
    progress: Progress | None = None,
) -> None:
    """Train in place on the device of ``net``.

    What a step draws (images, sub-networks) depends on the seed and the number of the step alone, and the optimizer
    starts anew with each phase: a training that goes on from a checkpoint ends, on a CPU, with the same weights to the
    last bit as one that was never stopped. On CUDA the same holds under ``torch.use_deterministic_algorithms``.

    Args:
        net: initialised with ``recipe.seed``; left in evaluation mode with the largest sub-network active.
        recipe: phases and numbers.
        draw: training batches.
        checkpoint: file to go on from if it is there, and to write to; it stays when the training is done.
        every: steps between checkpoints; one is also written at the end of each phase.
        progress: told (steps done, steps in all, loss of the largest sub-network) after every step.

    Raises:
        Conflict: the checkpoint is of another recipe.
        InvalidInput: the checkpoint cannot be read.
    """
    step = 0
    state: dict[int, dict[str, Any]] = {}
    if checkpoint is not None and checkpoint.is_file():
        step, state = load_checkpoint(checkpoint, net, recipe.digest)
    net.train()
    with _threads(recipe.threads):
        while step < recipe.steps:
            number, done = recipe.at(step)
            if done == 0:
                _open_phase(net, recipe, number)
            optimizer, schedule = _optimizer(net, recipe, number, done, state)
            state = {}
            for _ in range(recipe.phases[number].steps - done):
                loss = _step(net, recipe, draw, optimizer, step)
                schedule.step()
                step += 1
                ends = recipe.at(step)[1] == 0
                if checkpoint is not None and (ends or step % every == 0):
                    save_checkpoint(checkpoint, net, None if ends else optimizer, step, recipe.digest)
                if progress is not None:
                    progress(step, recipe.steps, loss)
    net.activate(net.architecture.largest()).eval()


def _open_phase(net: ElasticNet, recipe: ElasticRecipe, number: int) -> None:
    """Before expansions open further, important channels come first."""
    before = recipe.phases[number - 1].opened("expansion") if number else 1
    if recipe.phases[number].opened("expansion") > before:
        sort_channels(net, before)


def _step(net: ElasticNet, recipe: ElasticRecipe, draw: Draw, optimizer: torch.optim.Optimizer, step: int) -> float:
    phase = recipe.phases[recipe.at(step)[0]]
    choose = np.random.default_rng([recipe.seed, step])
    images, targets = draw(torch.Generator().manual_seed(int(choose.integers(1 << 62))))
    device = net.classifier.weight.device
    architectures = sandwich(opened_space(net.architecture, phase), phase.samples, choose)
    optimizer.zero_grad()
    loss = sandwich_backward(net, architectures, images.to(device), targets.to(device))
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    return loss


def _optimizer(
    net: ElasticNet, recipe: ElasticRecipe, number: int, done: int, state: dict[int, dict[str, Any]]
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW and the schedule of a phase, after ``done`` steps of it."""
    phase = recipe.phases[number]
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        # decay would pull the kernel matrices away from the identity
        (decayed if parameter.ndim >= 2 and ".matrices." not in name else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=phase.learning_rate, betas=(0.9, 0.95))
    if state:
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    warm = max(1, round(recipe.warmup * phase.steps))

    def factor(step: int) -> float:
        return (step + 1) / warm if step < warm else max(phase.steps - step, 1) / (phase.steps - warm + 1)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step + done))
    return optimizer, schedule


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
