"""The surrogate: it is refitted after every round, and grows only as flexible as the measurements pay for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from .conformal import Coverage
from .cross_fit import CrossFit, cross_fit
from .fitted import Fitted, Kind
from .latent import Latent
from .monotone import MonotoneMap, left_out_residuals
from .pairwise import chosen_pairs
from .posterior import monotone_log_table
from .prior import Prior
from .table import FREEDOM, TableFit, fit_table
from .threads import one_thread

if TYPE_CHECKING:
    from ..problem import Problem
    from ..proposers.proposer import Evaluated

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_FEW = 5  # points below which only the intercept moves much: the prior and a power law
_PAIRS_FROM = 40  # points from which pairs are tried
_MAP_FROM = 30  # points from which an isotonic map is tried
_GAIN = 0.02  # in mean log predictive density: what a ceiling must be better by
_MARGIN: dict[Kind, float] = {"prior": 0.0, "map": 0.0, "table": 0.02, "pairs": 0.04}  # likewise of flexible models
_BEND = 0.95  # share of the left-out error that an isotonic map must leave at most


class Surrogate:
    """Learns from everything measured; the scores of the proxies are its prior.

    Args:
        problem: space and scores; all its proxies are used.
        float_quality: quality of the float model.
        seed: of the division into folds.
        coverage: asked of the intervals.

    Raises:
        InvalidInput: the float quality is not finite, or no coverage.
    """

    def __init__(self, problem: Problem, float_quality: float, seed: int = 0, coverage: float = 0.9) -> None:
        if not math.isfinite(float_quality):
            raise InvalidInput(f"float_quality={float_quality}; measure the float model first")
        self.problem = problem
        self.float_quality = float_quality
        self.seed = seed
        self.coverage = Coverage.of(coverage)
        self.fitted: Fitted | None = None
        self._prior = Prior.of(problem)
        self._known: set[bytes] = set()

    @one_thread()
    def fit(self, evaluated: Sequence[Evaluated]) -> Fitted:
        """Refit to all measurements so far.

        What was measured since the last fit tests its intervals first. Estimates (``Evaluated.error``) enter with
        their standard error as noise; they test nothing and fix no scale.

        Args:
            evaluated: everything measured or estimated, each configuration once, in the order of proposal.

        Returns:
            The fitted surrogate.

        Raises:
            InvalidInput: nothing was measured, or a quality or an error is not finite.
        """
        exact = [found for found in evaluated if found.error == 0]
        if not exact:
            raise InvalidInput("the surrogate is fitted to measurements; give at least one")
        self._test(exact)
        genes = self._prior.groups.contract(np.stack([found.choice for found in evaluated]))
        quality = np.array([found.quality for found in evaluated])
        error = np.array([found.error for found in evaluated])
        if not np.isfinite([quality, error]).all() or (error < 0).any():
            raise InvalidInput("a quality is NaN or infinite, or a standard error is no number of at least 0")
        scale = Latent.of(self.float_quality, [found.measurement for found in exact])
        latent, simple = self._scaled(scale, genes, quality, error)
        measured = simple.latent
        kind, candidates, fit, cross = self._chosen(genes, simple)
        left_out = measured - fit.gaussian.left_out()[0] if cross is None else cross.predicted
        bend = _bend(left_out[error == 0], measured[error == 0])
        self.fitted = Fitted(
            self.problem,
            kind,
            latent,
            len(evaluated),
            self.coverage,
            candidates,
            bend(left_out),
            measured,
            fit,
            cross,
            bend,
            monotone_log_table(fit, fit.model.log_table()),
        )
        return self.fitted

    def _test(self, evaluated: Sequence[Evaluated]) -> None:
        """Compare the last predictions with what was measured since."""
        fresh = [found for found in evaluated if found.choice.tobytes() not in self._known]
        if self.fitted is not None and fresh:
            told = self.fitted.predict(np.stack([found.choice for found in fresh]))
            quality = np.array([found.quality for found in fresh])
            self.coverage = self.coverage.after((told.low <= quality) & (quality <= told.high))
        self._known |= {found.choice.tobytes() for found in fresh}

    def _scaled(
        self, scale: Latent, genes: IntArray, quality: FloatArray, error: FloatArray
    ) -> tuple[Latent, TableFit]:
        """The scale on which scores and a power law predict left-out points best, and that fit."""
        exact = error == 0
        tried = scale.saturating(quality) if exact.sum() >= 2 * _FEW else [scale]
        told = [each.estimated(quality, error) for each in tried]
        fits = [fit_table(self._prior, genes, latent, errors=errors, corrected=False) for latent, errors in told]
        density = [
            fit.gaussian.left_out_density(FREEDOM, exact) + float(each.log_slope(quality[exact]).mean())
            for each, fit in zip(tried, fits, strict=True)
        ]
        best = int(np.argmax(np.array(density) - np.array([0.0, *[_GAIN] * (len(tried) - 1)])))
        return tried[best], fits[best]

    def _chosen(self, genes: IntArray, simple: TableFit) -> tuple[Kind, dict[str, float], TableFit, CrossFit | None]:
        """The most flexible model that predicts points it did not see better than the simpler ones."""
        if len(genes) < _FEW:
            return "prior", {}, simple, None
        points: dict[str, Any] = {"latent": simple.latent, "errors": simple.errors}
        fits: dict[Kind, TableFit] = {"map": simple, "table": fit_table(self._prior, genes, **points)}
        crossed = {kind: cross_fit(fit, seed=self.seed) for kind, fit in fits.items()}
        told = crossed["map"].told  # an estimate that is all error tells no model from another
        if len(genes) >= _PAIRS_FROM and crossed["table"].density(told) > crossed["map"].density(told):
            pairs = chosen_pairs(fits["table"])
            fits["pairs"] = fit_table(self._prior, genes, pairs=pairs, **points)
            crossed["pairs"] = cross_fit(fits["pairs"], seed=self.seed)
        density = {kind: cross.density(told) for kind, cross in crossed.items()}
        best = max(density, key=lambda kind: density[kind] - _MARGIN[kind])
        return best, {str(kind): value for kind, value in density.items()}, fits[best], crossed[best]


def _bend(predicted: FloatArray, measured: FloatArray) -> MonotoneMap:
    """A monotone map of the left-out predictions, if it predicts left-out points better."""
    if len(measured) < _MAP_FROM:
        return MonotoneMap.identity()
    bent = float(np.mean(np.abs(left_out_residuals(predicted, measured))))
    if bent < _BEND * float(np.mean(np.abs(measured - predicted))):
        return MonotoneMap.fit(predicted, measured)
    return MonotoneMap.identity()
