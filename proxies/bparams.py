r"""BParams: the bits that the weights take, the trivial baseline of size.

.. math:: s[l, f] = \frac{n_l}{\sum_k n_k} \Bigl( 1 - \frac{b_w(f)}{32} \Bigr)

with n_l weights at site l: minus :math:`\sum_l n_l b_w(f_l)` up to a constant and a factor, so a larger model ranks
better. Dong et al. 2023, EMQ, arXiv:2307.10554, whose baselines contain it; the shift and the scale are ours. Formats
that differ only in how they round activations tie.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from .bit_weighted import bit_weighted
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task


class BParams:
    """Weights x bits of each (site, format), negated and shifted."""

    name = "bparams"
    summary = "baseline: weights x bits, larger models rank better; no data, no passes"
    additive = False
    gradients = 0
    source = "Dong et al. 2023 (EMQ), arXiv:2307.10554, baselines"

    def steps(self, task: Task, space: SearchSpace) -> int:
        """One step."""
        return 1

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring. The seed is not used: nothing is random."""
        started = time.perf_counter()
        elements = np.array([site.elements for site in space.sites], dtype=np.float64)
        values = bit_weighted(space, elements, self.name, bits=lambda target: target.weight_bits)
        if advance:
            advance(1)
        seconds = time.perf_counter() - started
        return Sensitivity(self.name, values, None, tuple(space.names), space.formats, seconds, additive=False)
