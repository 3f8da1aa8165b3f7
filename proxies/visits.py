"""Draws from all micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np

from .gauss_newton_probes import GaussNewtonProbes
from .hutchinson_probes import HutchinsonProbes

Probes = GaussNewtonProbes | HutchinsonProbes


class Visits:
    """Draws from all micro-batches; with a single one its graph is kept between the visits.

    Args:
        probes: what is drawn.
        stack: closes the graph that is kept.
        keep: whether one may be kept; hooks of two graphs get into each other's way.
    """

    def __init__(self, probes: Probes, stack: ExitStack, keep: bool) -> None:
        self.probes, self.stack = probes, stack
        self.keep = keep and len(probes.batches) == 1
        self._kept: object | None = None

    def draw(self, first: int, count: int, active: np.ndarray) -> Iterator[np.ndarray]:
        """One array of estimates [count, samples, 2, sites] for each micro-batch; see ``GaussNewtonProbes.draw``."""
        for position in range(len(self.probes.batches)):
            with ExitStack() as once:
                graph = self._kept or (self.stack if self.keep else once).enter_context(self.probes.graph(position))
                self._kept = graph if self.keep else None
                yield self.probes.draw(graph, position, first, count, active)  # type: ignore[arg-type]
