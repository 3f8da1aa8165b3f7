"""Statistics of the sites of a model that formulas are built from: recorded once, scored a thousand times.

From the weight of every site a block of elements is drawn once, the same for every tensor that is aligned with the
weight, so that element i of ``gradient`` belongs to element i of ``weight``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from ...files import replacing

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
_KINDS = ("tensors", "format_tensors", "scalars", "format_scalars")


@dataclass(frozen=True, eq=False)
class SiteStatistics:
    """What formulas know of every site in every format.

    Attributes:
        sites: names, [sites].
        formats: names, [formats].
        allowed: boolean [sites, formats].
        shapes: int64 [sites, 2], rows (output channels) and columns (elements of a row) of the drawn block; the
            elements of all sites lie one after the other, row by row, T in all.
        elements: int64 [sites], elements of the whole weight.
        tensors: name -> float32 [T], such as weight, gradient, fisher; aligned with the drawn weights.
        format_tensors: name -> float32 [formats, T], such as the error of each format; 0 where it is not offered.
        scalars: name -> float64 [sites], such as macs, hessian_trace.
        format_scalars: name -> float64 [sites, formats], such as bits; 0 where it is not offered.
    """

    sites: tuple[str, ...]
    formats: tuple[str, ...]
    allowed: NDArray[np.bool_]
    shapes: NDArray[np.int64]
    elements: NDArray[np.int64]
    tensors: Mapping[str, Float32]
    format_tensors: Mapping[str, Float32]
    scalars: Mapping[str, Float64]
    format_scalars: Mapping[str, Float64]

    def __post_init__(self) -> None:
        total = int(self.offsets[-1])
        sites, formats = len(self.sites), len(self.formats)
        wanted = ((total,), (formats, total), (sites,), (sites, formats))
        for kind, shape in zip(_KINDS, wanted, strict=True):
            for name, values in getattr(self, kind).items():
                if values.shape != shape:
                    raise InvalidInput(f"statistics: {kind} {name} has the shape {values.shape}, expected {shape}")
                if not np.isfinite(values).all():
                    raise InvalidInput(f"statistics: {kind} {name} holds NaN or infinity")

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where the elements of each site begin, and the end: [sites + 1]."""
        ends = np.cumsum(self.shapes.prod(axis=1))
        return np.concatenate([[0], ends]).astype(np.int64)

    @property
    def names(self) -> dict[str, str]:
        """Every input of a formula -> its kind."""
        return {name: kind for kind in _KINDS for name in getattr(self, kind)}

    @cached_property
    def digest(self) -> str:
        """Of the content."""
        found = hashlib.sha256(repr((self.sites, self.formats)).encode())
        for name, values in sorted(self._arrays().items()):
            found.update(f"{name}{values.dtype}{values.shape}".encode())
            found.update(np.ascontiguousarray(values).tobytes())
        return found.hexdigest()[:32]

    def save(self, path: str | Path) -> None:
        """Write to one ``.npz`` file, complete or not at all."""
        with replacing(path) as part, part.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **self._arrays())

    @staticmethod
    def load(path: str | Path) -> SiteStatistics:
        """Read what ``save`` wrote.

        Raises:
            InvalidInput: no such file, or not one of statistics.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            kinds: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in _KINDS}
            for name in [each for each in found if "/" in each]:
                kind, own = name.split("/", 1)
                kinds[kind][own] = found.pop(name)
            statistics = SiteStatistics(
                tuple(str(name) for name in found.pop("sites")),
                tuple(str(name) for name in found.pop("formats")),
                found.pop("allowed"),
                found.pop("shapes"),
                found.pop("elements"),
                kinds["tensors"],
                kinds["format_tensors"],
                kinds["scalars"],
                kinds["format_scalars"],
            )
            if found:
                raise ValueError(f"it also holds {', '.join(found)}")
            return statistics
        except (OSError, ValueError, KeyError, TypeError) as cause:
            raise InvalidInput(
                f"{path} is no file of site statistics: {cause}; make one with `bitfront bench build`"
            ) from None

    def _arrays(self) -> dict[str, np.ndarray]:
        plain = {
            "sites": np.array(self.sites),
            "formats": np.array(self.formats),
            "allowed": self.allowed,
            "shapes": self.shapes,
            "elements": self.elements,
        }
        return plain | {f"{kind}/{name}": values for kind in _KINDS for name, values in getattr(self, kind).items()}
