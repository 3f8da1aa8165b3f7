r"""Weight MSE: the squared error that a format makes on the weights, blind to what the network does with them.

.. math:: s[l, f] = \lVert Q_f(W_l) - W_l \rVert_2^2

It needs no data and no pass through the model. It ranks badly between layers of different scale and is here as the
baseline that every other proxy has to beat (AMD Quark's planner uses it).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .perturbation import weight_errors
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task


class WeightMSE:
    """Squared weight error of each (site, format)."""

    name = "weight_mse"
    summary = "squared error of the weights; no data, no passes"
    additive = True
    gradients = 0
    source = "the planner of AMD Quark; no paper"

    def steps(self, task: Task, space: SearchSpace) -> int:
        """One step."""
        return 1

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring. The seed is not used: nothing is random."""
        started = time.perf_counter()
        values = weight_errors(task, space, calibration)
        if advance:
            advance(1)
        return Sensitivity(self.name, values, None, tuple(space.names), space.formats, time.perf_counter() - started)
