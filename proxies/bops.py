r"""BOPs: bit operations, the trivial baseline of computation.

.. math:: s[l, f] = \frac{\mathrm{MACs}_l}{\sum_k \mathrm{MACs}_k} \Bigl( 1 - \frac{b_w(f)\, b_a(f)}{32^2} \Bigr)

minus the bit operations of ``hw_models/bops.py`` up to a constant and a factor, so a model that computes more ranks
better; b_a is the width of the model's own float type where a format leaves activations alone. van Baalen et al. 2020,
arXiv:2005.07093; a baseline of Dong et al. 2023, EMQ, arXiv:2307.10554; the shift and the scale are ours.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from ..formats import Format
from .bit_weighted import FLOAT_BITS, share
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task


class BOPs:
    """MACs x weight bits x activation bits of each (site, format), negated and shifted."""

    name = "bops"
    summary = "baseline: MACs x weight bits x activation bits, more computation ranks better; no data, no passes"
    additive = False
    gradients = 0
    source = "van Baalen et al. 2020, arXiv:2005.07093; Dong et al. 2023 (EMQ), arXiv:2307.10554, baselines"

    def steps(self, task: Task, space: SearchSpace) -> int:
        """One step."""
        return 1

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring. The seed is not used: nothing is random."""
        started = time.perf_counter()
        weights = share(np.array([site.macs for site in space.sites], dtype=np.float64))
        parsed = [Format.parse(name) for name in space.formats]
        products = np.array(
            [[each.weight_bits * (each.activation_bits or site.weight_bits) for each in parsed] for site in space.sites]
        )
        values = np.where(space.allowed, weights[:, None] * (1 - products / FLOAT_BITS**2), np.nan)
        if advance:
            advance(1)
        seconds = time.perf_counter() - started
        return Sensitivity(self.name, values, None, tuple(space.names), space.formats, seconds, additive=False)
