r"""``proxies: auto``: the measurements choose, or weight, the proxies that the rest of the search goes by.

A cheap set scores the space and shares the first rounds. What was measured then gives every proxy its Spearman
correlation at fixed size, :math:`\rho_p` (``rank_statistics.partial``: unlike tau over the pairs of the same size it
uses all measurements, and there are few; the correlation overall while there are fewer than eight). Candidates are
every proxy alone and their weighted sum

.. math:: s[l, f] = \sum_p w_p \, \frac{s_p[l, f]}{g_p}, \qquad w_p = \frac{\max(0, \rho_p)}{\sum_q \max(0, \rho_q)}

with :math:`g_p` the geometric mean of the magnitudes of the proxy's predictions for what was measured, so that no
unit outweighs another.
A sum of additive scores is additive, and interactions of pairs add up alike: the allocator solves it exactly. The
candidate with the largest rho is chosen; at a tie a single proxy goes before the sum, and an earlier one before a later
one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InvalidInput
from ..proxies import Sensitivity
from ..space import Configuration, SearchSpace
from .judged import judged
from .trust import TrustReport

AUTO = ("hessian_trace", "output_fisher", "delta_loss", "sqnr")
"""What ``auto`` scores: additive, at most a few passes over the calibration data."""

WEIGHTED = "weighted"
"""Name of the weighted sum among the sensitivities of a search."""

_TINY = 1e-300
_LEAST = 8  # measurements, for a correlation at fixed size


@dataclass(frozen=True)
class ProxyChoice:
    """What ``auto`` decided, and from what.

    Attributes:
        proxy: name of the chosen proxy, or ``weighted``.
        weights: of every proxy in the weighted sum; they add up to 1, or all are 0 if no proxy ranked better than
            chance.
        spearman: the rho that decided, of every candidate that has one.
        fixed_size: whether that rho is the one at fixed size.
        points: measured configurations that it rests on.
    """

    proxy: str
    weights: dict[str, float]
    spearman: dict[str, float]
    fixed_size: bool
    points: int

    @property
    def reason(self) -> str:
        """In words."""
        where = "at fixed size" if self.fixed_size else "overall"
        if not self.spearman:
            return f"{self.proxy}: the first, nothing could be ranked with {self.points} measurements"
        told = ", ".join(f"{name} {rho:.2f}" for name, rho in self.spearman.items())
        how = ""
        if self.proxy == WEIGHTED:
            how = " (" + " + ".join(f"{w:.2f} {name}" for name, w in self.weights.items() if w > 0) + ")"
        return f"{self.proxy}{how}: Spearman's rho {where} over {self.points} measurements: {told}"


def choose_proxy(
    space: SearchSpace,
    sensitivities: Mapping[str, Sensitivity],
    configurations: Sequence[Configuration],
    measured: Sequence[float],
) -> tuple[ProxyChoice, dict[str, Sensitivity]]:
    """Let measurements choose between proxies and their weighted sum.

    Args:
        space: sites and formats.
        sensitivities: by proxy; all additive.
        configurations: what was measured so far.
        measured: their quality, lower is better.

    Returns:
        The choice, and the sensitivities with the chosen one first (and the weighted sum where there is one).

    Raises:
        InvalidInput: a proxy only ranks, its scores cannot be added.
    """
    for name, scores in sensitivities.items():
        if not scores.additive:
            raise InvalidInput(f"proxy {name} only ranks; auto adds scores up: leave it out or name the proxies")
    if len(measured) < 3:
        first = next(iter(sensitivities))
        return ProxyChoice(first, dict.fromkeys(sensitivities, 0.0), {}, False, len(measured)), dict(sensitivities)
    singles = judged(space, sensitivities, configurations, measured, draws=0)
    known = any(singles.rows[name].spearman_fixed is not None for name in sensitivities)
    fixed = known and len(measured) >= _LEAST
    rhos = _rhos(singles, sensitivities, fixed)
    weights = _weights(sensitivities, rhos)
    candidates = dict(sensitivities)
    if sum(weight > 0 for weight in weights.values()) > 1:
        candidates[WEIGHTED] = _weighted(sensitivities, weights, configurations)
        rhos |= _rhos(judged(space, candidates, configurations, measured, draws=0), [WEIGHTED], fixed)
    chosen = max(candidates, key=lambda name: rhos.get(name, -1.0))
    choice = ProxyChoice(chosen, weights, rhos, fixed, len(measured))
    return choice, {chosen: candidates[chosen], **candidates}


def _rhos(report: TrustReport, names: Sequence[str] | Mapping[str, Sensitivity], fixed: bool) -> dict[str, float]:
    found = {name: report.rows[name].spearman_fixed if fixed else report.rows[name].spearman for name in names}
    return {name: estimate.value for name, estimate in found.items() if estimate is not None}


def _weights(names: Mapping[str, Sensitivity], rhos: Mapping[str, float]) -> dict[str, float]:
    positive = {name: max(0.0, rhos.get(name, 0.0)) for name in names}
    total = sum(positive.values())
    return {name: rho / total if total > 0 else 0.0 for name, rho in positive.items()}


def _weighted(
    sensitivities: Mapping[str, Sensitivity], weights: Mapping[str, float], configurations: Sequence[Configuration]
) -> Sensitivity:
    """The weighted sum of the tables, each divided by the geometric mean of the magnitudes of its predictions."""
    used = [(sensitivities[name], weight) for name, weight in weights.items() if weight > 0]
    values = np.zeros_like(used[0][0].values)
    pairs: dict[tuple[int, int], np.ndarray] = {}
    for scores, weight in used:
        predicted = np.array([scores.joint(each) for each in configurations])
        magnitudes = np.abs(predicted)  # a second-order form with its first-order term may fall below zero
        usual = float(np.exp(np.mean(np.log(magnitudes[magnitudes > _TINY]))))
        values = values + weight / usual * scores.values
        for sites, table in (scores.pairs or {}).items():
            pairs[sites] = pairs.get(sites, 0.0) + weight / usual * np.asarray(table)
    return replace(
        used[0][0],
        proxy=WEIGHTED,
        values=values,
        error=None,
        pairs=pairs or None,
        seconds=sum(scores.seconds for scores, _ in used),
        forward_passes=sum(scores.forward_passes for scores, _ in used),
        backward_passes=sum(scores.backward_passes for scores, _ in used),
    )
