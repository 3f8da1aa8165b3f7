r"""Kurtosis: how heavy the tails of the weights are.

.. math::
    s[l, f] = \frac{n_l \kappa_l}{\sum_k n_k \kappa_k} \Bigl( 1 - \frac{b_f}{32} \Bigr), \qquad
    \kappa_l = \frac{\frac1{n_l} \sum_i (w_i - \bar w)^4}{\bigl( \frac1{n_l} \sum_i (w_i - \bar w)^2 \bigr)^2}

with n_l weights at site l: one bit more for every weight is worth the kurtosis of its layer, so layers are served in
the order of :math:`\kappa`. A uniform distribution has 1.8, the most robust one against rounding (Shkolnik et al. 2020,
arXiv:2002.07686); a normal one has 3; outliers raise it. KurtBoost gives the layers of outlying kurtosis
more memory (Zhang et al. 2025, arXiv:2503.06518). The table over formats is ours; ``bit_weighted`` says what b_f is.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from .bit_weighted import bit_weighted
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task


class Kurtosis:
    """Kurtosis of the weights of each site, times bits."""

    name = "kurtosis"
    summary = "layers with heavy-tailed weights first; no data, no passes"
    additive = False
    gradients = 0
    source = "Shkolnik et al. 2020, arXiv:2002.07686; Zhang et al. 2025 (KurtBoost), arXiv:2503.06518"

    def steps(self, task: Task, space: SearchSpace) -> int:
        """One step per site."""
        return len(space.sites)

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring. The seed is not used: nothing is random.

        Raises:
            NonFiniteOutput: a weight is NaN or infinite.
        """
        started = time.perf_counter()
        importance = np.zeros(len(space.sites))
        for row, site in enumerate(space.sites):
            importance[row] = site.elements * kurtosis(task.model.get_parameter(site.parameter).detach())
            if advance:
                advance(1)
        values = bit_weighted(space, importance, self.name)
        seconds = time.perf_counter() - started
        return Sensitivity(self.name, values, None, tuple(space.names), space.formats, seconds, additive=False)


def kurtosis(weight: Tensor) -> float:
    """Fourth standardized moment (a normal distribution: 3); 0 for a constant tensor."""
    flat = weight.flatten().double()
    centred = flat - flat.mean()
    # scaled first: the fourth power of small weights underflows
    centred = centred / centred.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    variance = float(centred.square().mean())
    return float(centred.pow(4).mean()) / variance**2 if variance else 0.0
