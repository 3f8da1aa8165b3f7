"""Price, PriceTable, Prices: what each (site, format) costs, and what a configuration costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..formats import Format
from ..space import SearchSpace, Site
from .rows import KernelRow, MeasuredTable

if TYPE_CHECKING:
    import pandas as pd

#: exact: counted; measured: timed kernels; predicted: by a model fitted to measurements; roofline: a lower bound from
#: the data sheet; model: computed from published constants.
Source = Literal["exact", "measured", "predicted", "roofline", "model"]
SiteValue = Callable[[Site, Format], float]
_NORMAL_95 = 1.959964  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True, slots=True)
class Price:
    """What a configuration costs in one metric.

    Attributes:
        value: the total, in the unit that the metric's name carries.
        low: lower end of the 95 % interval.
        high: upper end.
        source: one of ``Source``.
    """

    value: float
    low: float
    high: float
    source: Source


class Whole(Protocol):
    """Latency of whole configurations, where neighbours matter to each other; ``network.WholeModel`` is one."""

    def interval(self, choice: NDArray[np.int64]) -> tuple[float, float, float]:
        """Value, lower and upper end of the 95 % interval of a choice array [sites], the constant part included."""
        ...

    def predict(self, choices: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
        """The same three of many choices [points, sites], each [points]."""
        ...


class Joint(Protocol):
    """The exact cost of a whole configuration where that is no sum over sites (a maximum, shared tensors)."""

    def total(self, choice: NDArray[np.int64]) -> float:
        """The cost of a choice array [sites], the constant part included."""
        ...


@dataclass(frozen=True)
class PriceTable:
    """One metric for every (site, format); the total of a configuration is ``base`` plus one entry per site.

    Attributes:
        metric: such as ``"latency_ms"``.
        unit: of ``values``, ``sigma`` and ``base``.
        values: float64 array [sites, formats], columns as in ``space.formats``; NaN where a site does not offer the
            format.
        sigma: array of the same shape: standard deviation of each value, 0 where exact.
        base: the constant part, such as the size of the tensors outside the sites.
        source: one of ``Source``.
        provenance: one line for people: device, runtime and version, threads, date, or the formula.
        whole: latency of whole configurations with what neighbours cost each other, or ``None``. ``values`` then are
            those of each site between neighbours of its own kind, so the total of unlike ones is not their sum.
        rows: measurements that were taken to make this table (empty when nothing new was timed).
        joint: the exact value of a configuration where the sum over sites only stands in for it, or ``None``.
    """

    metric: str
    unit: str
    values: NDArray[np.float64]
    sigma: NDArray[np.float64]
    base: float
    source: Source
    provenance: str
    whole: Whole | None = None
    rows: tuple[KernelRow, ...] = ()
    joint: Joint | None = field(default=None, repr=False)

    def total(self, choice: NDArray[np.int64]) -> Price:
        """The price of a choice array [sites] (column indices).

        The interval takes the errors of the sites as fully correlated, so their standard deviations add up:
        ``value ± 1.96 sum(sigma)``. That is the widest interval that the standard deviations allow; kernels timed in
        one session on one machine do share most of their error (clock, neighbours, memory), so the narrower sum in
        quadrature would promise too much. A roofline is a bound that no kernel beats, so there the lower end is the
        value itself. Where the table has a model of whole configurations, value and interval are the model's.
        """
        if self.whole is not None:
            return Price(*self.whole.interval(choice), self.source)
        rows = np.arange(len(choice))
        value = self.base + float(self.values[rows, choice].sum())
        if self.joint is not None:
            value = self.joint.total(choice)
        margin = _NORMAL_95 * float(self.sigma[rows, choice].sum())
        low = value if self.source == "roofline" else max(0.0, value - margin)
        return Price(value, low, value + margin, self.source)

    def totals(self, choices: NDArray[np.int64]) -> NDArray[np.float64]:
        """The values of many choice arrays [points, sites]: float64 array [points]."""
        if self.whole is not None:
            return self.whole.predict(choices)[0]
        if self.joint is not None:
            return np.array([self.joint.total(choice) for choice in choices], dtype=np.float64)
        summed: NDArray[np.float64] = self.values[np.arange(choices.shape[1]), choices].sum(axis=1) + self.base
        return summed

    def intervals(self, choices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Value, low and high of many choice arrays [points, sites], as ``total`` gives them: float64 [points, 3]."""
        if self.whole is not None:
            return np.column_stack(self.whole.predict(choices))
        value = self.totals(choices)
        margin = _NORMAL_95 * self.sigma[np.arange(choices.shape[1]), choices].sum(axis=1)
        low = value if self.source == "roofline" else np.maximum(0.0, value - margin)
        return np.column_stack([value, low, value + margin])


@dataclass(frozen=True)
class Prices(Mapping[str, PriceTable]):
    """Price tables by metric.

    Attributes:
        space: the sites and formats that were priced.
        tables: metric -> table.
        device: name of the device asked for.
        batch: samples per forward pass.
    """

    space: SearchSpace
    tables: dict[str, PriceTable] = field(default_factory=dict)
    device: str = "cpu"
    batch: int = 1

    def __getitem__(self, metric: str) -> PriceTable:
        return self.tables[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tables)

    def __len__(self) -> int:
        return len(self.tables)

    @property
    def table(self) -> dict[str, pd.DataFrame]:
        """Metric -> DataFrame [sites x formats]."""
        import pandas as pd

        return {
            metric: pd.DataFrame(table.values, index=self.space.names, columns=list(self.space.formats))
            for metric, table in self.tables.items()
        }

    @property
    def costs(self) -> dict[str, NDArray[np.float64]]:
        """Metric -> array [sites, formats], as an additive allocator takes it (NaN where not offered)."""
        return {metric: table.values for metric, table in self.tables.items()}

    @property
    def base(self) -> dict[str, float]:
        """Metric -> constant part, to be taken off a budget before allocating with ``costs``."""
        return {metric: table.base for metric, table in self.tables.items()}

    @property
    def measured(self) -> MeasuredTable:
        """The rows that were newly timed; store them and give them back as ``tables=[...]`` next time."""
        return MeasuredTable(tuple(row for table in self.tables.values() for row in table.rows))

    def of(self, configuration: Mapping[str, str]) -> dict[str, Price]:
        """What a configuration costs, by metric.

        Args:
            configuration: site name -> format name, for every site.

        Returns:
            Metric -> price with its 95 % interval (see ``PriceTable.total``).

        Raises:
            InvalidInput: the configuration does not fit the space.
        """
        choice = self.space.choice(configuration)
        return {metric: table.total(choice) for metric, table in self.tables.items()}


def tabulate(space: SearchSpace, value: SiteValue) -> NDArray[np.float64]:
    """Array [sites, formats] of ``value(site, format)``; NaN where the site does not offer the format.

    ``value`` takes a ``Site`` and a parsed ``Format`` and returns a float.
    """
    formats = [Format.parse(name) for name in space.formats]
    return np.array(
        [
            [float(value(site, format_)) if site.offers(format_.name) else np.nan for format_ in formats]
            for site in space.sites
        ],
        dtype=np.float64,
    ).reshape(len(space.sites), len(formats))


def exact(
    space: SearchSpace, metric: str, unit: str, value: SiteValue, provenance: str, base: float = 0.0
) -> PriceTable:
    """A table of exact figures: ``tabulate(space, value)`` with no error."""
    values = tabulate(space, value)
    return PriceTable(metric, unit, values, np.zeros_like(values), base, "exact", provenance)
