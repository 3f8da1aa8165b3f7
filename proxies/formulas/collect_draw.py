"""Which elements of a weight stand for it: a random block of rows and columns of the matrix [channels, elements]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import InvalidInput

if TYPE_CHECKING:
    from ...space import SearchSpace, Site


@dataclass(frozen=True, eq=False)
class Block:
    """The drawn block of one site.

    Attributes:
        site: whose.
        rows: output channels, ascending.
        columns: elements of a row, ascending.
    """

    site: Site
    rows: Tensor
    columns: Tensor

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Of the whole weight: output channels, and elements behind each."""
        channels = self.site.weight_shape[self.site.channel_axis]
        return channels, self.site.elements // max(1, channels)

    @property
    def shape(self) -> tuple[int, int]:
        """Drawn rows and columns."""
        return len(self.rows), len(self.columns)

    def matrix(self, weight: Tensor) -> Tensor:
        """A tensor of the weight's shape as a matrix [channels, elements]."""
        return weight.movedim(self.site.channel_axis, 0).reshape(self.matrix_shape)

    def of(self, weight: Tensor) -> Tensor:
        """The drawn elements of a tensor of the weight's shape, row by row: float32 [rows * columns]."""
        return self.of_matrix(self.matrix(weight))

    def of_matrix(self, matrix: Tensor) -> Tensor:
        """The drawn elements of a matrix [channels, elements] (or broadcastable to it): float32 [rows * columns]."""
        whole = matrix.expand(self.matrix_shape)
        rows, columns = self.rows.to(matrix.device), self.columns.to(matrix.device)
        return whole[rows][:, columns].float().flatten()


def drawn_blocks(space: SearchSpace, elements: int, seed: int) -> list[Block]:
    """A block of about ``elements`` elements of every site; the whole weight where it has no more.

    The block has the proportions of the weight, as far as whole rows and columns allow. The draw of a site depends on
    the seed and its position alone.

    Raises:
        InvalidInput: ``elements`` is less than 1.
    """
    if elements < 1:
        raise InvalidInput(f"elements={elements}: draw at least 1 element of every weight")
    return [_drawn(site, elements, [abs(seed), int(seed < 0), row]) for row, site in enumerate(space.sites)]


def shapes(blocks: Sequence[Block]) -> NDArray[np.int64]:
    """Drawn rows and columns of every site: int64 [sites, 2]."""
    return np.array([block.shape for block in blocks], dtype=np.int64)


def _drawn(site: Site, elements: int, seed: list[int]) -> Block:
    whole = Block(site, torch.empty(0), torch.empty(0)).matrix_shape
    rows, columns = whole
    if rows * columns > elements:
        rows = int(np.clip(round((elements * whole[0] / whole[1]) ** 0.5), 1, whole[0]))
        columns = int(np.clip(elements // rows, 1, whole[1]))
        rows = int(np.clip(elements // columns, 1, whole[0]))
    generator = np.random.default_rng(seed)
    chosen = [
        torch.from_numpy(np.sort(generator.permutation(size)[:count]))
        for size, count in zip(whole, (rows, columns), strict=True)
    ]
    return Block(site, *chosen)
