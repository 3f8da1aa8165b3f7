r"""Moving average of the extremes of each batch.

.. math:: l \leftarrow \mu\, l + (1 - \mu) \min_i x_i, \qquad h \leftarrow \mu\, h + (1 - \mu) \max_i x_i

(Jacob et al. 2018, arXiv:1712.05877, section 3.1), started with the first batch. An outlier in one batch counts with a
weight of at most 1 - mu unless it is the first; the result depends on the order and the size of the batches.
"""

from __future__ import annotations

from torch import Tensor

from ...errors import InvalidInput
from ...formats import TensorFormat
from ..quantizers import Range
from .protocol import widest


class MovingAverage:
    """Keeps an exponential moving average of smallest and largest values.

    Args:
        momentum: the weight mu of what was seen before. Jacob et al. train for thousands of steps with a mu close to
            1; calibration sees a few dozen batches, so 0.9.

    Raises:
        InvalidInput: the momentum is not in [0, 1).
    """

    def __init__(self, momentum: float = 0.9) -> None:
        if not 0 <= momentum < 1:
            raise InvalidInput(f"the momentum of a moving average must be in [0, 1), got {momentum}; try 0.9")
        self.momentum = momentum
        self._average: Range | None = None
        self._batch: Range | None = None

    def observe(self, value: Tensor, extremes: Range) -> None:
        """Widen the range of this batch; see ``Observer``."""
        self._batch = widest(self._batch, extremes)

    def end_batch(self) -> None:
        """Take the range of this batch into the average."""
        if self._batch is None:
            return
        if self._average is None:
            self._average = self._batch
        else:
            moved = (
                before.lerp(now, 1 - self.momentum) for before, now in zip(self._average, self._batch, strict=True)
            )
            self._average = Range(*moved)
        self._batch = None

    def range(self, target: TensorFormat) -> Range:
        """The average, whatever the format."""
        assert self._average is not None
        return self._average
