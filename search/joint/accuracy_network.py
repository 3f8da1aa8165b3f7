r"""An ensemble of small networks from columns to one number, trained by full batches.

Member k is a network with two hidden layers,

.. math:: g_k(x) = w_k^\top \sigma(V_k\, \sigma(U_k x + a_k) + b_k) + c_k, \qquad \sigma = \mathrm{SiLU}

and all are trained at once on the mean of their squared errors, each from its own initialisation (a deep ensemble,
Lakshminarayanan et al., arXiv:1612.01474). A network may learn what comes on top of something known: with the logarithm
u of that, what is compared with the wanted logarithm is :math:`\log(e^u + e^{g})`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

FloatArray = NDArray[np.float64]
_RATE = 3e-3
_DECAY = 1e-3
_WARM = 0.1  # share of the steps with rising learning rate


@dataclass(frozen=True)
class Ensemble:
    """The parameters, and the scale of what is predicted.

    Attributes:
        parameters: U [members, columns, hidden], a [members, 1, hidden], V, b, w [members, hidden, 1], c: float64.
        mean: of the numbers trained on.
        deviation: their standard deviation.
    """

    parameters: tuple[Tensor, ...]
    mean: float = 0.0
    deviation: float = 1.0

    @staticmethod
    def drawn(columns: int, hidden: int = 64, members: int = 5, seed: int = 0) -> Ensemble:
        """Random weights (He et al., arXiv:1502.01852), output 0.

        Args:
            columns: of the input.
            hidden: units of each hidden layer.
            members: of the ensemble.
            seed: of the weights.
        """
        draw = torch.Generator().manual_seed(seed)

        def weights(inputs: int, active: float) -> Tensor:
            shape = (members, inputs, hidden)
            return torch.randn(shape, generator=draw, dtype=torch.float64) * math.sqrt(2 / active)

        first = weights(columns, max(1.0, columns / 2))  # about half of one-hot columns of pairs are 1
        zeros = torch.zeros(members, 1, hidden, dtype=torch.float64)
        last, bias = (
            torch.zeros(members, hidden, 1, dtype=torch.float64),
            torch.zeros(members, 1, 1, dtype=torch.float64),
        )
        return Ensemble((first, zeros, weights(hidden, hidden), zeros.clone(), last, bias))

    def outputs(self, rows: FloatArray) -> FloatArray:
        """What every member says: [members, rows]."""
        with torch.no_grad():
            found: FloatArray = _forward(self.parameters, torch.from_numpy(rows)).numpy()
        return self.mean + self.deviation * found

    def rescaled(self, mean: float, deviation: float) -> Ensemble:
        """The same function on another scale."""
        *inner, last, bias = self.parameters
        ratio = self.deviation / deviation
        return Ensemble((*inner, ratio * last, ratio * bias + (self.mean - mean) / deviation), mean, deviation)

    def trained(self, rows: FloatArray, wanted: FloatArray, steps: int, under: FloatArray | None = None) -> Ensemble:
        """After so many steps of AdamW, learning rate linear up and down.

        Args:
            rows: inputs [n, columns].
            wanted: what to predict [n].
            steps: of the whole batch.
            under: logarithms of what the output's exponential comes on top of [n]; ``None``: of nothing.
        """
        parameters = [each.clone().requires_grad_() for each in self.parameters]
        inputs, goals = torch.from_numpy(rows), torch.from_numpy(wanted)
        known = torch.full_like(goals, -math.inf) if under is None else torch.from_numpy(under)
        optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY)
        for step in range(steps):
            done = (step + 1) / steps
            for group in optimizer.param_groups:
                group["lr"] = _RATE * min(done / _WARM, (1 - done) / (1 - _WARM) + 1 / steps)
            optimizer.zero_grad()
            found = torch.logaddexp(known, self.mean + self.deviation * _forward(parameters, inputs))
            loss = ((found - goals) / self.deviation).square().mean(dim=1).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return replace(self, parameters=tuple(each.detach() for each in parameters))


def _forward(parameters: tuple[Tensor, ...] | list[Tensor], rows: Tensor) -> Tensor:
    first, one, second, two, last, bias = parameters
    hidden = functional.silu(rows @ first + one)
    hidden = functional.silu(hidden @ second + two)
    found: Tensor = (hidden @ last + bias).squeeze(-1)
    return found
