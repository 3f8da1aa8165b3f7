"""The model of the jobs of ``benchmarks/faults.py``; every execution of a candidate is a line in a file beside it.

The line is appended before the candidate is measured, in whichever process measures it: the process of a job, or an
actor of Ray, which imports this module for the model's class. The line tells the seed, by which jobs differ; the sites
are named after it, so that the store's rows tell it too.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bitfront.evaluators import FakeQuantEvaluator
from torch import Tensor, nn

_LOG = Path(__file__).with_name("executions")
_evaluate_many = FakeQuantEvaluator.evaluate_many


def _noted(
    self: FakeQuantEvaluator, configurations: Sequence[Any], split: str = "validation", *more: Any, **named: Any
):
    seed = next(part.seed for part in self.task.model.modules() if isinstance(part, Wait))
    lines = "".join(f"{seed} {each.digest} {split} {time.time():.6f} {os.getpid()}\n" for each in configurations)
    descriptor = os.open(_LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, lines.encode())  # one call: whole lines, whoever writes at the same time
    os.close(descriptor)
    return _evaluate_many(self, configurations, split, *more, **named)


FakeQuantEvaluator.evaluate_many = _noted  # type: ignore[method-assign]


class Wait(nn.Module):
    """The identity, some time later."""

    def __init__(self, seconds: float, seed: int) -> None:
        super().__init__()
        self.seconds, self.seed = seconds, seed

    def forward(self, x: Tensor) -> Tensor:
        """The input."""
        time.sleep(self.seconds)
        return x


def network(seed: int, seconds: float) -> nn.Module:
    """A small convolutional network whose weights and names depend on the seed."""
    torch.manual_seed(seed)
    layers = {
        "first": nn.Conv2d(3, 8, 3, padding=1),
        "middle": nn.Conv2d(8, 8, 3, padding=1, groups=8),
        "last": nn.Conv2d(8, 16, 1),
        "head": nn.Linear(16, 5),
    }
    parts: list[tuple[str, nn.Module]] = []
    for name, layer in layers.items():
        if name == "head":
            parts += [("pool", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten())]
        parts += [(f"{name}_{seed}", layer), (f"act_{name}", nn.ReLU())]
    return nn.Sequential(OrderedDict([*parts, ("wait", Wait(seconds, seed))]))
