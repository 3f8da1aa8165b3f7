"""What the evolution of formulas needs of one network: measured configurations and the statistics of its sites."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from ...proxies import Sensitivity
from ...proxies.formulas import SiteStatistics
from ...space import Configuration, SearchSpace
from ..bench_files import StoredBench

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
LEAST = 24  # configurations: fewer leave folds and a held-out part that say nothing


@dataclass(frozen=True, eq=False)
class BenchData:
    """The bench of one network.

    Attributes:
        name: of the network.
        choices: columns (formats) by site, [points, sites].
        measured: quality, lower is better, [points].
        sizes: price in bytes or megabytes, [points].
        statistics: of the sites, in the same order of sites and formats.
        rivals: hand-made proxies, name -> predicted loss of every configuration, lower is better, [points].
    """

    name: str
    choices: IntArray
    measured: FloatArray
    sizes: FloatArray
    statistics: SiteStatistics
    rivals: Mapping[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        points, sites = self.choices.shape
        if sites != len(self.statistics.sites):
            raise InvalidInput(f"bench {self.name}: choices for {sites} sites, {len(self.statistics.sites)} statistics")
        columns = {"measured": self.measured, "sizes": self.sizes, **self.rivals}
        for name, values in columns.items():
            if values.shape != (points,) or not np.isfinite(values).all():
                raise InvalidInput(f"bench {self.name}: {name} must hold {points} finite numbers, one a configuration")
        if not self.statistics.allowed[np.arange(sites), self.choices].all():
            raise InvalidInput(f"bench {self.name}: a configuration takes a format that its site does not offer")

    @staticmethod
    def stored(bench: StoredBench, sensitivities: Mapping[str, Sensitivity] | None = None) -> BenchData:
        """From a bench that was read from files, and hand-made proxies that scored the same sites and formats."""
        rivals = {
            proxy: np.array([scores.joint(each) for each in bench.configurations], dtype=np.float64)
            for proxy, scores in (sensitivities or {}).items()
        }
        return BenchData(bench.name, bench.choices, bench.measured, bench.sizes, bench.statistics, rivals)

    @staticmethod
    def of(
        name: str,
        space: SearchSpace,
        measured: Mapping[Configuration, float],
        statistics: SiteStatistics,
        sensitivities: Mapping[str, Sensitivity] | None = None,
    ) -> BenchData:
        """From configurations of a space.

        Args:
            name: of the network.
            space: its sites and formats.
            measured: configuration -> quality, lower is better.
            statistics: of its sites.
            sensitivities: hand-made proxies that scored the space; interactions of pairs count.

        Returns:
            The bench; sizes are the exact ones of the space.

        Raises:
            InvalidInput: statistics of other sites or formats, or too few configurations.
        """
        if statistics.sites != tuple(space.names) or statistics.formats != space.formats:
            raise InvalidInput(f"bench {name}: the statistics were recorded for other sites or formats; record anew")
        if len(measured) < LEAST:
            raise InvalidInput(f"bench {name}: {len(measured)} configurations are too few; measure at least {LEAST}")
        from ...hw_models import price

        exact = price(space, metrics=("size_mb",))
        return BenchData(
            name,
            np.stack([space.choice(each) for each in measured]),
            np.array(list(measured.values()), dtype=np.float64),
            np.array([exact.of(each)["size_mb"].value for each in measured], dtype=np.float64),
            statistics,
            {
                proxy: np.array([scores.joint(each) for each in measured], dtype=np.float64)
                for proxy, scores in (sensitivities or {}).items()
            },
        )

    def __len__(self) -> int:
        """How many configurations."""
        return len(self.measured)

    @cached_property
    def _cells(self) -> IntArray:
        """Index of each chosen (site, format) in a flat table: [points, sites]."""
        cells: IntArray = self.choices + np.arange(self.choices.shape[1]) * len(self.statistics.formats)
        return cells

    def predict(self, table: FloatArray) -> FloatArray:
        """Predicted loss of every configuration, the sum of a table [sites, formats] over its sites: [points]."""
        total: FloatArray = table.ravel().take(self._cells).sum(axis=1)
        return total

    def take(self, points: IntArray) -> BenchData:
        """Some of the configurations."""
        return replace(
            self,
            choices=self.choices[points],
            measured=self.measured[points],
            sizes=self.sizes[points],
            rivals={name: values[points] for name, values in self.rivals.items()},
        )

    def halves(self, seed: int, share: float = 0.5) -> tuple[BenchData, BenchData]:
        """Cut into configurations to choose formulas on and others to judge them on, alike in size.

        Args:
            seed: of the cut.
            share: of the configurations that goes to the first part.

        Returns:
            Two benches without a common configuration, points in their first order.

        Raises:
            InvalidInput: a part would be empty.
        """
        parts = round(len(self) * share)
        if not 0 < parts < len(self):
            raise InvalidInput(f"bench {self.name}: a share of {share} of {len(self)} configurations leaves no half")
        first = np.zeros(len(self), dtype=bool)
        by_size = np.argsort(self.sizes, kind="stable")
        generator = np.random.default_rng([seed, len(self)])
        for block in np.array_split(by_size, parts):  # one of each block of neighbours in size
            first[generator.choice(block)] = True
        return self.take(np.flatnonzero(first)), self.take(np.flatnonzero(~first))

    @cached_property
    def digest(self) -> str:
        """Of all that a formula's fitness depends on; the name and the rivals are no part of it."""
        found = hashlib.sha256(self.statistics.digest.encode())
        for values in (self.choices, self.measured, self.sizes):
            found.update(np.ascontiguousarray(values).tobytes())
        return found.hexdigest()[:32]


def common_inputs(benches: Sequence[BenchData]) -> dict[str, str]:
    """Inputs that the statistics of all benches have in the same kind: name -> kind.

    Raises:
        InvalidInput: there is no bench, two have the same name, or they have nothing in common.
    """
    if not benches:
        raise InvalidInput("no bench is given; formulas are judged by at least one")
    names = [bench.name for bench in benches]
    if len(set(names)) < len(names):
        raise InvalidInput(f"two benches have the same name: {', '.join(names)}")
    shared = dict(benches[0].statistics.names)
    for bench in benches[1:]:
        shared = {name: kind for name, kind in shared.items() if bench.statistics.names.get(name) == kind}
    if not shared:
        raise InvalidInput(f"the statistics of {', '.join(names)} have no input in common; record them anew")
    return shared
