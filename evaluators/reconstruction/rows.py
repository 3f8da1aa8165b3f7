r"""The rows that a weight is multiplied with: what a layer's input looks like as a matrix product.

Every layer with a weight computes :math:`y = W x` for many vectors x: the tokens of a linear layer, the patches of a
convolution. W is the weight as a matrix [channels, elements] (``quantizers.Layout.matrix``). Groups of a convolution,
and the three parts of a packed attention projection, make it several independent products, called blocks here:

===============================  ==========================================  ====================================
layer                            a row x                                     blocks
===============================  ==========================================  ====================================
linear, Hugging Face ``Conv1D``  the last axis of the input                  1
convolution                      a patch: the inputs under the kernel        ``groups``, one below the other
transposed convolution           the inputs that reach one output position   ``groups``, side by side
``nn.MultiheadAttention``        query, key, value; what leaves the heads    3 for ``in_proj_weight``, else 1
===============================  ==========================================  ====================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InvalidInput
from ..float_run import first_tensor
from .attention import PACKED, attention_inputs
from .patches import CONVOLUTIONS, TRANSPOSED, patches, transposed_patches


@dataclass(frozen=True, slots=True)
class Blocks:
    """How the matrix [channels, elements] of a weight falls into independent products.

    Attributes:
        count: how many blocks there are.
        across: whether they lie side by side (each has all channels and some elements) and not one below the other.
    """

    count: int = 1
    across: bool = False

    @staticmethod
    def of(module: nn.Module, weight: Tensor) -> Blocks:
        """The blocks in which a module multiplies a weight."""
        if isinstance(module, TRANSPOSED):
            return Blocks(module.groups, across=True)
        if isinstance(module, CONVOLUTIONS):
            return Blocks(module.groups)
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is weight:
            return Blocks(PACKED)
        return Blocks()

    def split(self, matrix: Tensor) -> Tensor:
        """[channels, elements] -> [blocks, channels of a block, elements of a block]."""
        if self.across:
            return matrix.reshape(matrix.shape[0], self.count, -1).transpose(0, 1)
        return matrix.reshape(self.count, -1, matrix.shape[1])

    def join(self, blocks: Tensor) -> Tensor:
        """The inverse of ``split``."""
        if self.across:
            return blocks.transpose(0, 1).reshape(blocks.shape[1], -1)
        return blocks.reshape(-1, blocks.shape[2])

    def by_channel(self, values: Tensor) -> Tensor:
        """Values [blocks, channels of a block] added up for each of the channels: [channels]."""
        return values.sum(0) if self.across else values.reshape(-1)


@dataclass(frozen=True)
class Rows:
    """The rows of one call of a layer, not yet copied out of the input.

    Attributes:
        windows: view [*positions, channels, *kernel] of the (padded) input.
        axes: how many leading axes are positions.
        blocks: into how many blocks the channels fall.
        first: the block that the first of them belongs to.
    """

    windows: Tensor
    axes: int = 1
    blocks: int = 1
    first: int = 0

    def __len__(self) -> int:
        return math.prod(self.windows.shape[: self.axes])

    @property
    def elements(self) -> int:
        """Elements of one row, over all blocks."""
        return math.prod(self.windows.shape[self.axes :])

    def take(self, index: Tensor) -> Tensor:
        """The rows at some positions: float32 [blocks, len(index), elements of a block]."""
        where = torch.unravel_index(index.to(self.windows.device), self.windows.shape[: self.axes])
        return self.windows[where].float().reshape(len(index), self.blocks, -1).transpose(0, 1)


def call_rows(
    module: nn.Module, weight: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> list[Rows]:
    """The rows that a weight is multiplied with in one call of a module.

    Args:
        module: the layer that was called.
        weight: its weight (an attention has several).
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
        output: what the call returned.

    Returns:
        The rows, by block where the blocks read different tensors.

    Raises:
        InvalidInput: the layer got no floating-point input.
    """
    if isinstance(module, nn.MultiheadAttention):
        inputs = attention_inputs(module, weight, args, kwargs)
        return [Rows(value.reshape(-1, value.shape[-1]), first=block) for block, value in enumerate(inputs)]
    value = first_tensor(args, kwargs)
    if value is None or not value.is_floating_point():
        raise InvalidInput(f"{type(module).__name__} gets no floating-point input to reconstruct it on; exclude it")
    if isinstance(module, TRANSPOSED):
        windows = transposed_patches(module, value, output)
        return [Rows(windows, windows.ndim // 2, module.groups)]
    if isinstance(module, CONVOLUTIONS):
        windows = patches(module, value)
        return [Rows(windows, windows.ndim // 2, module.groups)]
    return [Rows(value.reshape(-1, value.shape[-1]))]
