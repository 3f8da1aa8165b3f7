"""Matrix products in columns: what is asked of a latency model, what was measured, and what it answers.

A product is ``[m, k] x [k, n]``: m tokens (or output pixels of a batch, for a convolution as implicit GEMM), k input
features, n output features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput

#: Kernels of matrix products that tables of GPUs know; ``tables/kernel_formats.py`` maps formats to them.
GEMM_FORMATS = ("fp32", "tf32", "fp16", "bf16", "fp8", "fp8_block", "nvfp4", "int8_wo", "int4_wo", "w8a8")


@dataclass(frozen=True)
class Gemms:
    """Products, one a row.

    Attributes:
        device: str array [rows]: a name from ``devices()``.
        format: str array [rows]: one of ``GEMM_FORMATS``.
        m: int64 array [rows]: rows of the input.
        n: int64 array [rows]: output features.
        k: int64 array [rows]: input features.
    """

    device: NDArray[np.str_]
    format: NDArray[np.str_]
    m: NDArray[np.int64]
    n: NDArray[np.int64]
    k: NDArray[np.int64]

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, item.name)) for item in fields(self)}
        if len(lengths) > 1:
            raise InvalidInput(f"the columns of {type(self).__name__} differ in length: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.m)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Self:
        """The rows of a mask or of indices."""
        return type(self)(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})


@dataclass(frozen=True)
class MeasuredGemms(Gemms):
    """Products with their measured time.

    Attributes:
        ms: float64 array [rows]: milliseconds of one call, > 0.
    """

    ms: NDArray[np.float64]

    @staticmethod
    def joined(parts: Sequence[MeasuredGemms]) -> MeasuredGemms:
        """All rows, in order."""
        return MeasuredGemms(
            *(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(MeasuredGemms))
        )


@dataclass(frozen=True)
class Prediction:
    """Times with intervals.

    Attributes:
        ms: float64 array [rows].
        low: lower ends of the intervals.
        high: upper ends.
        coverage: of the intervals, such as 0.9.
    """

    ms: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    coverage: float


class LatencyModel(Protocol):
    """Foretells the time of products."""

    def predict(self, gemms: Gemms) -> Prediction:
        """The times.

        Raises:
            NotMeasured: the model knows nothing of a device or format.
        """
        ...
