r"""Time of an element-wise kernel from the bytes that it moves: a law with two bandwidths, fitted to measured kernels.

.. math:: t(b) = t_0 + \frac{\min(b, c)}{B_1} + \frac{\max(b - c, 0)}{B_2}

with :math:`t_0` the time of an empty kernel, c about what the L2 cache holds, B_1 the bandwidth as long as the data
fits there and B_2 beyond. It is the latency-bandwidth line of Hockney (1994, doi:10.1016/S0167-8191(06)80021-9) with
the bend of the cache in it. It is fitted to measured times of quantizing an activation (read 2 bytes, write 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput


@dataclass(frozen=True)
class ElementwiseLaw:
    """The law of a device.

    Attributes:
        floor_ms: time of a kernel that moves nothing.
        near: bytes per ms while the data fits in the cache.
        capacity: bytes up to which that holds.
        far: bytes per ms beyond.
        error: mean absolute percentage error on the kernels that it was fitted to, or as assumed.
        reference: what it was fitted to, or where its constants are from.
    """

    floor_ms: float
    near: float
    capacity: float
    far: float
    error: float
    reference: str

    def ms(self, moved: NDArray[np.float64]) -> NDArray[np.float64]:
        """Milliseconds of kernels that move so many bytes each (read and written)."""
        beyond = np.maximum(moved - self.capacity, 0.0)
        return np.asarray(self.floor_ms + np.minimum(moved, self.capacity) / self.near + beyond / self.far)


def fit_law(moved: NDArray[np.float64], ms: NDArray[np.float64], reference: str) -> ElementwiseLaw:
    """The law that fits measured kernels with the least robust error of the logarithm.

    Args:
        moved: bytes read and written [rows].
        ms: milliseconds [rows], > 0.
        reference: what was measured.

    Raises:
        InvalidInput: fewer than eight rows, or a time that is not positive.
    """
    from scipy.optimize import least_squares

    if len(ms) < 8 or not (ms > 0).all():
        raise InvalidInput(f"{reference}: a law of four parameters needs at least 8 positive times, got {len(ms)} rows")
    largest = moved.argmax()
    slope = moved[largest] / ms[largest]

    def residuals(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        law = _law(logs, 0.0, "")
        return np.asarray(np.log(law.ms(moved) / ms))

    starts = [np.log([ms.min(), 2 * slope, capacity, slope]) for capacity in (1e6, 1e7, 1e8)]
    found = min(
        (least_squares(residuals, start, loss="soft_l1", f_scale=0.1) for start in starts), key=lambda fit: fit.cost
    )
    error = float(np.abs(np.expm1(residuals(found.x))).mean())
    return _law(found.x, error, reference)


def _law(logs: NDArray[np.float64], error: float, reference: str) -> ElementwiseLaw:
    floor_ms, near, capacity, far = np.exp(logs).tolist()
    return ElementwiseLaw(floor_ms, near, capacity, far, error, reference)
