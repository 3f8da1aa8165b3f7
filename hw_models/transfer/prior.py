r"""What is believed about a new device before its first measurement, and the features of a product under it.

For device d and format f, over the sources s that have f (all sources where none has it), with weights
:math:`\omega_s \propto` ``similarity``:

.. math::
    \log t = \mathrm{law}(\theta_f) + \sum_s \omega_s e_s(x) + \text{process},\quad
    \theta_f \sim N(\textstyle\sum_s \omega_s \theta_s, \Sigma_f)

e_s is what the law leaves in source s at the same shape. The fewer sources stand behind the mean, the wider is Sigma.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...errors import NotMeasured
from ..devices import Device
from ..gemm import Gemms
from ..law import Floats, Work, jacobian, log_ms, work
from .source import Sources, coordinates, similarity

#: Standard deviation that a parameter of the law keeps however well the sources agree, as a variance.
_FLOOR = 0.02
#: A source without the format lends the mean remainder of its other formats, at this weight.
_BORROWED = 0.3


@dataclass(frozen=True)
class Features:
    """Products under a law: what the kernels compare, one product a row.

    Attributes:
        format: str array [rows].
        mean: prior mean of log ms with the law linearized [rows].
        law: derivatives by the parameters, whitened by their prior [rows, parameters].
        remainders: of the tables [rows, tables], 0 where a table does not count.
        weight: square root of the prior variance of a table's coefficient [rows, tables].
        place: ``source.coordinates`` [rows, 3], without the tiles.
    """

    format: NDArray[np.str_]
    mean: Floats
    law: Floats
    remainders: Floats
    weight: Floats
    place: Floats


@dataclass(frozen=True)
class Shapes:
    """What of products does not depend on the law's parameters, looked up once.

    Attributes:
        gemms: the products.
        work: on the new device.
        remainders: as ``Features``.
    """

    gemms: Gemms
    work: Work
    remainders: Floats

    def __len__(self) -> int:
        return len(self.gemms)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """The rows of indices."""
        return type(self)(self.gemms.take(rows), self.work.take(rows), self.remainders[rows])


@dataclass(frozen=True)
class FormatPrior:
    """The prior of one format.

    Attributes:
        theta: mean of the law's parameters.
        root: Cholesky factor of their covariance.
        tables: weights of the tables' remainders in the mean [tables]; 0 for one that does not count.
        counts: which tables count [tables].
        measured: whether a source has the format.
    """

    theta: Floats
    root: Floats
    tables: Floats
    counts: NDArray[np.bool_]
    measured: bool


@dataclass(frozen=True)
class Prior:
    """The prior of a device.

    Attributes:
        device: the new one.
        sources: the others.
        formats: format -> prior.
    """

    device: Device
    sources: Sources
    formats: Mapping[str, FormatPrior]

    @staticmethod
    def of(sources: Sources, device: Device, formats: tuple[str, ...]) -> Prior:
        """The prior for some formats."""
        everything = np.array([source.theta for source in sources.fitted.values()])
        spread = everything.var(0) if len(everything) > 1 else np.ones(everything.shape[1])
        return Prior(device, sources, {name: _format_prior(sources, device, name, spread) for name in formats})

    def shapes(self, gemms: Gemms) -> Shapes:
        """Look products up in the sources.

        Raises:
            NotMeasured: the device has no arithmetic for a format.
        """
        demand = work(gemms, self.device)
        remainders = np.zeros((len(gemms), len(self.sources.tables)))
        for name in np.unique(gemms.format):
            rows = np.flatnonzero(gemms.format == name)
            some = gemms.take(rows)
            for column in np.flatnonzero(self.formats[str(name)].counts):
                remainders[rows, column] = _remainder(self.sources, self.sources.tables[column], str(name), some)
        return Shapes(gemms, demand, remainders)

    def features(self, shapes: Shapes, theta: Mapping[str, Floats]) -> Features:
        """The products' features with the law linearized at ``theta`` (format -> parameters)."""
        rows = len(shapes)
        tables = len(self.sources.tables)
        mean, weight = np.empty(rows), np.zeros((rows, tables))
        law = np.empty((rows, next(iter(self.formats.values())).root.shape[0]))
        for name in np.unique(shapes.gemms.format):
            mine = np.flatnonzero(shapes.gemms.format == name)
            prior, point = self.formats[str(name)], theta[str(name)]
            demand = shapes.work.take(mine)
            slope = jacobian(point, demand)
            mean[mine] = log_ms(point, demand) + slope @ (prior.theta - point) + shapes.remainders[mine] @ prior.tables
            law[mine] = slope @ prior.root
            weight[mine] = np.where(prior.counts, np.sqrt(prior.tables + 0.05), 0.0)
        return Features(shapes.gemms.format, mean, law, shapes.remainders, weight, coordinates(shapes.gemms)[:, :3])

    def start(self) -> dict[str, Floats]:
        """Format -> prior mean of the law's parameters."""
        return {name: prior.theta for name, prior in self.formats.items()}


def _format_prior(sources: Sources, device: Device, name: str, spread: Floats) -> FormatPrior:
    having = [table for table in sources.tables if (table, name) in sources.fitted]
    used = having or list(sources.tables)
    likeness = np.array([similarity(device, sources.sheets[table]) for table in used])
    share = likeness / likeness.sum()
    thetas = np.array([_theta(sources, table, name) for table in used])
    mean = share @ thetas
    deviation = (thetas - mean) * np.sqrt(share)[:, None]
    behind = 1 / float(share @ share) if having else 2.0
    covariance = 0.5 * deviation.T @ deviation + np.diag((0.1 + 0.6 / behind**2) * spread + _FLOOR)
    weights, counts = np.zeros(len(sources.tables)), np.zeros(len(sources.tables), dtype=bool)
    for table, part in zip(used, share, strict=True):
        index = sources.tables.index(table)
        weights[index], counts[index] = part * (1.0 if having else _BORROWED), True
    return FormatPrior(mean, np.linalg.cholesky(covariance), weights, counts, bool(having))


def _theta(sources: Sources, table: str, name: str) -> Floats:
    if (table, name) in sources.fitted:
        return sources.fitted[table, name].theta
    others = [sources.fitted[table, other].theta for other in sources.formats(table)]
    result: Floats = np.mean(others, axis=0)
    return result


def _remainder(sources: Sources, table: str, name: str, gemms: Gemms) -> Floats:
    if (table, name) in sources.fitted:
        return sources.fitted[table, name].remainder_at(gemms)
    others = [sources.fitted[table, other].remainder_at(gemms) for other in sources.formats(table)]
    result: Floats = np.mean(others, axis=0)
    return result


def require_formats(prior: Prior, gemms: Gemms, sampled: frozenset[str]) -> None:
    """Refuse formats of which neither a source nor the device itself has a measurement.

    Raises:
        NotMeasured: there is such a format.
    """
    for name in np.unique(gemms.format):
        known = prior.formats.get(str(name))
        if str(name) not in sampled and (known is None or not known.measured):
            raise NotMeasured(
                f"{name} was measured neither on {prior.device.name} nor on a source device: "
                f"measure it on {prior.device.name} (20 shapes to begin with) or drop the format"
            )
