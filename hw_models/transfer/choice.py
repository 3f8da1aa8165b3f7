r"""Which shapes to measure next: those whose measurement leaves the least variance over everything asked.

I-optimal design, greedily: with C the covariance that the measurements so far leave, candidate j lowers the summed
variance of the targets by

.. math::
    \Delta_j = \frac{\sum_i C_{ij}^2}{C_{jj} + \sigma^2},

and C is then downdated by the chosen one (a Cholesky step). The covariance of a Gaussian process does not depend on
the measured values, so many shapes can be chosen at once; choosing in rounds lets what was measured re-learn the
amplitudes and the law in between (Cohn 1996; Krause, Singh & Guestrin 2008).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from ..devices import Device
from ..gemm import Gemms, MeasuredGemms
from ..law import Floats
from .process import Process
from .source import Sources, check_sizes

#: Candidates and targets that are looked at; of more, a random part.
_CANDIDATES = 1500
_TARGETS = 900
#: Most measurements that a refusal counts ahead.
AHEAD = 300


def next_shapes(
    sources: Mapping[str, MeasuredGemms] | Sources,
    device: Device,
    candidates: Gemms,
    samples: MeasuredGemms | None = None,
    count: int = 20,
    *,
    targets: Gemms | None = None,
    cost: Floats | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Indices of the candidates to measure next, best first, each at most once.

    Args:
        sources: dense tables of other devices by name, or what ``Sources.of`` made of them.
        device: the data sheet of the new device.
        candidates: what could be measured.
        samples: what was measured on the new device already.
        count: how many to choose.
        targets: what will be asked; by default the candidates.
        cost: of measuring each candidate, such as its seconds, > 0 [candidates]: the gain is divided by it, so cheap
            kernels come first.
        seed: for the random part of long lists.

    Returns:
        int64 array [min(count, candidates)].

    Raises:
        InvalidInput: no candidates, a count below 1, a cost that is not positive, or as ``adapt``.
        NotMeasured: the device has no arithmetic for a format.
    """
    from .adapt import posterior_process

    if not len(candidates) or count < 1:
        raise InvalidInput(f"{len(candidates)} candidates and a count of {count}: both must be at least 1")
    if cost is not None and (len(cost) != len(candidates) or not np.all(cost > 0)):
        raise InvalidInput(f"cost must be one positive number for each of the {len(candidates)} candidates")
    check_sizes(candidates, "candidates")
    generator = np.random.default_rng(seed)
    asked = candidates if targets is None else targets
    process = posterior_process(sources, device, samples, (candidates, asked), seed)
    offered = generator.permutation(len(candidates))[: max(_CANDIDATES, count)]
    wanted = generator.permutation(len(asked))[:_TARGETS]
    steps = _greedy(process, candidates.take(offered), asked.take(wanted), None if cost is None else cost[offered])
    chosen = [index for _, (index, _) in zip(range(count), steps, strict=False)]
    return offered[np.array(chosen, dtype=np.int64)]


def needed(process: Process, asked: Gemms, widest: float) -> int | None:
    """How many measurements among the asked products bring all deviations under ``widest``; ``None`` beyond ``AHEAD``.

    Args:
        process: the posterior so far.
        asked: the products in question.
        widest: the largest standard deviation of log t that is good enough.
    """
    some = asked.take(np.random.default_rng(0).permutation(len(asked))[:_TARGETS])
    for count, (_, variance) in enumerate(_greedy(process, some, some, None), start=1):
        if np.sqrt(variance.max() + process.amplitudes.noise) <= widest:
            return count
        if count == AHEAD:
            break
    return None


def _greedy(process: Process, candidates: Gemms, targets: Gemms, cost: Floats | None) -> Iterator[tuple[int, Floats]]:
    """Yield the next best candidate and the variances that the targets keep after it."""
    offered, wanted = (
        process.prior.features(process.prior.shapes(gemms), process.theta) for gemms in (candidates, targets)
    )
    among = process.remaining(offered, offered)
    across = process.remaining(wanted, offered)
    kept = _variances(process, targets)
    price = np.ones(len(candidates)) if cost is None else cost
    free = np.ones(len(candidates), dtype=bool)
    for _ in range(len(candidates)):
        own = np.maximum(np.diag(among), 0.0) + process.amplitudes.noise
        gain = np.where(free, (across**2).sum(0) / own / price, -1.0)
        best = int(gain.argmax())
        free[best] = False
        column, row = across[:, best] / own[best], among[best].copy()
        kept = np.maximum(kept - across[:, best] * column, 0.0)
        across -= np.outer(column, row)
        among -= np.outer(row, row) / own[best]
        yield best, kept


def _variances(process: Process, gemms: Gemms) -> Floats:
    _, deviation = process.posterior(gemms)
    result: Floats = np.maximum(deviation**2 - process.amplitudes.noise, 0.0)
    return result
