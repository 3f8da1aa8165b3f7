r"""A histogram that grows with its data: bounded memory, one pass, the same counts in any order of the data.

The bins of a column have the width :math:`2^{e} / (B / 2)` and cover :math:`[-2^e, 2^e)`, where :math:`2^e` is the
smallest power of two above every magnitude so far. When a larger magnitude comes, neighbouring bins merge in pairs.
Edges of wider bins are edges of narrower ones, so the counts are those of a histogram that had known the final range
from the start. Between B/4 and B/2 bins lie between zero and the largest magnitude. Exact zeros (half of what a ReLU
puts out) are counted apart: every format represents them exactly, and a bin around them would not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..quantizers import Range
from .protocol import widest

_BINS, _FEWEST_BINS = 1 << 14, 1 << 10
_COUNTS = 1 << 20  # counters of one histogram, unless there are more than 1024 columns
_CHUNK = 1 << 16  # elements at a time: a chunk and its indices stay in the second-level cache
_SMALLEST_EXPONENT = -100  # below it the inverse of the bin width is no float32


class Histogram:
    """Counts of each column of the tensors that it is given.

    Memory: 128 KiB for one column, at most 8 MiB for up to 1024 columns, 8 KiB a column for more.

    Args:
        columns: how many histograms are kept side by side.
        device: where the tensors are.
    """

    def __init__(self, columns: int, device: torch.device | str = "cpu") -> None:
        fitting = 1 << max(0, (_COUNTS // columns).bit_length() - 1)
        self.bins = min(_BINS, max(_FEWEST_BINS, fitting))
        self.counts = torch.zeros(columns, self.bins, dtype=torch.int64, device=device)
        self.zeros = torch.zeros(columns, dtype=torch.int64, device=device)
        self._exponent = torch.full((columns,), _SMALLEST_EXPONENT, dtype=torch.int32, device=device)
        self._extremes: Range | None = None

    @property
    def extremes(self) -> Range:
        """Smallest and largest value so far, each [columns]."""
        assert self._extremes is not None
        return self._extremes

    @property
    def width(self) -> Tensor:
        """Width of the bins: float32 [columns]."""
        half = self.bins.bit_length() - 2  # bins / 2 = 2^half
        return torch.ldexp(torch.ones_like(self._exponent, dtype=torch.float32), self._exponent - half)

    def add(self, value: Tensor, extremes: Range) -> None:
        """Count the values of one tensor.

        Args:
            value: float32 [elements, columns], finite.
            extremes: its smallest and largest values, each [columns].
        """
        self._extremes = widest(self._extremes, extremes)
        self._grow(extremes)
        columns, inverse, flat = self.counts.shape[0], 1 / self.width, self.counts.view(-1)
        middle = torch.arange(columns, device=value.device, dtype=torch.int32) * self.bins + self.bins // 2
        for chunk in torch.split(value, max(1, _CHUNK // columns)):
            # the product is exact, as the width is a power of two
            index = (chunk * inverse).floor_().to(torch.int32).add_(middle)
            flat += torch.bincount(index.view(-1), minlength=flat.numel())
            self.zeros += chunk.shape[0] - torch.count_nonzero(chunk, dim=None if columns == 1 else 0)

    def points(self, merge: int = 1) -> tuple[Tensor, Tensor]:
        """The values as weighted points, without the exact zeros.

        Args:
            merge: how many neighbouring bins are taken together, a power of two.

        Returns:
            Middles of the bins that are not empty in every column, float32 [points, columns], ascending and within the
            extremes; and their counts, float64 [points, columns].
        """
        counts = self.counts.clone()
        half = self.bins // 2
        counts[:, half] -= self.zeros
        counts = counts.view(counts.shape[0], -1, merge).sum(2).t()
        kept = counts.any(1).nonzero()[:, 0]
        middles = (kept.double() - half // merge + 0.5) * merge
        points = (middles[:, None] * self.width.double()).float()
        return points.maximum(self.extremes.low).minimum(self.extremes.high), counts[kept].double()

    def quantile(self, share: float, magnitude: bool = False) -> Tensor:
        """The value below which a share of all values lies, linear within a bin: float32 [columns].

        Args:
            share: between 0 and 1.
            magnitude: ask for the magnitudes instead of the values.
        """
        half, width = self.bins // 2, self.width.double()[:, None]
        positive, negative = self.counts[:, half:].clone(), self.counts[:, :half]
        positive[:, 0] -= self.zeros
        right = torch.arange(1, half + 1, device=width.device, dtype=torch.float64).expand_as(positive)
        zero = torch.zeros_like(right[:, :1])
        if magnitude:
            counts = torch.cat([self.zeros[:, None], positive + negative.flip(1)], 1)
            below, above = torch.cat([zero, right - 1], 1), torch.cat([zero, right], 1)
        else:
            counts = torch.cat([negative, self.zeros[:, None], positive], 1)
            below = torch.cat([-right.flip(1), zero, right - 1], 1)
            above = torch.cat([1 - right.flip(1), zero, right], 1)
        cumulated = counts.double().cumsum(1)
        rank = share * cumulated[:, -1:]
        # the first bin that reaches the rank; an empty one reaches it only at share 0
        bin_ = torch.searchsorted(cumulated, rank.clamp(min=0.5)).clamp_(max=cumulated.shape[1] - 1)
        within = counts.gather(1, bin_).double()
        part = ((rank - (cumulated.gather(1, bin_) - within)) / within.clamp(min=1)).clamp_(0, 1)
        left, right_ = below.gather(1, bin_), above.gather(1, bin_)
        return ((left + part * (right_ - left)) * width)[:, 0].float()

    def _grow(self, seen: Range) -> None:
        """Merge bins until the magnitudes of ``seen`` fit."""
        largest = torch.maximum(-seen.low, seen.high)
        # largest < 2^needed; frexp gives 0 the exponent 0
        needed = torch.frexp(largest).exponent.masked_fill_(largest == 0, _SMALLEST_EXPONENT).clamp_(_SMALLEST_EXPONENT)
        shift = (needed - self._exponent).clamp_(0, 31)
        rows = shift.nonzero()[:, 0]
        if not len(rows):
            return
        half = self.bins // 2
        index = (torch.arange(self.bins, device=rows.device) - half) >> shift[rows, None].long()
        merged = torch.zeros_like(self.counts[rows])
        self.counts[rows] = merged.scatter_add_(1, index + half, self.counts[rows])
        self._exponent[rows] = torch.maximum(needed, self._exponent)[rows]
