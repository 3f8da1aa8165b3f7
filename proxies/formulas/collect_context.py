"""What all collectors of statistics share: the model, the drawn blocks, and the count of passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ...evaluators import QuantizedModel
from .collect_draw import Block

if TYPE_CHECKING:
    from ...evaluators import Calibration
    from ...space import SearchSpace
    from ...task import Task
    from ..sensitivity import Advance

NAME = "formulas"  # in messages of shared parts, where a proxy has its name


@dataclass
class Context:
    """One collection.

    Attributes:
        task: model and calibration data.
        space: sites and formats.
        calibration: scales and ranges.
        blocks: drawn elements of every site.
        seed: of every draw.
        samples: calibration samples at most, in every pass.
        advance: told about every sample that was run, and every site.
        forward: samples run forward so far.
        backward: samples run backward so far.
    """

    task: Task
    space: SearchSpace
    calibration: Calibration
    blocks: Sequence[Block]
    seed: int
    samples: int
    advance: Advance | None = None
    forward: int = field(default=0, init=False)
    backward: int = field(default=0, init=False)

    @cached_property
    def quantized(self) -> QuantizedModel:
        """The model that rounds weights and activations; nothing is kept."""
        return QuantizedModel(self.task.model, self.space, self.calibration, cache_bytes=0)

    def step(self, count: int = 1) -> None:
        """Tell that so much was done."""
        if self.advance:
            self.advance(count)

    def drawn(self, values: Sequence[Tensor | None]) -> np.ndarray:
        """The drawn elements of tensors of the weights' shapes, zeros for ``None``, one site after the other: [T]."""
        return joined(
            [
                np.zeros(len(block.rows) * len(block.columns)) if each is None else block.of(each).cpu().numpy()
                for block, each in zip(self.blocks, values, strict=True)
            ]
        )


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The elements of all sites one after the other: float32 [T]."""
    return np.concatenate(parts).astype(np.float32)


Collector = Callable[[Context, frozenset[str]], dict[str, np.ndarray]]
"""(context, names of inputs that are wanted) -> at least those, in the shapes of ``SiteStatistics``."""
