r"""Fitness of a formula: how well it ranks configurations of the same size, on every network alike.

On one network it is the partial Spearman correlation of prediction and measurement given size (Conover 1999, section
5.4; ``rank_statistics.partial``),

.. math:: \rho = \frac{\rho_{xy} - \rho_{xz} \rho_{yz}}{\sqrt{(1 - \rho_{xz}^2)(1 - \rho_{yz}^2)}},

the correlation of what is left of the ranks of prediction x and measurement y when those of the size z are taken out.
The residual of y does not depend on the formula and is computed once; a formula costs one sort and two dot products.

Over networks k and folds j of their configurations (alike in size, ranked apart)

.. math::
    F = \bar\rho - \lambda \sqrt{\operatorname{Var}_k \rho_k + \operatorname{mean}_k \operatorname{Var}_j \rho_{kj}}.

Where the size determines the prediction or the measurement, the formula knows nothing beyond it: :math:`\rho = 0`.

An allocator takes only what is predicted best. So with a share :math:`w` of the extremes every :math:`\rho` above is
:math:`(1 - w) \rho + w\, \tau`, with :math:`\tau` the standing of the configurations that are predicted best among
those of about their size (``extremes``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InvalidInput
from .bench_data import BenchData, FloatArray, IntArray
from .extremes import Extremes
from .ranks import average_ranks, dense_ranks

_SINGULAR = 1e-9  # a partial correlation divides by 1 - rho^2


@dataclass(frozen=True)
class Fitness:
    """How well a formula ranks.

    Attributes:
        value: F.
        orientation: 1: a large value of the formula means a large loss; -1: a small loss.
        correlations: rho of every network.
        folds: rho of every fold of every network.
    """

    value: float
    orientation: int
    correlations: tuple[float, ...]
    folds: tuple[tuple[float, ...], ...]


class FixedSizeRanks:
    """The partial Spearman correlation on one network, prepared for many formulas.

    Args:
        bench: its configurations.
        folds: how many folds; 0: none.
        extremes: share of the configurations predicted best in what is called the correlation.

    Raises:
        InvalidInput: too few configurations for the folds, or a share that is none.
    """

    def __init__(self, bench: BenchData, folds: int, extremes: float = 0.0) -> None:
        if not 0 <= extremes <= 1:
            raise InvalidInput(f"extremes={extremes}; it is a share, between 0 and 1")
        if folds and len(bench) < 6 * folds:
            raise InvalidInput(
                f"bench {bench.name}: {len(bench)} configurations in {folds} folds; give at least {6 * folds}"
            )
        self._bench = bench
        by_size = np.argsort(bench.sizes, kind="stable")
        parts = [np.arange(len(bench)), *(np.sort(by_size[fold::folds]) for fold in range(folds))]
        self._parts = [_Part(bench, part, extremes) for part in parts]

    def correlations(self, table: FloatArray) -> FloatArray:
        """Rho on all configurations, then on each fold: [1 + folds].

        Args:
            table: predicted loss [sites, formats]; what no configuration takes may be NaN.
        """
        return self.of(self._bench.predict(table))

    def of(self, predicted: FloatArray) -> FloatArray:
        """As ``correlations``, of the predictions themselves [points]."""
        levels = dense_ranks(predicted)
        return np.array([part.rho(levels) for part in self._parts])


class _Part:
    """Some configurations of a network, with the ranks of size and measurement."""

    def __init__(self, bench: BenchData, points: IntArray, extremes: float) -> None:
        self._share = extremes
        self._extremes = Extremes(bench.sizes[points], bench.measured[points]) if extremes else None
        self._all = len(points) == len(bench)
        self._points = points
        self._size = _standard(average_ranks(dense_ranks(bench.sizes[points])))
        measured = _standard(average_ranks(dense_ranks(bench.measured[points])))
        shared = float(measured @ self._size)
        free = 1 - shared * shared
        self._measured = (measured - shared * self._size) / np.sqrt(free) if free > _SINGULAR else np.zeros(len(points))

    def rho(self, levels: IntArray) -> float:
        """The partial correlation with predictions of these levels (dense ranks over all points)."""
        own = average_ranks(levels if self._all else levels[self._points])
        ranks = _standard(own)
        with_size = float(ranks @ self._size)
        free = 1 - with_size * with_size
        rho = float(ranks @ self._measured) / np.sqrt(free) if free > _SINGULAR else 0.0
        if self._extremes is None:
            return rho
        return (1 - self._share) * rho + self._share * self._extremes.standing(own)


class FitnessFunction:
    """The fitness of tables on several networks.

    Args:
        benches: the configurations that formulas are chosen on, one bench a network.
        folds: of the configurations of each network.
        penalty: lambda, what a standard deviation costs.
        extremes: w, share of the configurations predicted best.
    """

    def __init__(
        self, benches: Sequence[BenchData], folds: int = 4, penalty: float = 0.5, extremes: float = 0.0
    ) -> None:
        if penalty < 0:
            raise InvalidInput(f"penalty={penalty}; it must not be negative")
        self.penalty = penalty
        self.networks = [FixedSizeRanks(bench, folds, extremes) for bench in benches]

    def __call__(self, correlations: Sequence[FloatArray], orientation: int = 1) -> Fitness:
        """From the correlations of every network, see ``FixedSizeRanks.correlations``.

        Args:
            correlations: of every network, of predicted losses.
            orientation: what made losses of the formula's values; kept, not applied.
        """
        found = np.stack(list(correlations))
        whole, folds = found[:, 0], found[:, 1:]
        between = float(whole.var(ddof=1)) if len(whole) > 1 else 0.0
        within = float(folds.var(axis=1, ddof=1).mean()) if folds.shape[1] > 1 else 0.0
        value = float(whole.mean()) - self.penalty * float(np.sqrt(between + within))
        return Fitness(value, orientation, tuple(whole.tolist()), tuple(tuple(row) for row in folds.tolist()))

    def of(self, predictions: Sequence[FloatArray]) -> Fitness:
        """Of the predicted losses on every network, each [points]."""
        return self([ranks.of(each) for ranks, each in zip(self.networks, predictions, strict=True)])


def _standard(ranks: FloatArray) -> FloatArray:
    """With mean 0 and norm 1; zeros where all are tied."""
    centred: FloatArray = ranks - ranks.mean()
    norm = float(np.sqrt(centred @ centred))
    return centred / (norm or 1.0)
