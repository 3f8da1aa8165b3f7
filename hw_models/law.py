r"""The law: a roofline with the nine things that a data sheet leaves out, as parameters with a meaning.

.. math::
    t = t_0 + \tau k + \alpha \frac{mk}{B} + \left(C^p + M^p\right)^{1/p},\quad
    C = \frac{2mnk}{E_c P}\Bigl(1 + \frac{k_h}{k}\Bigr)\Bigl(1 + \frac{n_h}{n}\Bigr),\quad
    M = \frac{Q}{E_b B}\bigl(s + (1 - s)/\rho\bigr),\quad s = \sigma(1.5 \log(Q / L))

with the data sheet's peak P and bandwidth B, Q the bytes of weight, input and output. The parameters: launch overhead
t0, shares E_c and E_b of peak and bandwidth that are reached, the sharpness p of the corner, the size L of the cache
and how much faster it is (rho), the time tau of one step of the serial loop over k, the cost alpha of quantizing the
input in a kernel of its own, and the lengths k_h and n_h below which the tensor cores starve. All are kept as
logarithms (p as log(p - 1)), so a Gaussian prior over them is a log-normal one over what they mean.

The roofline (Williams, Waterman, Patterson 2009) is t0 = tau = alpha = k_h = n_h = 0, E = 1, rho = 1, p = infinity.
Over the measured tables of nine GPUs it leaves a standard deviation of log t of 1.1; the law leaves 0.1 to 0.2.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from ..errors import NotMeasured
from .devices import Device
from .gemm import Gemms

Floats = NDArray[np.float64]

PARAMETERS = ("t0", "E_c", "E_b", "p - 1", "L", "rho", "tau", "alpha", "k_h", "n_h")

#: Where a fit starts, and how far a parameter strays before the fit pays for it; t0 and tau in ms, L in bytes.
START: Floats = np.array([np.log(0.004), -0.2, -0.2, 0.7, np.log(50e6), 0.7, -13.6, -2.0, 4.0, 3.0])
SPREAD: Floats = np.array([1.0, 0.5, 0.5, 0.7, 1.0, 0.7, 1.0, 1.5, 1.5, 1.5])

#: Format -> bytes of a weight element, of an input element, and the compute types that serve, best first.
_KERNELS: dict[str, tuple[float, float, tuple[str, ...]]] = {
    "fp32": (4, 4, ("fp32",)),
    "tf32": (4, 4, ("tf32",)),
    "fp16": (2, 2, ("fp16",)),
    "bf16": (2, 2, ("bf16",)),
    "fp8": (1, 1, ("fp8",)),
    "fp8_block": (1, 1, ("fp8",)),
    "nvfp4": (0.5625, 0.5625, ("fp4",)),
    "int8_wo": (1, 2, ("bf16", "fp16")),
    "int4_wo": (0.5, 2, ("bf16", "fp16")),
    "w8a8": (1, 1, ("int8",)),
}


@dataclass(frozen=True)
class Work:
    """What products demand of a device, one a row.

    Attributes:
        compute_ms: 2 m n k over the peak.
        memory_ms: bytes over the bandwidth.
        bytes: of weight, input and output.
        input_ms: m k bytes over the bandwidth.
        n: output features.
        k: input features.
    """

    compute_ms: Floats
    memory_ms: Floats
    bytes: Floats
    input_ms: Floats
    n: Floats
    k: Floats

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Self:
        """The rows of a mask or of indices."""
        return type(self)(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})


def work(gemms: Gemms, device: Device) -> Work:
    """What the products demand of the device, whatever device their rows name.

    Raises:
        NotMeasured: the device has no arithmetic for a format.
    """
    weight, entering, leaving, peak = (np.empty(len(gemms)) for _ in range(4))
    for name in np.unique(gemms.format).tolist():
        rows = gemms.format == name
        if name not in _KERNELS:
            raise NotMeasured(f"no kernel of products is called {name!r}; known: {', '.join(_KERNELS)}")
        weight[rows], entering[rows], kinds = _KERNELS[name]
        leaving[rows] = 4 if name in ("fp32", "tf32") else 2
        kind = next((kind for kind in kinds if kind in device.peak_tera), None)
        if kind is None:
            raise NotMeasured(
                f"{device.name} has no {' or '.join(kinds)} arithmetic in its data sheet, so {name} cannot be foretold "
                f"there; it has {', '.join(device.peak_tera)}: drop the format"
            )
        peak[rows] = device.peak_tera[kind]
    m, n, k = (column.astype(np.float64) for column in (gemms.m, gemms.n, gemms.k))
    moved = n * k * weight + m * k * entering + m * n * leaving
    speed = device.bandwidth_gb_s * 1e6
    return Work(2 * m * n * k / (peak * 1e9), moved / speed, moved, m * k / speed, n, k)


def log_ms(theta: Floats, work: Work) -> Floats:
    """The logarithm of the law's time, float64 [rows]; ``theta`` as ``PARAMETERS``, or one row of them a product."""
    t0, reached, bandwidth, corner, cache, faster, step, quantizing, short_k, short_n = np.exp(theta).T
    cold = 1 / (1 + (cache / work.bytes) ** 1.5)
    memory = work.memory_ms / bandwidth * (cold + (1 - cold) / faster)
    compute = work.compute_ms / reached * (1 + short_k / work.k) * (1 + short_n / work.n)
    longer, shorter = np.maximum(compute, memory), np.minimum(compute, memory)
    p = 1 + corner
    body = longer * (1 + (shorter / longer) ** p) ** (1 / p)
    result: Floats = np.log(t0 + step * work.k + quantizing * work.input_ms + body)
    return result


def jacobian(theta: Floats, work: Work, step: float = 1e-4) -> Floats:
    """Derivatives of ``log_ms`` by the parameters, float64 [rows, parameters] (central differences)."""
    columns = []
    for number in range(len(PARAMETERS)):
        up, down = theta.copy(), theta.copy()
        up[..., number] += step
        down[..., number] -= step
        columns.append((log_ms(up, work) - log_ms(down, work)) / (2 * step))
    return np.stack(columns, axis=1)


def fit(work: Work, measured: Floats, tolerance: float = 0.3) -> Floats:
    """The parameters of a dense table by least squares, outliers beyond a few ``tolerance`` bounded.

    Args:
        work: float64 columns [rows].
        measured: logarithm of milliseconds [rows].
        tolerance: the deviation that counts as one.
    """

    def residuals(theta: Floats) -> Floats:
        deviation = (measured - log_ms(theta, work)) / (3 * tolerance)
        return np.concatenate([3 * np.tanh(deviation), (theta - START) / SPREAD])

    result: Floats = least_squares(residuals, START).x
    return result
