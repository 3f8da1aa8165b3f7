"""Dense tables of other devices as sources: their law, and what the law leaves, at any shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from ..devices import Device, device
from ..gemm import Gemms, MeasuredGemms
from ..law import Floats, fit, log_ms, work

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

#: Rows of a table that its law is fitted to.
_FITTED = 1500
#: Neighbours that a remainder is interpolated from.
_NEIGHBOURS = 6
#: Octaves beyond the table after which its remainder no longer counts.
_REACH = 2.0
#: A remainder beyond this (in log t) is an outlier and says nothing about another device.
_CLIP = 1.5
#: Sources have to be dense: fewer rows in a format are left out.
MINIMAL_ROWS = 50


@dataclass(frozen=True)
class Source:
    """One format of one table.

    Attributes:
        device: the data sheet of the device that was measured.
        theta: the parameters of its law (``law.PARAMETERS``).
        log_ms: logarithm of the measured times [rows].
        rows: the products.
        remainder: log_ms less the law [rows].
        tree: over ``coordinates`` of the rows.
    """

    device: Device
    theta: Floats
    log_ms: Floats
    rows: Gemms
    remainder: Floats
    tree: cKDTree

    @staticmethod
    def of(table: MeasuredGemms, sheet: Device, seed: int = 0) -> Source:
        """The fitted source of a table of one format."""
        from scipy.spatial import cKDTree

        generator = np.random.default_rng(seed)
        demand, measured = work(table, sheet), np.log(table.ms)
        some = generator.permutation(len(table))[:_FITTED]
        theta = fit(demand.take(some), measured[some])
        remainder = np.clip(measured - log_ms(theta, demand), -_CLIP, _CLIP)
        return Source(sheet, theta, measured, table, remainder, cKDTree(coordinates(table)))

    def remainder_at(self, gemms: Gemms) -> Floats:
        """What the law leaves at other shapes: measured where the table has the shape, else from its neighbours.

        Inverse squared distances (Shepard 1968, doi:10.1145/800186.810616); far from all rows it fades to zero.
        """
        count = min(_NEIGHBOURS, len(self.remainder))
        distance, index = self.tree.query(coordinates(gemms), k=count)
        distance, index = (np.reshape(found, (len(gemms), count)) for found in (distance, index))
        weight = 1 / np.maximum(distance, 1e-6) ** 2
        value = (weight * self.remainder[index]).sum(1) / weight.sum(1)
        result: Floats = value * np.exp(-((distance[:, 0] / _REACH) ** 2))
        return result


def coordinates(gemms: Gemms) -> Floats:
    """Where a product lies: log2 of m, n, k, and of the tiles of 128 rows (m = 129 is no neighbour of m = 128)."""
    tiles = np.log2(np.ceil(gemms.m / 128))
    return np.stack([np.log2(gemms.m), np.log2(gemms.n), np.log2(gemms.k), tiles], axis=1)


def similarity(one: Device, other: Device) -> float:
    """1 for equal data sheets, less the further bandwidth and 16-bit peak lie apart (exponential in their logs)."""
    far = abs(np.log(one.bandwidth_gb_s / other.bandwidth_gb_s)) + abs(np.log(_half(one) / _half(other)))
    return float(np.exp(-far))


def _half(sheet: Device) -> float:
    for kind in ("bf16", "fp16", "fp32"):
        if kind in sheet.peak_tera:
            return sheet.peak_tera[kind]
    raise InvalidInput(f"the data sheet of {sheet.name} has no peak in bf16, fp16 or fp32; it needs one of them")


@dataclass(frozen=True)
class Sources:
    """All tables, fitted once; give it to ``adapt`` and ``next_shapes`` instead of the tables to save seconds.

    Attributes:
        fitted: (table, format) -> source.
        sheets: table -> data sheet of its device.
        taught: what rehearsals for a device have found already, so that the rounds of a measurement do not repeat them.
    """

    fitted: Mapping[tuple[str, str], Source]
    sheets: Mapping[str, Device]
    taught: dict[tuple[object, ...], Any] = field(default_factory=dict, compare=False, repr=False)

    @staticmethod
    def of(tables: Mapping[str, MeasuredGemms], sheets: Mapping[str, Device] | None = None) -> Sources:
        """Fit every format of every table that has at least ``MINIMAL_ROWS`` rows.

        Args:
            tables: name -> rows of ONE device; several tables of a device (other runtimes) are welcome.
            sheets: data sheets of devices that ``devices()`` does not know.

        Raises:
            InvalidInput: no tables, a table with rows of several devices, of none, or with times that are not
                positive, or an unknown device.
        """
        fitted, known = {}, {}
        for name, table in tables.items():
            owners = np.unique(table.device)
            if len(owners) != 1:
                raise InvalidInput(f"source {name!r} must hold rows of exactly one device, not of {len(owners)}")
            check_times(table, f"source {name!r}")
            owner = str(owners[0])
            known[name] = (sheets or {}).get(owner) or device(owner)
            for form in np.unique(table.format):
                rows = table.take(table.format == form)
                if len(rows) >= MINIMAL_ROWS:
                    fitted[name, str(form)] = Source.of(rows, known[name])
        if not fitted:
            raise InvalidInput(
                f"no source has {MINIMAL_ROWS} rows in any format: give the dense table of at least one other device"
            )
        return Sources(fitted, known)

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that have a fitted format."""
        return tuple(sorted({table for table, _ in self.fitted}))

    def formats(self, table: str) -> tuple[str, ...]:
        """Formats of a table."""
        return tuple(form for name, form in self.fitted if name == table)

    def only(self, tables: tuple[str, ...]) -> Sources:
        """The sources of some tables."""
        return Sources(
            {key: source for key, source in self.fitted.items() if key[0] in tables},
            {name: sheet for name, sheet in self.sheets.items() if name in tables},
        )


def check_times(table: MeasuredGemms, what: str) -> None:
    """Refuse times that have no logarithm, and sizes below 1.

    Raises:
        InvalidInput: a time is not finite and positive, or m, n or k is below 1.
    """
    bad = ~(np.isfinite(table.ms) & (table.ms > 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InvalidInput(f"{what}: row {row} has the time {table.ms[row]} ms; times must be positive: drop such rows")
    check_sizes(table, what)


def check_sizes(gemms: Gemms, what: str) -> None:
    """Refuse products without elements.

    Raises:
        InvalidInput: m, n or k is below 1.
    """
    smallest: NDArray[np.int64] = np.minimum(np.minimum(gemms.m, gemms.n), gemms.k)
    if len(smallest) and smallest.min() < 1:
        row = int(smallest.argmin())
        raise InvalidInput(
            f"{what}: row {row} is m={gemms.m[row]}, n={gemms.n[row]}, k={gemms.k[row]}; all must be at least 1"
        )
