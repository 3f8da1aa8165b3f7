"""Scores of a space judged by the configurations that were measured: from configurations to the trust report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..hw_models import price
from ..proxies import Sensitivity
from ..space import Configuration, SearchSpace
from .trust import TrustReport, trust_report


def judged(
    space: SearchSpace,
    sensitivities: Mapping[str, Sensitivity],
    configurations: Sequence[Configuration],
    measured: Sequence[float],
    *,
    float_quality: float = 0.0,
    draws: int = 1000,
    seed: int = 0,
) -> TrustReport:
    """The trust report of every proxy that scored a space.

    Args:
        space: sites and formats; its exact sizes and bit operations are the baselines.
        sensitivities: by proxy; interactions of pairs count where a proxy gives them.
        configurations: what was measured.
        measured: their quality, lower is better.
        float_quality: quality of the float model.
        draws: bootstrap resamples.
        seed: of the resamples.

    Returns:
        A row for every proxy and baseline.
    """
    exact = price(space, metrics=("size_mb", "bops"))
    totals = [exact.of(each) for each in configurations]
    return trust_report(
        {
            name: np.array([scores.joint(each) for each in configurations], dtype=np.float64)
            for name, scores in sensitivities.items()
        },
        np.asarray(measured, dtype=np.float64),
        np.array([each["size_mb"].value for each in totals], dtype=np.float64),
        np.array([each["bops"].value for each in totals], dtype=np.float64),
        float_quality=float_quality,
        seconds={name: scores.seconds for name, scores in sensitivities.items()},
        draws=draws,
        seed=seed,
    )
