r"""Min-max: nothing that was seen is clipped.

.. math:: l = \min_i x_i, \qquad h = \max_i x_i

over all calibration data (Krishnamoorthi 2018, arXiv:1806.08342, section 3.1.2; Nagel et al. 2021, arXiv:2106.08295,
eq. 3.1). One outlier widens the step for everything else.
"""

from __future__ import annotations

from torch import Tensor

from ...formats import TensorFormat
from ..quantizers import Range
from .protocol import widest


class MinMax:
    """Keeps the smallest and the largest value."""

    def __init__(self) -> None:
        self._seen: Range | None = None

    def observe(self, value: Tensor, extremes: Range) -> None:
        """Widen the range; see ``Observer``."""
        self._seen = widest(self._seen, extremes)

    def end_batch(self) -> None:
        """Nothing to do: the range does not depend on how the data is cut into batches."""

    def range(self, target: TensorFormat) -> Range:
        """The extremes, whatever the format."""
        assert self._seen is not None
        return self._seen
