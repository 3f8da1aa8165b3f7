r"""Honest judgement of a formula: on configurations that it was not chosen on, next to what it must beat.

For every network the configurations are resampled with replacement, the same resamples for all candidates (paired
bootstrap, Efron and Tibshirani 1993, sections 13 and 16). In each resample b every candidate has its partial
Spearman correlation at fixed size :math:`\rho_{kb}` on network k, averaged over networks; the intervals are percentile
intervals, and

.. math:: p = \frac{1 + \#\{b: \bar\rho_b(\text{formula}) \le \bar\rho_b(\text{rival})\}}{1 + B}

is the chance that the formula is no better than the rival. What is compared must have been chosen elsewhere, the
formula and the hand-made rival alike (``best_rival`` chooses on training data): the best of twenty proxies on the
judging data itself would be ahead by chance, just as the best of a thousand formulas.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...errors import InvalidInput
from ..rank_statistics import Estimate, kendall, partial, resamples, same_size, spearman, top_regret
from ..trust import TOLERANCE, TOP
from .bench_data import BenchData, FloatArray
from .fitness import FitnessFunction

DRAWS = 1000
_LEAST_PAIRS = 10  # of the same size, for a tau to be given


@dataclass(frozen=True)
class Standing:
    """How one candidate ranks the configurations of one network, or of several in the mean.

    Attributes:
        spearman_fixed: partial Spearman correlation at fixed size; 0 where the size determines the prediction.
        spearman: Spearman correlation overall.
        kendall_fixed: Kendall's tau-b over pairs of the same size; ``None`` with fewer than ten such pairs, and in the
            mean over networks.
        kendall: Kendall's tau-b overall; ``None`` in the mean over networks.
        regret: of measuring only the best predicted five; ``None`` where all are equally good, and in the mean.
    """

    spearman_fixed: Estimate
    spearman: Estimate
    kendall_fixed: Estimate | None = None
    kendall: Estimate | None = None
    regret: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A formula against a rival, paired.

    Attributes:
        rival: name.
        difference: mean over networks of the difference in correlation at fixed size, formula minus rival.
        chance: p, that the formula is no better.
        networks: the difference on every network.
    """

    rival: str
    difference: Estimate
    chance: float
    networks: dict[str, Estimate]

    @property
    def beaten(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.difference.low > 0


@dataclass(frozen=True)
class Judgement:
    """All candidates on the same held-out configurations.

    Attributes:
        formula: name of the candidate that is compared.
        points: configurations of every network.
        standings: candidate -> network -> standing.
        means: candidate -> standing in the mean over networks.
        comparisons: of the formula with every rival.
    """

    formula: str
    points: dict[str, int]
    standings: dict[str, dict[str, Standing]]
    means: dict[str, Standing]
    comparisons: dict[str, Comparison]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        found = asdict(self)
        for name, comparison in self.comparisons.items():
            found["comparisons"][name]["beaten"] = comparison.beaten
        return found


def judge(
    formula: str,
    predictions: Mapping[str, Sequence[FloatArray]],
    benches: Sequence[BenchData],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Judgement:
    """Judge predictions of held-out configurations.

    Args:
        formula: the candidate that is compared with all others.
        predictions: candidate -> predicted loss of the configurations of every bench, lower is better.
        benches: configurations that nothing was chosen on.
        draws: bootstrap resamples.
        seed: of the resamples.

    Returns:
        Standings of all, and the paired comparisons.

    Raises:
        InvalidInput: the formula is not among the predictions.
    """
    if formula not in predictions:
        raise InvalidInput(f"{formula!r} is not among the judged candidates: {', '.join(predictions)}")
    counts = [resamples(len(bench), draws, seed + index) for index, bench in enumerate(benches)]
    standings: dict[str, dict[str, Standing]] = {name: {} for name in predictions}
    fixed: dict[str, FloatArray] = {}
    overall: dict[str, FloatArray] = {}
    for name, predicted in predictions.items():
        rows = []
        for bench, scores, drawn in zip(benches, predicted, counts, strict=True):
            rows.append(_correlations(bench, scores, drawn))
            standings[name][bench.name] = _standing(bench, scores, drawn, *rows[-1])
        fixed[name], overall[name] = np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])
    return Judgement(
        formula,
        {bench.name: len(bench) for bench in benches},
        standings,
        {name: Standing(_estimate(fixed[name].mean(0)), _estimate(overall[name].mean(0))) for name in predictions},
        {
            name: _comparison(name, fixed[formula] - fixed[name], [bench.name for bench in benches])
            for name in predictions
            if name != formula
        },
    )


def best_rival(
    benches: Sequence[BenchData], fitness: FitnessFunction, among: Container[str] | None = None
) -> str | None:
    """The hand-made proxy that ranks the training configurations best, by the fitness that formulas are chosen by.

    Args:
        benches: the configurations that formulas were chosen on.
        fitness: prepared for them.
        among: names that may be chosen, such as those that scored the judging network too; ``None``: all.

    Returns:
        Its name; ``None`` if no proxy scored all networks.
    """
    shared = [
        name
        for name in benches[0].rivals
        if all(name in bench.rivals for bench in benches) and (among is None or name in among)
    ]
    if not shared:
        return None
    return max(shared, key=lambda name: fitness.of([bench.rivals[name] for bench in benches]).value)


def _correlations(bench: BenchData, scores: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Partial Spearman at fixed size, and Spearman, of every resample; 0 where nothing is known beyond the size."""
    rho = spearman(scores, bench.measured, counts)
    fixed = partial(rho, spearman(scores, bench.sizes, counts), spearman(bench.measured, bench.sizes, counts))
    return np.nan_to_num(fixed), np.nan_to_num(rho)


def _standing(bench: BenchData, scores: FloatArray, counts: FloatArray, fixed: FloatArray, rho: FloatArray) -> Standing:
    pairs = same_size(bench.sizes, TOLERANCE)
    enough = pairs.sum() // 2 >= _LEAST_PAIRS
    return Standing(
        _estimate(fixed),
        _estimate(rho),
        Estimate.of(kendall(scores, bench.measured, counts, pairs)) if enough else None,
        Estimate.of(kendall(scores, bench.measured, counts)),
        top_regret(scores, bench.measured, TOP),
    )


def _comparison(rival: str, differences: FloatArray, networks: Sequence[str]) -> Comparison:
    """From the differences [networks, 1 + resamples]."""
    mean = differences.mean(axis=0)
    chance = (1 + int((mean[1:] <= 0).sum())) / len(mean)
    return Comparison(
        rival,
        _estimate(mean),
        chance,
        {name: _estimate(row) for name, row in zip(networks, differences, strict=True)},
    )


def _estimate(values: FloatArray) -> Estimate:
    found = Estimate.of(values)
    assert found is not None  # the correlations are defined
    return found
