"""Which elements of a tensor share a scale: a tensor as rows with one scale each, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...formats import TensorFormat


@dataclass(frozen=True)
class Layout:
    """The scales of a weight.

    A weight is seen as a matrix [channels, elements] with its output channels first. Groups run along its rows; what
    is left over at the end of a row, or at the rim of a square, forms a smaller group.

    Attributes:
        shape: of the weight.
        channel_axis: axis of the output channels.
        target: says what shares a scale (``tensor``, ``channel``, ``group`` or ``block``).
    """

    shape: tuple[int, ...]
    channel_axis: int
    target: TensorFormat

    @staticmethod
    def of(weight: Tensor, target: TensorFormat, channel_axis: int) -> Layout:
        """The layout of a weight."""
        return Layout(tuple(weight.shape), channel_axis, target)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Output channels, and elements behind each."""
        channels = self.shape[self.channel_axis]
        return channels, math.prod(self.shape) // max(1, channels)

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """Shape of the scales: [1], [channels], [channels, groups], or [squares down, squares across]."""
        channels, elements = self.matrix_shape
        size = self.target.group
        if self.target.granularity == "group":
            return channels, math.ceil(elements / size)
        if self.target.granularity == "block":
            return math.ceil(channels / size), math.ceil(elements / size)
        return (channels,) if self.target.granularity == "channel" else (1,)

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight as a matrix [channels, elements]."""
        return weight.movedim(self.channel_axis, 0).reshape(self.matrix_shape)

    def tensor(self, matrix: Tensor) -> Tensor:
        """The inverse of ``matrix``."""
        moved = [self.shape[self.channel_axis], *_without(self.shape, self.channel_axis)]
        return matrix.reshape(moved).movedim(0, self.channel_axis)

    def rows(self, weight: Tensor) -> Tensor:
        """The elements of each scale: [scales, elements per scale], short groups filled up with zeros."""
        matrix, size = self.matrix(weight), self.target.group
        if self.target.granularity == "tensor":
            return matrix.reshape(1, -1)
        if self.target.granularity == "channel":
            return matrix
        across = -matrix.shape[1] % size
        if self.target.granularity == "group":
            return functional.pad(matrix, (0, across)).reshape(-1, size)
        padded = functional.pad(matrix, (0, across, 0, -matrix.shape[0] % size))
        down, wide = self.scale_shape
        return padded.reshape(down, size, wide, size).transpose(1, 2).reshape(-1, size * size)

    def from_rows(self, rows: Tensor) -> Tensor:
        """The inverse of ``rows``: a tensor of the weight's shape."""
        channels, elements = self.matrix_shape
        size = self.target.group
        if self.target.granularity == "group":
            rows = rows.reshape(channels, -1)[:, :elements]
        elif self.target.granularity == "block":
            down, wide = self.scale_shape
            rows = rows.reshape(down, wide, size, size).transpose(1, 2).reshape(down * size, wide * size)
            rows = rows[:channels, :elements]
        return self.tensor(rows.reshape(self.matrix_shape))

    def expand(self, scale: Tensor) -> Tensor:
        """Scales (or zero-points) [*scale_shape], spread so that they multiply the matrix [channels, elements]."""
        channels, elements = self.matrix_shape
        scale, size = scale.reshape(self.scale_shape), self.target.group
        if self.target.granularity == "tensor":
            return scale.reshape(1, 1)
        if self.target.granularity == "channel":
            return scale.reshape(-1, 1)
        if self.target.granularity == "block":
            scale = scale.repeat_interleave(size, 0)[:channels]
        return scale.repeat_interleave(size, 1)[:, :elements]


def _without(shape: Sequence[int], axis: int) -> list[int]:
    return [size for position, size in enumerate(shape) if position != axis]


def as_groups(value: Tensor, size: int) -> Tensor:
    """The last axis of an activation cut into groups: [..., groups, size], the last one filled up with zeros."""
    padded = functional.pad(value, (0, -value.shape[-1] % size)) if value.shape[-1] % size else value
    return padded.reshape(*value.shape[:-1], -1, size)


def from_groups(groups: Tensor, features: int) -> Tensor:
    """The inverse of ``as_groups``."""
    flat = groups.reshape(*groups.shape[:-2], -1)
    return flat if flat.shape[-1] == features else torch.narrow(flat, -1, 0, features)
