r"""What a measurement is expected to add to a front, where the quality is log-normal and the price is known.

With the best value :math:`h(p)` measured at prices of at most p, or the reference, a candidate of price c adds the
strip between the front and its value e (Emmerich, Deutz and Klinkenberg, Hypervolume-based expected improvement, IEEE
CEC 2011, with one certain objective):

.. math:: E[\Delta] = \sum_k v_k(c)\, E[(h_k - e)^+], \quad
          E[(h - e)^+] = (h - l)\,\Phi(d) - e^{\mu + \sigma^2 / 2}\,\Phi(d - \sigma), \quad
          d = \frac{\log(h - l) - \mu}{\sigma}

where :math:`\log(e - l) \sim N(\mu, \sigma^2)`: the price of a put option (Black and Scholes 1973, equation 13, without
interest), in the units of the objectives, so that the hypervolume that counts is the one that is reported.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from .decisions import FloatArray
from .mixed_process import Warp


def expected_shortfall(levels: FloatArray, mean: FloatArray, deviation: FloatArray, warp: Warp) -> FloatArray:
    """E[(h - e)+] for levels h [k] and values e whose image under the warp is normal [n]: [n, k]."""
    location = (warp.mean + warp.deviation * mean)[:, None]
    spread = np.maximum(warp.deviation * deviation, 1e-12)[:, None]
    strike = np.maximum(levels - warp.low, 1e-300)[None, :]
    at = (np.log(strike) - location) / spread
    found: FloatArray = strike * ndtr(at) - np.exp(location + spread**2 / 2) * ndtr(at - spread)
    return np.maximum(found, 0.0)


def expected_gain(
    mean: FloatArray,
    deviation: FloatArray,
    warp: Warp,
    prices: FloatArray,
    measured: FloatArray,
    reference: FloatArray,
) -> FloatArray:
    """Expected hypervolume that each candidate adds.

    Args:
        mean: of the quality on the scale of the warp: [n].
        deviation: likewise its standard deviation: [n].
        warp: the scale.
        prices: of the candidates, known: [n].
        measured: quality and price of what was measured: [m, 2].
        reference: worst quality and highest price that count: [2].

    Returns:
        In units of quality times price: [n].
    """
    levels, starts, ends = _stairs(measured, reference)
    widths = np.maximum(ends[None, :] - np.maximum(starts[None, :], prices[:, None]), 0.0)
    found: FloatArray = (widths * expected_shortfall(levels, mean, deviation, warp)).sum(axis=1)
    return found


def gain(points: FloatArray, measured: FloatArray, reference: FloatArray) -> FloatArray:
    """Hypervolume that each of some certain points would add alone, any number of objectives.

    Args:
        points: the candidates: [n, objectives].
        measured: what there is: [m, objectives].
        reference: worst values that count: [objectives].

    Returns:
        In units of the objectives' product: [n].
    """
    import moocore

    inside = measured[(measured < reference).all(axis=1)]
    front = inside[moocore.is_nondominated(inside)] if len(inside) else inside
    found = np.zeros(len(points))
    promising = (points < reference).all(axis=1)
    dominated: NDArray[np.bool_] = np.all(front[None] <= points[:, None], axis=2)
    promising &= ~dominated.any(axis=1)
    volume = moocore.Hypervolume(ref=reference)
    before = volume(front) if len(front) else 0.0
    for index in np.flatnonzero(promising):
        found[index] = volume(np.concatenate([front, points[index : index + 1]])) - before
    return found


def _stairs(measured: FloatArray, reference: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The best value, and from which price to which it is the best: [k] each."""
    order = np.lexsort((measured[:, 0], measured[:, 1]))
    best = np.minimum(np.minimum.accumulate(np.concatenate([reference[:1], measured[order, 0]])), reference[0])
    starts = np.concatenate([[-np.inf], measured[order, 1]])
    steps = np.concatenate([[True], best[1:] < best[:-1]])
    starts = starts[steps]
    ends = np.minimum(np.concatenate([starts[1:], [np.inf]]), reference[1])
    return best[steps], starts, ends
