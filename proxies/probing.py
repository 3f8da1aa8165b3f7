"""What probes of traces have in common: quantities, random streams, labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..evaluators.float_run import on_device
from ..task import SELF_REFERENCED

if TYPE_CHECKING:
    from ..space import SearchSpace
    from ..task import Batch, Task

WEIGHTS, ACTIVATIONS = 0, 1


def labelled(task: Task, batch: Batch) -> bool:
    """Whether the objective of a batch is a loss against its labels, whose gradient does not vanish."""
    return labels_of_batch(task, batch) is not None


def labels_of_batch(task: Task, batch: Batch) -> Tensor | None:
    """The labels that the objective of a batch compares with, on the device of the model; ``None`` without."""
    return None if task.quality in SELF_REFERENCED else on_device(batch, task.model).targets


def applicable(space: SearchSpace, rounded: frozenset[str]) -> np.ndarray:
    """Bool [2, sites]: all weights, and the activations of sites with a rounded module."""
    activations = [any(module in rounded for module in site.modules) for site in space.sites]
    return np.array([[True] * len(space.sites), activations])


def generator(seed: int, *stream: int) -> torch.Generator:
    """An independent generator for each stream of a seed."""
    state = np.random.SeedSequence([abs(seed), int(seed < 0), *stream]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def wide(tensor: Tensor) -> torch.dtype:
    """The type in which to accumulate: float32 at least."""
    return torch.promote_types(tensor.dtype, torch.float32)
