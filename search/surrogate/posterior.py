r"""Tables from the posterior of a fit: draws, and the repair that more precision is not predicted to be worse.

A draw follows Matheron's rule (Journel and Huijbregts 1978, Mining Geostatistics; Wilson et al. 2020,
arXiv:2002.09309): draw parameters and noise from the prior, then move them by what the measurements say of their
error, :math:`\eta + \Sigma \Psi^T K^{-1} (y - \Psi \eta - e)`. It needs no factorisation beyond that of the fit.

Repair: isotonic regression of the logs of each group along formats that are ordered in weights and activations, each
entry weighted by its posterior precision, so an entry that was never measured follows those that were. Where the data
say the opposite (the two entries differ by more than 2 posterior standard deviations) it is left.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from .scales import KINDS, SLOPE, VAGUE, WEIGHT, increments, linear_values
from .table import TableFit

FloatArray = NDArray[np.float64]
_SURE = 2.0  # standard deviations
_LEAST = 1e-9  # variance of an entry


def drawn_log_table(fit: TableFit, generator: np.random.Generator) -> FloatArray:
    """The log table of one draw from the posterior: [groups, formats]."""
    model, gaussian = fit.model, fit.gaussian
    drawn = prior_draw(fit, generator)
    noise = np.sqrt(gaussian.noise) * generator.standard_normal(len(gaussian.noise))
    wrong = linear_values(fit.features, drawn, model.slope) + noise
    moved = increments(fit.features, -gaussian.inverse @ wrong, model.slope, fit.scales)
    deviation = {name: drawn[name] + moved[name] for name in ("weights", "site", "format", "entry")}
    table = np.tensordot(model.weights + deviation["weights"], model.prior.logs, 1) + model.corrections
    if fit.corrected:
        table = table + deviation["site"][:, None] + deviation["format"] + deviation["entry"]
    drawn_table: FloatArray = table
    return drawn_table


def monotone_log_table(fit: TableFit, log_table: FloatArray) -> FloatArray:
    """A log table [groups, formats] repaired: finer is not worse, unless the data say so."""
    prior = fit.model.prior
    if not _violated(log_table, prior.groups.allowed, prior.runs):
        return log_table
    covariances = entry_covariances(fit)
    inverse = fit.gaussian.inverse
    repaired = log_table.copy()
    for group, allowed in enumerate(prior.groups.allowed):
        for run in prior.runs:
            columns = [column for column in run if allowed[column]]
            if len(columns) < 2 or not (np.diff(log_table[group, columns]) > 0).any():
                continue
            for part in _parts(fit, log_table[group], columns, covariances[group], group):
                rows = covariances[group, part]
                explained = np.einsum("fn,nm,fm->f", rows, inverse, rows, optimize=True)
                left = np.maximum(entry_variances(fit)[group, part] - explained, _LEAST)
                repaired[group, part] = isotonic_regression(
                    log_table[group, part], weights=1 / left, increasing=False
                ).x
    return repaired


def _parts(fit: TableFit, row: FloatArray, columns: list[int], covariances: FloatArray, group: int) -> list[list[int]]:
    """The columns cut where the finer format is surely worse."""
    parts = [[columns[0]]]
    for coarse, fine in pairwise(columns):
        difference = covariances[fine] - covariances[coarse]
        variance = difference_variance(fit, group, coarse, fine)
        variance -= float(difference @ fit.gaussian.inverse @ difference)
        if row[fine] - row[coarse] > _SURE * max(variance, 0.0) ** 0.5:
            parts.append([fine])
        else:
            parts[-1].append(fine)
    return parts


def _violated(log_table: FloatArray, allowed: NDArray[np.bool_], runs: tuple[tuple[int, ...], ...]) -> bool:
    for run in runs:
        best = np.full(len(log_table), np.inf)
        for column in run:
            offered = allowed[:, column]
            if (log_table[offered, column] > best[offered]).any():
                return True
            best = np.where(offered, np.minimum(best, log_table[:, column]), best)
    return False


def prior_draw(fit: TableFit, generator: np.random.Generator) -> dict[str, FloatArray]:
    """Deviations of all parameters from their prior means, drawn from the prior."""
    model, scales = fit.model, fit.scales
    sizes = {"weights": WEIGHT**0.5, "correlations": scales.pair} | {kind: scales.of(kind) for kind in KINDS}
    drawn = {name: size * generator.standard_normal(getattr(model, name).shape) for name, size in sizes.items()}
    drawn["intercept"] = np.asarray(VAGUE**0.5 * generator.standard_normal())
    drawn["slope"] = np.asarray(SLOPE**0.5 * generator.standard_normal())
    if not fit.corrected:
        drawn |= {name: np.zeros_like(drawn[name]) for name in (*KINDS, "correlations")}
    return drawn


def entry_covariances(fit: TableFit) -> FloatArray:
    """Prior covariance of every log entry of the table with the latent values of the points: [groups, formats, n]."""
    features, scales, logs = fit.features, fit.scales, fit.model.prior.logs
    found = WEIGHT * np.einsum("pgf,np->gfn", logs, features.weights)
    if fit.corrected:
        found = found + scales.site**2 * features.shares.T[:, None, :] + scales.format**2 * features.by_format.T
        found = found + scales.entry**2 * features.entries().transpose(1, 2, 0)
    scaled: FloatArray = fit.model.slope * found
    return scaled


def entry_variances(fit: TableFit) -> FloatArray:
    """Prior variance of every log entry of the table: [groups, formats]."""
    found: FloatArray = WEIGHT * (fit.model.prior.logs**2).sum(axis=0)
    return found + sum(fit.scales.of(kind) ** 2 for kind in KINDS) if fit.corrected else found


def difference_variance(fit: TableFit, group: int, one: int, other: int) -> float:
    """Prior variance of the difference of two log entries of a group."""
    logs = fit.model.prior.logs[:, group]
    found = WEIGHT * float(((logs[:, one] - logs[:, other]) ** 2).sum())
    return found + (2 * (fit.scales.format**2 + fit.scales.entry**2) if fit.corrected else 0.0)
