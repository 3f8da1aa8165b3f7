r"""Optuna's Gaussian process with expected improvement, one scalar problem a suggestion.

With constraints the quality is minimised under them. Without, the objectives are scaled to [0, 1] and joined by an
augmented Chebyshev norm with random weights, another one for each suggestion (ParEGO: J. Knowles, IEEE TEC 10(1),
2006, equation 2), so that one process has to be fitted instead of one for each objective:

.. math:: f_w(x) = \max_j w_j f_j(x) + 0.05 \sum_j w_j f_j(x)

A fit and the maximisation of the acquisition function take seconds at 100 genes (2 s at 20): search the sites that
matter with it (``restricted.py``), or leave it out of a mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..groups import IntArray
from ..problem import Problem
from .base import BaseProposer
from .limits import FloatArray
from .proposer import Evaluated
from .samplers import OptunaProposer, study_in_memory

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

_AUGMENTATION = 0.05


class GP(OptunaProposer):
    """A Gaussian process over the levels of the groups.

    Args:
        problem: the problem.
        seed: of the sampler, the weights and the changes.
        startup: results that must be known before the sampler is asked.
    """

    name = "gp"
    oversample = 1  # a suggestion takes seconds

    def __init__(self, problem: Problem, seed: int = 0, startup: int = 10) -> None:
        self._seed = seed
        self._turn = 0
        super().__init__(problem, seed, startup)

    def tell(self, evaluated: Sequence[Evaluated]) -> None:
        """Take in new results; the next suggestion builds its study from them."""
        BaseProposer.tell(self, evaluated)
        for each in evaluated:
            self._pending.pop(each.choice.tobytes(), None)

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import GPSampler

        return GPSampler(n_startup_trials=1, seed=seed, warn_independent_sampling=False)

    def _suggested(self) -> IntArray | None:
        from optuna.trial import TrialState

        told = self.inside()
        self._turn += 1
        self._study = study_in_memory(self._sampler(1000 * self._seed + self._turn), 1)
        for each, value in zip(told, self._scalars(told), strict=True):
            self._study.add_trial(self._trial(self.groups.contract(each.choice), value=float(value)))
        for key in self._pending:
            genes = self.groups.contract(np.frombuffer(key, dtype=np.int64))
            self._study.add_trial(self._trial(genes, state=TrialState.RUNNING))
        return super()._suggested()

    def _scalars(self, told: Sequence[Evaluated]) -> FloatArray:
        """What is minimised: [results]."""
        values = np.array([self._values(each) for each in told]).reshape(len(told), self._objectives)
        if self._objectives == 1 or not len(told):
            total: FloatArray = values.sum(axis=1)
            return total
        low, width = values.min(axis=0), np.ptp(values, axis=0)
        weighted = self.generator.dirichlet(np.ones(self._objectives)) * (values - low) / np.where(width > 0, width, 1)
        scalars: FloatArray = weighted.max(axis=1) + _AUGMENTATION * weighted.sum(axis=1)
        return scalars
