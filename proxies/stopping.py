r"""When enough random probes were drawn: when no site that matters for the decision is known too badly.

What an allocator decides with losses v[l, f] is, whatever its budget, close to the answer for some Lagrange multiplier
lambda on the bits: each site takes the format with the least :math:`v[l, f] + \lambda b[l, f]`, with b its elements
times the bits of its weights. Losses are :math:`v[l, f] = \sum_c t_c[l] E_c[l, f]` with estimated traces t_c (weights,
activations) and known squared errors E_c. At one lambda a site with best format f is undecided if for some other g

.. math::
    \Delta = v[l, g] + \lambda b[l, g] - v[l, f] - \lambda b[l, f] < z \Bigl(
        \sum_c \operatorname{SE}(t_c[l])^2 (E_c[l, g] - E_c[l, f])^2 \Bigr)^{1/2}

because the errors of a site's formats come from the same trace and are fully correlated. The multipliers are those
whose answers spread evenly over the average bits that the space offers, so that every budget counts alike.

A probe that measures the sum over the sites, or that stops when the mean stops moving, tells nothing about the sites.
"""

from __future__ import annotations

import numpy as np

_CANDIDATES = 256


def multipliers(losses: np.ndarray, bits: np.ndarray, budgets: int) -> np.ndarray:
    """Lagrange multipliers whose answers spread evenly over the average bits.

    Args:
        losses: [sites, formats]; NaN where a format is not offered.
        bits: [sites, formats], of the whole weight.
        budgets: how many.

    Returns:
        At most ``budgets`` distinct multipliers, ascending; none where every site has one format, or no loss depends
        on the bits.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = (losses[:, :, None] - losses[:, None, :]) / (bits[:, None, :] - bits[:, :, None])
    slopes = slopes[np.isfinite(slopes) & (slopes > 0)]
    if not slopes.size:
        return np.zeros(0)
    candidates = np.geomspace(slopes.min() / 1.01, slopes.max() * 1.01, _CANDIDATES)
    total = np.array([_chosen(losses, bits, each)[1].sum() for each in candidates])
    wanted = np.linspace(total.min(), total.max(), budgets + 2)[1:-1]
    nearest = total[np.abs(total[:, None] - wanted).argmin(0)]
    # the middle of those with the same answer: the first would lie next to the change of some format
    return np.unique([candidates[np.flatnonzero(total == each)[np.sum(total == each) // 2]] for each in nearest])


def undecided(
    traces: np.ndarray, errors: np.ndarray, effects: np.ndarray, bits: np.ndarray, budgets: int, z: float
) -> np.ndarray:
    """Which sites could still change their format.

    Args:
        traces: [components, sites].
        errors: standard errors of the traces, same shape.
        effects: E, [components, sites, formats]; NaN where a format is not offered.
        bits: [sites, formats], of the whole weight.
        budgets: how many multipliers are looked at.
        z: standard errors that a decision has to clear.

    Returns:
        bool [sites].
    """
    losses = (traces[:, :, None] * effects).sum(0)
    found = np.zeros(traces.shape[1], dtype=bool)
    for multiplier in multipliers(losses, bits, budgets):
        best, _ = _chosen(losses, bits, multiplier)
        cost = losses + multiplier * bits
        margin = cost - np.take_along_axis(cost, best[:, None], 1)
        difference = effects - np.take_along_axis(effects, np.broadcast_to(best[None, :, None], (*errors.shape, 1)), 2)
        with np.errstate(invalid="ignore"):
            spread = z * np.sqrt(np.nansum((errors[:, :, None] * difference) ** 2, axis=0))
        found |= (margin < spread).any(1)
    return found


def relative_errors(traces: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Standard error over absolute value; 0 where the error is 0, infinite for a trace of 0 with an error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(errors > 0, errors / np.abs(traces), 0.0)


def _chosen(losses: np.ndarray, bits: np.ndarray, multiplier: float) -> tuple[np.ndarray, np.ndarray]:
    """Each site's format at a multiplier, and its bits: [sites], [sites]."""
    cost = np.where(np.isnan(losses), np.inf, losses + multiplier * bits)
    best = cost.argmin(1)
    return best, np.take_along_axis(bits, best[:, None], 1)[:, 0]
