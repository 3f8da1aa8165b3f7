"""Floating-point operations: the other baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from ...evaluators import in_eval
from .passes import outputs_of

if TYPE_CHECKING:
    from torch import nn

    from ...task import Batch
    from .proxy import Loss


class FLOPs:
    """Operations of convolutions, matrix products and attention for one sample; a multiply-accumulate counts two."""

    name = "flops"
    summary = "floating-point operations of one sample"
    labels = False
    gradients = 0
    source = "torch.utils.flop_counter; the usual baseline, NAS-Bench-Suite-Zero, arXiv:2210.03230"

    def score(self, module: nn.Module, batch: Batch, loss: Loss | None, seed: int) -> float:
        """Operations of one sample; neither loss nor seed is used.

        Raises:
            UnsupportedModel: the network does not accept the batch.
        """
        with in_eval(module), torch.no_grad(), FlopCounterMode(display=False) as counter:
            outputs_of(module, batch.piece(0, 1))
        return float(counter.get_total_flops())
