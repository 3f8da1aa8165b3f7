"""Model-based search over genomes: a Gaussian process for what has to be measured, prices that are known, evolution.

Every genome of a batch is the one that is expected to add most hypervolume to what was measured:

- one measured objective and one known price: in closed form (``hypervolume_gain.expected_gain``);
- otherwise by Thompson sampling: one joint draw of all measured objectives, and the hypervolume that it would add (E.
  Bradford, A. Schweidtmann and A. Lapkin, Efficient multiobjective optimization employing Gaussian processes, spectral
  sampling and a genetic algorithm (TSEMO), J. Glob. Optim. 71, 2018, without the spectral approximation).

A genome that was asked for and not told yet counts as measured with the value that is expected of it (kriging believer,
Ginsbourger, Le Riche and Carraro 2010). The candidates evolve: mutants and children of the front that was measured and
of the best candidates of the last round, and random genomes; asking the model costs microseconds each, so hundreds are
judged for every one that is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from ...errors import InvalidInput
from .decisions import Decisions, FloatArray, G
from .hypervolume_gain import expected_gain, gain
from .mixed_process import Inputs, MixedProcess
from .sampler import BaseSampler, Prices

Features: TypeAlias = Callable[[Sequence[G]], FloatArray]
"""Numbers that describe genomes: parameters, operations, scores of zero-cost proxies: [genomes, features]."""

_SCALED = 200  # random genomes
_REFIT = 1.15  # weights and variances are learned again when there are so many times more results


class ModelBased(BaseSampler[G]):
    """Bayesian optimization of a front.

    Args:
        decisions: what there is to decide.
        seed: of every draw.
        prices: objectives that are known without a measurement.
        features: what else is known of a genome, besides the logs of the prices.
        reference: worst values that count [objectives]; ``None``: the worst that was measured. One that follows the
            measured front would give nothing for a better network that is slower than all of the front.
        startup: random genomes before the first model.
        pool: candidates that the model judges for a batch; the better half stays for the next.

    Raises:
        InvalidInput: no random genomes come first, or the pool is empty.
    """

    name = "model_based"

    def __init__(
        self,
        decisions: Decisions[G],
        seed: int = 0,
        prices: Prices[G] | None = None,
        features: Features[G] | None = None,
        reference: FloatArray | None = None,
        startup: int = 20,
        pool: int = 500,
    ) -> None:
        super().__init__(decisions, seed, prices)
        if startup < 2 or pool < 2:
            raise InvalidInput(f"startup={startup}, pool={pool}; give 2 or more of each")
        self.features, self.reference, self.startup, self.pool = features, reference, startup, pool
        self._candidates: list[G] = []
        self._processes: list[MixedProcess] = []
        self._fitted = (0, 0)
        self._codes: dict[str, dict[object, int]] = {}
        self._described: dict[G, FloatArray] = {}
        self._scale: tuple[FloatArray, FloatArray] | None = None

    def ask(self, count: int) -> list[G]:
        """See ``Sampler.ask``."""
        genomes, values = self._usable()
        if len(self._asked) < self.startup or len(genomes) < 2:
            return super().ask(count)
        self._renew(genomes, values)
        found = self._best(genomes, values, count)
        self._asked |= dict.fromkeys(found)
        self._candidates = [each for each in self._candidates if each not in self._asked]
        return found if len(found) == count else [*found, *super().ask(count - len(found))]

    def _next(self) -> G | None:
        return self._random()

    def _best(self, genomes: list[G], values: FloatArray, count: int) -> list[G]:
        """A batch of candidates; sorts the candidates by what they were expected to add when the last was chosen."""
        if not self._candidates or count < 1:
            return []
        candidates, pending = self._candidates, [each for each in self._asked if each not in self.told]
        prices = np.zeros((len(candidates), 0)) if self.prices is None else self.prices(candidates)
        asked = values.shape[1] - prices.shape[1]
        inputs = self._inputs([*genomes, *pending, *candidates])
        wanted = inputs.rows(range(len(inputs) - len(candidates), len(inputs)))
        processes = self._models(inputs.rows(range(len(genomes))), values[:, :asked])
        reference = values.max(axis=0) if self.reference is None else self.reference
        if pending:
            waiting = inputs.rows(range(len(genomes), len(genomes) + len(pending)))
            at = np.zeros((len(pending), 0)) if self.prices is None else self.prices(pending)
            values = np.concatenate([values, np.column_stack([_expected(processes, waiting), at])])
        known = inputs.rows(range(len(genomes) + len(pending)))
        chosen: list[int] = []
        gains = np.zeros(len(candidates))
        if asked != 1 or prices.shape[1] != 1:
            processes = _conditioned(processes, known, values[:, :asked])
            drawn = [each.warp.backward(each.sample(wanted, self.draw, count)) for each in processes]
            believed = np.column_stack([_expected(processes, wanted), prices])
        for turn in range(min(count, len(candidates))):
            if asked == prices.shape[1] == 1:
                process = _conditioned(processes, known, values[:, :1])[0]
                gains = expected_gain(*process.predict(wanted), process.warp, prices[:, 0], values, reference)
                believed = np.column_stack([_expected([process], wanted), prices])
            else:
                gains = gain(np.column_stack([*(each[turn] for each in drawn), prices]), values, reference)
            gains[chosen] = -1.0
            chosen.append(int(np.argmax(gains)))
            known = known.joined(wanted.rows(chosen[-1:]))
            values = np.concatenate([values, believed[chosen[-1:]]])
        self._candidates = [candidates[int(index)] for index in np.argsort(-gains, kind="stable")]
        return [candidates[index] for index in chosen]

    def _models(self, inputs: Inputs, values: FloatArray) -> list[MixedProcess]:
        """A process for each measured objective, with what it has learned of the weights."""
        size, questions = len(inputs), inputs.answers.shape[1]
        again = size >= _REFIT * self._fitted[0] or questions != self._fitted[1]
        if again:
            self._fitted = size, questions
        learned = [None] * values.shape[1] if again else self._processes
        self._processes = [
            MixedProcess.fit(inputs, column, before) for column, before in zip(values.T, learned, strict=True)
        ]
        return self._processes

    def _renew(self, genomes: list[G], values: FloatArray) -> None:
        """Fill the candidates up: children of the front and of the best candidates, and random genomes."""
        import moocore

        front = [genomes[int(index)] for index in np.flatnonzero(moocore.is_nondominated(values))]
        best = [*front, *self._candidates[: len(front)]]
        found = dict.fromkeys(each for each in self._candidates[: self.pool // 2] if each not in self._asked)
        for turn in range(2 * self.pool):
            if len(found) >= self.pool:
                break
            made = self._child(front, best, turn % 5)
            if made not in self._asked:
                found[made] = None
        self._candidates = list(found)

    def _child(self, front: list[G], best: list[G], kind: int) -> G:
        """Two fifths near the front, a fifth near the best candidates, a fifth of two parents, a fifth random."""
        if kind == 0:
            return self.operators.random(self.draw)
        if kind == 1:
            first, second = (best[int(index)] for index in self.draw.integers(len(best), size=2))
            return self.operators.crossed(first, second, self.draw)
        parents = best if kind == 2 else front
        changes = 1 + int(self.draw.integers(2))
        return self.operators.mutated(parents[int(self.draw.integers(len(parents)))], self.draw, changes)

    def _inputs(self, genomes: list[G]) -> Inputs:
        """Answers by name, coded in the order in which they were first seen, and features."""
        answered = [self.decisions.answers(each) for each in genomes]
        for answers in answered:
            for name, value in answers.items():
                codes = self._codes.setdefault(name, {})
                codes.setdefault(value, len(codes))
        coded = [[codes[row[name]] if name in row else -1 for name, codes in self._codes.items()] for row in answered]
        new = [each for each in genomes if each not in self._described]
        if new:
            self._described.update(zip(new, self._features(new), strict=True))
        return Inputs(np.array(coded, dtype=np.int64), np.array([self._described[each] for each in genomes]))

    def _features(self, genomes: list[G]) -> FloatArray:
        """Standardized over random genomes: what is measured clusters, and is no measure of the space."""
        if self._scale is None:
            raw = self._raw([self.operators.random(self.draw) for _ in range(_SCALED)])
            deviation = raw.std(axis=0)
            self._scale = raw.mean(axis=0), np.where(deviation > 0, deviation, 1.0)
        return (self._raw(genomes) - self._scale[0]) / self._scale[1]

    def _raw(self, genomes: list[G]) -> FloatArray:
        known = [np.zeros((len(genomes), 0))]
        if self.features is not None:
            known.append(np.asarray(self.features(genomes), dtype=np.float64))
        if self.prices is not None:
            known.append(np.log(np.maximum(self.prices(genomes), 1e-300)))
        return np.concatenate(known, axis=1)


def _expected(processes: Sequence[MixedProcess], inputs: Inputs) -> FloatArray:
    """Medians of the measured objectives: [n, objectives]."""
    return np.column_stack([each.warp.backward(each.predict(inputs)[0]) for each in processes])


def _conditioned(processes: Sequence[MixedProcess], inputs: Inputs, values: FloatArray) -> list[MixedProcess]:
    """The same weights and variances with further results, or with values that are believed."""
    if len(inputs) == len(processes[0].inputs):
        return list(processes)
    return [MixedProcess.fit(inputs, column, each) for column, each in zip(values.T, processes, strict=True)]
