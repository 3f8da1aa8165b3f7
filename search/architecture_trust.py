r"""The trust report of architecture proxies: how well each foretold which networks are good once trained.

For every zero-cost proxy, against the same trained networks: Spearman's rho and Kendall's tau with bootstrap intervals
(``rank_statistics.py``), the partial rho at a fixed number of parameters, rho *within the best tenth* by accuracy,
where most proxies collapse, and the *regret*: the accuracy that is missed by training only the k networks that the
proxy ranks best. Three baselines stand beside: ``params`` and ``flops`` (the more, the better) and ``random``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ..errors import InvalidInput
from .rank_statistics import Estimate, FloatArray, expected_minimum, kendall, partial, resamples, spearman

if TYPE_CHECKING:
    import pandas as pd

BASELINES = ("params", "flops", "random")
_REGRET_DRAWS = 200
_ORDERS = 200  # random ones
_LEAST_BEST = 5  # networks among the best for a rho


@dataclass(frozen=True)
class ArchitectureTrust:
    """One row of the report; ``None`` where the networks do not allow a statement.

    Attributes:
        baseline: whether it is no proxy but what anybody can guess.
        spearman: Spearman's rho of score and accuracy.
        kendall: Kendall's tau-b.
        spearman_fixed: partial Spearman's rho at a fixed number of parameters.
        spearman_best: Spearman's rho among the best networks, of which there must be five.
        regret: accuracy points missed by training only the ``picks`` networks that are ranked best.
        seconds: of scoring a network, mean.
    """

    baseline: bool
    spearman: Estimate | None
    kendall: Estimate | None
    spearman_fixed: Estimate | None
    spearman_best: Estimate | None
    regret: Estimate | None
    seconds: float


@dataclass(frozen=True)
class ArchitectureTrustReport:
    """All rows, and what they rest on.

    Attributes:
        rows: by proxy, then the baselines.
        networks: trained ones.
        best: of them in the best share.
        picks: networks that ``regret`` trains.
    """

    rows: dict[str, ArchitectureTrust]
    networks: int
    best: int
    picks: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @property
    def table(self) -> pd.DataFrame:
        """A row a proxy; each statistic with ``_low`` and ``_high``, NaN where there is none."""
        import pandas as pd

        rows: dict[str, dict[str, Any]] = {}
        for name, row in self.rows.items():
            rows[name] = {"baseline": row.baseline}
            for column in ("spearman", "kendall", "spearman_fixed", "spearman_best", "regret"):
                estimate: Estimate | None = getattr(row, column)
                value = (np.nan,) * 3 if estimate is None else (estimate.value, estimate.low, estimate.high)
                rows[name] |= dict(zip((column, f"{column}_low", f"{column}_high"), value, strict=True))
            rows[name]["seconds"] = row.seconds
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("proxy")


def architecture_trust_report(
    scores: Mapping[str, FloatArray],
    accuracy: FloatArray,
    params: FloatArray,
    flops: FloatArray,
    *,
    picks: int = 10,
    share: float = 0.1,
    seconds: Mapping[str, float] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> ArchitectureTrustReport:
    """Judge scores of untrained networks by the accuracy of the trained ones.

    Args:
        scores: by proxy: [networks], higher is better; minus infinity is the worst.
        accuracy: in percent [networks], higher is better.
        params: parameters [networks].
        flops: floating-point operations [networks].
        picks: k, networks that would be trained.
        share: of the networks that count as the best.
        seconds: by proxy: mean time of a network.
        draws: bootstrap resamples.
        seed: of the resamples and the random orders.

    Returns:
        A row for every proxy and baseline; the proxies ``params`` and ``flops`` are the baselines of these names.

    Raises:
        InvalidInput: a proxy is called ``random``, an array has another length, holds NaN, or ``picks`` or ``share``
            do not fit the networks.
    """
    count, took = len(accuracy), seconds or {}
    _check(scores, accuracy, params, flops, picks, share)
    counts = resamples(count, draws, seed)
    best = accuracy >= np.sort(accuracy)[-max(1, round(share * count))]
    within, enough = resamples(int(best.sum()), draws, seed), best.sum() >= _LEAST_BEST
    order = np.random.default_rng(seed)
    pools = [np.unique(order.integers(count, size=count)) for _ in range(_REGRET_DRAWS)]
    sizes = rankdata(params)
    with_size = spearman(accuracy, sizes, counts)

    def row(values: FloatArray, name: str) -> ArchitectureTrust:
        ranks = rankdata(values)  # minus infinity is a rank like others
        rho = spearman(ranks, accuracy, counts)
        missed = [_missed(ranks, accuracy, picks), *(_missed(ranks[p], accuracy[p], picks) for p in pools)]
        return ArchitectureTrust(
            baseline=name in BASELINES,
            spearman=Estimate.of(rho),
            kendall=Estimate.of(kendall(ranks, accuracy, counts)),
            spearman_fixed=Estimate.of(partial(rho, spearman(ranks, sizes, counts), with_size)),
            spearman_best=Estimate.of(spearman(ranks[best], accuracy[best], within)) if enough else None,
            regret=Estimate.of(np.array(missed)),
            seconds=float(took.get(name, 0.0)),
        )

    judged = {name: values for name, values in scores.items() if name not in BASELINES}
    rows = {name: row(np.asarray(values, dtype=np.float64), name) for name, values in judged.items()}
    for name, values in {"params": params, "flops": flops}.items():
        rows[name] = row(np.asarray(values, dtype=np.float64), name)
    rows["random"] = _random(accuracy, sizes, best, picks, order)
    return ArchitectureTrustReport(rows, count, int(best.sum()), picks)


def _random(
    accuracy: FloatArray, sizes: FloatArray, best: NDArray[np.bool_], picks: int, order: np.random.Generator
) -> ArchitectureTrust:
    """What random orders reach: the expectation, with the interval over orders."""
    count, once, few = len(accuracy), np.ones((1, len(accuracy))), np.ones((1, int(best.sum())))
    size = spearman(accuracy, sizes, once)
    drawn: list[tuple[float, ...]] = []
    for _ in range(_ORDERS):
        ranks = order.permutation(count).astype(np.float64)
        rho = spearman(ranks, accuracy, once)
        fixed = partial(rho, spearman(ranks, sizes, once), size)
        inside = spearman(ranks[best], accuracy[best], few) if len(few[0]) >= _LEAST_BEST else np.array([np.nan])
        found = (rho, kendall(ranks, accuracy, once), fixed, inside)
        drawn.append((*(float(each[0]) for each in found), _missed(ranks, accuracy, picks)))
    expected = (0.0, 0.0, 0.0, 0.0, float(accuracy.max() + expected_minimum(-accuracy, picks)))
    columns = np.array([expected, *drawn]).T
    told = [Estimate.of(each) if np.isfinite(each).all() else None for each in columns]
    return ArchitectureTrust(True, told[0], told[1], told[2], told[3], told[4], seconds=0.0)


def _missed(ranks: FloatArray, accuracy: FloatArray, picks: int) -> float:
    """Best accuracy less the best among the first by rank; of tied ones, the expectation over their order."""
    picks = min(picks, len(ranks))
    threshold = np.sort(ranks)[-picks]
    sure, tied = accuracy[ranks > threshold], accuracy[ranks == threshold]
    bound = float(sure.max()) if len(sure) else -np.inf
    return max(0.0, float(accuracy.max() + expected_minimum(-np.maximum(tied, bound), picks - len(sure))))


def _check(
    scores: Mapping[str, FloatArray],
    accuracy: FloatArray,
    params: FloatArray,
    flops: FloatArray,
    picks: int,
    share: float,
) -> None:
    if "random" in scores:
        raise InvalidInput("a proxy is called 'random', as a baseline of the trust report; register another name")
    for name, values in {**scores, "accuracy": accuracy, "params": params, "flops": flops}.items():
        if len(values) != len(accuracy) or np.isnan(values).any():
            raise InvalidInput(f"{name} must hold {len(accuracy)} numbers, one a network, none of them NaN")
    if not (1 <= picks < len(accuracy) and 0 < share <= 1):
        raise InvalidInput(
            f"give picks from 1 to {len(accuracy) - 1} and a share in (0, 1], got {picks} and {share} for "
            f"{len(accuracy)} networks"
        )
