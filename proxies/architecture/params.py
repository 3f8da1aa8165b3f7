"""Parameters: the baseline that every proxy of architectures must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from ...task import Batch
    from .proxy import Loss


class Params:
    """The number of parameters; shared ones count once."""

    name = "params"
    summary = "the number of parameters"
    labels = False
    gradients = 0
    source = "the usual baseline; NAS-Bench-Suite-Zero, arXiv:2210.03230"

    def score(self, module: nn.Module, batch: Batch, loss: Loss | None, seed: int) -> float:
        """Elements of all parameters; nothing but the module is used."""
        return float(sum(parameter.numel() for parameter in module.parameters()))
