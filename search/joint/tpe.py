"""The tree-structured Parzen estimator on genomes with conditions: Optuna's, driven with ask and tell.

J. Bergstra et al., Algorithms for hyper-parameter optimization, NeurIPS 2011; for several objectives Y. Ozaki et al.,
Multiobjective tree-structured Parzen estimator, JAIR 73, 2022. Questions are categorical parameters, suggested one
after the other as they come up; parameters that come up together are modelled jointly (``multivariate``, ``group``).

The sampler repeats itself in discrete spaces: what is known already gets other answers, one more for every ten
attempts, and enters the study as that. Genomes of others are added to the study when they are told.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...architecture import Value
from ..proposers.samplers import study_in_memory
from .decisions import Decision, Decisions, FloatArray, G
from .sampler import BaseSampler, Prices

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler as OptunaSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

_ATTEMPTS = 60  # to make a known suggestion new


class ParzenEstimator(BaseSampler[G]):
    """TPE.

    Args:
        decisions: what there is to decide.
        seed: of every draw.
        prices: taken for the protocol; the estimator learns from what was told.
        startup: random genomes before the first suggestion.
    """

    name = "tpe"

    def __init__(
        self, decisions: Decisions[G], seed: int = 0, prices: Prices[G] | None = None, startup: int = 20
    ) -> None:
        super().__init__(decisions, seed, prices)
        self.startup = startup
        self._sampler = _tpe(seed)
        self._study: Study | None = None
        self._waiting: dict[G, int] = {}

    def tell(self, genomes: Sequence[G], values: FloatArray) -> None:
        """See ``Sampler.tell``."""
        before = set(self.told)
        super().tell(genomes, values)
        if self._study is None:
            self._study = study_in_memory(self._sampler, values.shape[1])
        for genome in dict.fromkeys(genomes):
            number = self._waiting.pop(genome, None)
            finite = bool(np.isfinite(self.told[genome]).all())
            if number is not None:
                self._finish(number, self.told[genome] if finite else None)
            elif genome not in before and finite:
                self._study.add_trial(self._trial(genome, values=self.told[genome].tolist()))

    def _finish(self, number: int, values: FloatArray | None) -> None:
        from optuna.trial import TrialState

        assert self._study is not None  # a number is the study's
        if values is None:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, values.tolist())

    def _next(self) -> G | None:
        if self._study is None or len(self._asked) < self.startup:
            return self._random()
        from optuna.trial import TrialState

        trial = self._study.ask()
        suggested = self.decisions.decide(lambda each: _suggest(trial, each))
        if suggested not in self._asked:
            self._waiting[suggested] = trial.number
            return suggested
        self._study.tell(trial, state=TrialState.FAIL)
        for attempt in range(_ATTEMPTS):
            made = self.operators.mutated(suggested, self.draw, 1 + attempt // 10)
            if made not in self._asked:
                self._study.add_trial(self._trial(made, state=TrialState.RUNNING))
                self._waiting[made] = len(self._study.get_trials(deepcopy=False)) - 1
                return made
        return self._random()

    def _trial(self, genome: G, **content: Any) -> FrozenTrial:
        """A genome as a trial that the sampler did not suggest."""
        from optuna.distributions import BaseDistribution, CategoricalDistribution
        from optuna.trial import create_trial

        answers = self.decisions.answers(genome)
        params: dict[str, Value] = {}
        distributions: dict[str, BaseDistribution] = {}

        def pick(decision: Decision) -> Value:
            names = (f"{decision.part}:{name}" for name in decision.names)
            value = next(answers[name] for name in names if name in answers)
            params[_name(decision)] = value
            distributions[_name(decision)] = CategoricalDistribution(decision.options)
            return value

        self.decisions.decide(pick)
        return create_trial(params=params, distributions=distributions, **content)


def _suggest(trial: Any, decision: Decision) -> Value:
    value: Value = trial.suggest_categorical(_name(decision), decision.options)
    return value


def _name(decision: Decision) -> str:
    """Optuna wants the same options under the same name; a site may offer others in another architecture."""
    return f"{decision.label} of {', '.join(map(str, decision.options))}"


def _tpe(seed: int) -> OptunaSampler:
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import TPESampler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # multivariate and group have been so since 2.2
        return TPESampler(n_startup_trials=1, multivariate=True, group=True, seed=seed)
