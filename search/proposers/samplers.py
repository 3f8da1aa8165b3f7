"""Optuna's samplers, driven directly with ask and tell on a study in memory.

- ``nsga2``: K. Deb et al., A fast and elitist multiobjective genetic algorithm, IEEE TEC 6(2), 2002.
- ``nsga3``: K. Deb and H. Jain, IEEE TEC 18(4), 2014: reference directions instead of crowding.
- ``tpe``: J. Bergstra et al., NeurIPS 2011; constrained as S. Watanabe and F. Hutter (IJCAI 2023, arXiv:2211.14411).
- ``gp``: a Gaussian process, see ``gaussian_process.py``.

Genes are tie groups, integers in the order of precision. Without constraints the objectives are quality and prices,
with constraints the quality alone, and the excess over every constraint goes to Optuna as a constraint of the trial.
Prices are known before anything is measured, so a suggestion that breaks a constraint is repaired (``repair.py``); one
that is known already has random genes changed until it is new. What others measured is added to the study. The first
proposals are points of the exact front and random ones in turn, until ``startup`` results are known.

The quality enters by its logarithm (``scale.py``): losses span orders of magnitude.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..groups import IntArray
from ..problem import Problem
from .base import BaseProposer
from .exact_front import ExactFront
from .limits import Limits
from .proposer import Evaluated
from .random_search import RandomSearch
from .repair import repaired
from .scale import signed_log

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

_CHANGES = 40  # attempts to make a known suggestion new


class OptunaProposer(BaseProposer):
    """One sampler of Optuna; a subclass names it.

    Args:
        problem: the problem.
        seed: of the sampler and the changes.
        startup: results that must be known before the sampler is asked.
    """

    generational = False  # whether a trial must be asked for to get into the population

    def __init__(self, problem: Problem, seed: int = 0, startup: int = 10) -> None:
        super().__init__(problem, seed)
        self.startup = startup
        self.limits = Limits.of(problem, self.groups, problem.constraints)
        self._offered = [np.flatnonzero(row) for row in self.groups.allowed]
        self._starts = (ExactFront(problem, seed), RandomSearch(problem, seed))
        for each in self._starts:
            self.share(each)
        self._started = 0
        self._pending: dict[bytes, int] = {}
        self._objectives = 1 if problem.constraints else len(problem.objectives)
        self._study = study_in_memory(self._sampler(seed), self._objectives)
        self._genes = self._distributions()

    def candidates(self) -> Iterator[tuple[IntArray, str]]:
        """Starting points until enough results are known, then suggestions."""
        while len(self.told) < self.startup and self._started < self.startup:
            starts = [self._starts[(self._started + turn) % 2] for turn in range(2)]
            genes = next((found for each in starts for found in self._start(each)), None)
            if genes is None:
                break
            self._started += 1
            self._run(genes)
            yield genes, self.name
        while (genes := self._suggested()) is not None:
            yield genes, self.name

    def tell(self, evaluated: Sequence[Evaluated]) -> None:
        """Finish the trials that were asked for, add the others."""
        super().tell(evaluated)
        for each in evaluated:
            number = self._pending.pop(each.choice.tobytes(), None)
            if number is not None:
                self._study.tell(number, self._values(each))
            elif self.offers(each.choice):
                self._add(each)

    def _sampler(self, seed: int) -> BaseSampler:
        raise NotImplementedError

    def _start(self, source: BaseProposer) -> Iterator[IntArray]:
        return (genes for genes, _ in source.candidates() if self.is_new(genes))

    def _suggested(self) -> IntArray | None:
        """A new configuration from one suggestion of the sampler."""
        trial = self._study.ask(self._genes)
        asked = self._of(trial.params)
        wanted = asked.copy()
        for attempt in range(_CHANGES):
            genes = repaired(wanted, self.limits, self.groups.allowed, self.generator)
            if genes is not None and self.is_new(genes):
                if np.array_equal(genes, asked):
                    self._watch(trial)
                else:
                    self._drop(trial)
                    self._run(genes)
                return genes
            wanted = asked.copy()
            for group in self.generator.integers(len(wanted), size=1 + attempt // 8):
                wanted[group] = self.generator.choice(self._offered[group])
        self._drop(trial)
        return None

    def _run(self, genes: IntArray) -> None:
        """Put a configuration of our own into the study as a running trial."""
        if self.generational:
            self._watch(self._enqueued(genes))
        else:
            from optuna.trial import TrialState

            self._study.add_trial(self._trial(genes, state=TrialState.RUNNING))
            self._pending[self.groups.expand(genes).tobytes()] = len(self._study.get_trials(deepcopy=False)) - 1

    def _enqueued(self, genes: IntArray) -> Trial:
        self._study.enqueue_trial(self._params(genes))
        trial = self._study.ask(self._genes)
        _ = trial.relative_params  # sampled lazily, and sampling is what gives a trial its generation
        return trial

    def _watch(self, trial: Trial) -> None:
        genes = self._of(trial.params)
        for name, excess in self._excess(genes).items():
            trial.set_constraint(name, excess)
        self._pending[self.groups.expand(genes).tobytes()] = trial.number

    def _drop(self, trial: Trial) -> None:
        from optuna.trial import TrialState

        self._study.tell(trial, state=TrialState.FAIL)

    def _add(self, each: Evaluated) -> None:
        genes = self.groups.contract(each.choice)
        if self.generational:
            trial = self._enqueued(genes)
            self._watch(trial)
            self._pending.pop(each.choice.tobytes())
            self._study.tell(trial, self._values(each))
        else:
            self._study.add_trial(self._trial(genes, values=self._values(each)))

    def _trial(self, genes: IntArray, **content: Any) -> FrozenTrial:
        from optuna.trial import create_trial

        return create_trial(
            params=self._params(genes), distributions=self._genes, constraints=self._excess(genes), **content
        )

    def _values(self, each: Evaluated) -> list[float]:
        quality = signed_log(each.quality)
        return [quality] if self.problem.constraints else [quality, *each.costs.tolist()]

    def _excess(self, genes: IntArray) -> dict[str, float]:
        over = (self.limits.totals(genes) - self.limits.most) / self.limits.scale
        return dict(zip(self.problem.constraints, over.tolist(), strict=True))

    def _distributions(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import IntDistribution

        return {f"g{at}": IntDistribution(0, len(each) - 1) for at, each in enumerate(self._offered) if len(each) > 1}

    def _params(self, genes: IntArray) -> dict[str, int]:
        return {name: int(np.searchsorted(self._offered[int(name[1:])], genes[int(name[1:])])) for name in self._genes}

    def _of(self, params: dict[str, int]) -> IntArray:
        return np.array([each[params.get(f"g{at}", 0)] for at, each in enumerate(self._offered)], dtype=np.int64)


def study_in_memory(sampler: BaseSampler, objectives: int) -> Study:
    """A study that minimises so many objectives, made without a line in the log."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(sampler=sampler, directions=["minimize"] * objectives)
    finally:
        optuna.logging.set_verbosity(before)


class _Genetic(OptunaProposer):
    """NSGA-II and NSGA-III: results of others join the present generation.

    Args:
        problem: the problem.
        seed: of the sampler and the changes.
        startup: results that must be known before the sampler is asked.
        population: size of a generation.
    """

    generational = True

    def __init__(self, problem: Problem, seed: int = 0, startup: int = 10, population: int = 16) -> None:
        self.population = population
        super().__init__(problem, seed, startup)


class NSGA2(_Genetic):
    """NSGA-II."""

    name = "nsga2"

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(population_size=self.population, seed=seed)


class NSGA3(_Genetic):
    """NSGA-III."""

    name = "nsga3"

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import NSGAIIISampler

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # "the interface can change"; it has not since 3.2
            return NSGAIIISampler(population_size=self.population, seed=seed)


class TPE(OptunaProposer):
    """The tree-structured Parzen estimator, constrained."""

    name = "tpe"
    oversample = 4  # a suggestion takes a tenth of a second

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import TPESampler

        return TPESampler(n_startup_trials=1, multivariate=True, seed=seed)
