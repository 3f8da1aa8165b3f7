r"""Rank ensembles: several proxies vote on a pool of networks.

.. math:: s_i = \sum_p \mathrm{rank}_p(i)

with the rank of network i among the pool under proxy p (1 is the worst, ties by average). TE-NAS (arXiv:2102.11535,
section 3.3) ranks so by its two halves; Abdelfattah et al. 2021 (arXiv:2101.08134, section 3.2) let proxies vote. A sum
of ranks needs no common scale; it has a meaning only within its pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ...errors import InvalidInput, NonFiniteOutput

if TYPE_CHECKING:
    import pandas as pd

ENSEMBLES: dict[str, tuple[str, ...]] = {
    "ensemble": ("nwot", "synflow", "jacov"),
    "te_nas": ("ntk", "linear_regions"),
}
"""The ensembles that ship, by name: ``ensemble`` is the default."""


def rank_sum(scores: pd.DataFrame | Mapping[str, NDArray[np.float64]], proxies: Sequence[str]) -> NDArray[np.float64]:
    """Sum of the ranks of every network: float64 [networks], higher is better.

    Args:
        scores: a column a proxy [networks], higher is better; minus infinity is the worst.
        proxies: whose ranks are added.

    Raises:
        InvalidInput: no proxy, or one without scores.
        NonFiniteOutput: a score is NaN.
    """
    if not proxies:
        raise InvalidInput("an ensemble needs one proxy or more")
    total: NDArray[np.float64] | None = None
    for name in proxies:
        if name not in scores:
            raise InvalidInput(f"the ensemble wants the scores of {name!r}, which are not there")
        values = np.asarray(scores[name], dtype=np.float64)
        if np.isnan(values).any():
            raise NonFiniteOutput(f"a score of {name} is NaN; a network that a proxy cannot score is minus infinity")
        ranks: NDArray[np.float64] = rankdata(values)
        total = ranks if total is None else total + ranks
    assert total is not None
    return total
