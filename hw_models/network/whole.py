"""WholeModel: latency of whole configurations: kernels, conversions, other operators, scaled as measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ...errors import InvalidInput
from ...space import SearchSpace, Site
from ..kernels import site_kernel
from .graph import execution_order
from .network import Network
from .parts import Costs, terms_of
from .residual import Residual, fit, prior
from .terms import Terms

COVERAGE = 0.95


@dataclass(frozen=True)
class WholeModel:
    """The parts of every configuration and their factors.

    Attributes:
        terms: the parts.
        residual: the factors, fitted to measured exports, or their prior.
    """

    terms: Terms
    residual: Residual

    def predict(self, choices: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
        """Latency of many choices [points, sites] with its 95 % interval: value, low, high, each [points].

        The interval is that of the predictive t distribution, whose noise was estimated from few exports.
        """
        value, deviation = self.residual.predict(self.terms.of(choices))
        margin = float(stdtrit(self.residual.freedom, 0.5 + COVERAGE / 2)) * deviation
        return value, np.maximum(0.0, value - margin), value + margin

    def interval(self, choice: NDArray[np.int64]) -> tuple[float, float, float]:
        """Value, low and high of one choice [sites]."""
        value, low, high = (float(column[0]) for column in self.predict(choice[None]))
        return value, low, high

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Plain arrays by name."""
        arrays = {f"terms/{item.name}": getattr(self.terms, item.name) for item in fields(Terms)}
        learned = self.residual
        scalars = np.array([learned.noise, learned.exports, learned.freedom])
        return {**arrays, "mean": learned.mean, "covariance": learned.covariance, "scalars": scalars}

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> WholeModel:
        """What ``to_arrays`` gave."""
        terms = Terms(**{item.name: arrays[f"terms/{item.name}"] for item in fields(Terms)})  # type: ignore[arg-type]
        noise, exports, freedom = (float(number) for number in arrays["scalars"])
        mean, covariance = np.asarray(arrays["mean"], np.float64), np.asarray(arrays["covariance"], np.float64)
        return WholeModel(terms, Residual(mean, covariance, noise, int(exports), freedom))


def whole_model(space: SearchSpace, costs: Costs, call_ms: float, network: Network | None = None) -> WholeModel:
    """Latency of whole configurations from timed kernels and, if there is one, the measured network.

    Args:
        space: the sites.
        costs: (site name, format name) -> its kernel.
        call_ms: what a call of the runtime costs by itself.
        network: graph, other operators and timed exports of the model.

    Returns:
        The model; its factors are fitted to the exports, or are their prior where none was timed.

    Raises:
        InvalidInput: an export runs a kernel that no format of the space runs.
    """
    if network is None:
        return WholeModel(terms_of(space, costs, execution_order(space), call_ms), prior())
    terms = terms_of(space, costs, network.graph, call_ms + network.operators.total)
    if not network.exports:
        return WholeModel(terms, prior())
    choices = np.stack([_choice(space, export.formats) for export in network.exports])
    return WholeModel(terms, fit(terms.of(choices), np.array([export.ms for export in network.exports])))


def _choice(space: SearchSpace, formats: Mapping[str, str]) -> NDArray[np.int64]:
    """The choice of an export: its formats, or where the space does not offer one, a format of the same kernel."""
    return np.array([_column(space, site, formats[site.name]) for site in space.sites], dtype=np.int64)


def _column(space: SearchSpace, site: Site, name: str) -> int:
    if not site.offers(name):
        wanted = site_kernel(site, name)
        alike = (each for each in site.formats if site_kernel(site, each) == wanted)
        found = next(alike, None)
        if found is None:
            raise InvalidInput(
                f"a timed export has site {site.name} in {name}, whose kernel no format of this space runs; "
                "time exports of this space"
            )
        name = found
    return space.formats.index(name)
