"""Which proposals are measured: those from which the surrogate expects the largest improvement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from .archive import Archive
from .problem import Proposal
from .surrogate import Fitted, choose_batch

_FOCUS = 0.7  # share of a batch for the best quality within the constraints, if any; the rest for the front


class Selection:
    """The choice of one round; what was chosen before in the round counts as measured with its expected value.

    Args:
        fitted: the surrogate.
        archive: what was measured.
        seed: of Monte Carlo points.
    """

    def __init__(self, fitted: Fitted, archive: Archive, seed: int) -> None:
        self.fitted = fitted
        self.problem = archive.problem
        self.seed = seed
        known = [found for found in archive.evaluated if found.feasible]
        prices = len(self.problem.price_objectives)
        self._quality = np.array([found.quality for found in known])
        self._costs = np.array([found.costs for found in known]).reshape(len(known), prices)

    def __call__(self, proposals: Sequence[Proposal], count: int) -> list[int]:
        """Indices of up to ``count`` proposals, most wanted first."""
        if not proposals:
            return []
        choices = np.stack([self.problem.space.choice(each.configuration) for each in proposals])
        costs = np.column_stack([self.problem.totals(choices, name) for name in self.problem.price_objectives])
        rest, chosen = list(range(len(proposals))), []
        focused = round(_FOCUS * count) if self.problem.constraints else 0
        wanted: list[tuple[Literal["best", "hypervolume"], int]] = [("best", focused), ("hypervolume", count - focused)]
        for target, number in wanted:
            picks = choose_batch(
                self.fitted,
                choices[rest],
                costs[rest],
                self._quality,
                self._costs,
                number,
                target=target,
                seed=self.seed,
            )
            indices = [rest[pick] for pick in picks]
            self._believe(choices[indices], costs[indices])
            chosen += indices
            rest = [index for index in rest if index not in set(indices)]
        return chosen

    def _believe(self, choices: np.ndarray, costs: np.ndarray) -> None:
        if len(choices):
            self._quality = np.concatenate([self._quality, self.fitted.predict(choices).mean])
            self._costs = np.concatenate([self._costs, costs])
