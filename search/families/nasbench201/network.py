"""Networks of NAS-Bench-201 as plain modules: stem, three stages of cells, two residual reductions, head.

Dong and Yang 2020 (arXiv:2001.00326), section 2.1 and figure 1; operators as in the authors' code, trained from scratch
there with affine normalization, which the parameter counts of the benchmark include.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ....errors import InvalidInput
from ....hw_models.architecture import OPERATIONS
from .cell_space import EDGES


class Cell(nn.Module):
    """Four nodes; node j is the sum over its edges from earlier nodes i of the edge's operation on node i.

    An edge of operation ``none`` has no module, a node without edges is zero. Edges that lead nowhere run all the same,
    as in the benchmark.

    Args:
        operations: indices into ``OPERATIONS`` of the six edges.
        channels: of input and output.
        affine: whether normalizations have weights.
    """

    def __init__(self, operations: Sequence[int], channels: int, affine: bool = True) -> None:
        super().__init__()
        self.edges = nn.ModuleDict(
            {
                f"node{end}_from{start}": _operation(OPERATIONS[index], channels, affine)
                for (start, end), index in zip(EDGES, operations, strict=True)
                if OPERATIONS[index] != "none"
            }
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """[batch, channels, height, width] to the same shape."""
        nodes = [inputs]
        for end in (1, 2, 3):
            names = [(start, f"node{end}_from{start}") for start in range(end)]
            terms = [self.edges[name](nodes[start]) for start, name in names if name in self.edges]
            total = terms[0] if terms else torch.zeros_like(inputs)
            for term in terms[1:]:
                total = total + term
            nodes.append(total)
        return nodes[3]


class Reduction(nn.Module):
    """The residual block between stages: halves height and width, doubles the channels.

    Two ReLU-convolution-normalization, the first with stride 2, plus a 2x2 average pooling with a 1x1 convolution.

    Args:
        channels: of the input.
        affine: whether normalizations have weights.
    """

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__()
        self.first = _convolution(channels, 2 * channels, 3, 2, affine)
        self.second = _convolution(2 * channels, 2 * channels, 3, 1, affine)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(channels, 2 * channels, 1, bias=False))

    def forward(self, inputs: Tensor) -> Tensor:
        """[batch, c, h, w] to [batch, 2c, ceil(h/2), ceil(w/2)]."""
        branch: Tensor = self.second(self.first(inputs))
        shortcut: Tensor = self.shortcut(inputs)
        return shortcut + branch


@dataclass(frozen=True)
class NetworkSizes:
    """How large the networks of the benchmark are made; the defaults are those for CIFAR-10.

    Attributes:
        classes: of the head.
        channels: of the first stage; the others have two and four times as many.
        cells: of every stage.
        inputs: channels of the image.
        affine: whether normalizations have weights; without, convolutions have biases.

    Raises:
        InvalidInput: a size is not positive.
    """

    classes: int = 10
    channels: int = 16
    cells: int = 5
    inputs: int = 3
    affine: bool = True

    def __post_init__(self) -> None:
        if min(self.classes, self.channels, self.cells, self.inputs) < 1:
            raise InvalidInput(f"classes, channels, cells and inputs must be positive, got {self}")


class Nas201Network(nn.Module):
    """A network of the benchmark.

    Args:
        operations: indices into ``OPERATIONS`` of the six edges, see ``hw_models.architecture.parse_cell``.
        sizes: of the network.

    Raises:
        InvalidInput: there are not six operations.
    """

    def __init__(self, operations: Sequence[int], sizes: NetworkSizes | None = None) -> None:
        super().__init__()
        if len(operations) != len(EDGES) or not all(0 <= each < len(OPERATIONS) for each in operations):
            raise InvalidInput(
                f"a cell has {len(EDGES)} operations, indices below {len(OPERATIONS)}; got {list(operations)}"
            )
        sizes = sizes or NetworkSizes()
        channels, affine = sizes.channels, sizes.affine
        self.stem = nn.Sequential(nn.Conv2d(sizes.inputs, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        layers: list[nn.Module] = []
        for stage in range(3):
            width = channels * 2**stage
            if stage:
                layers.append(Reduction(width // 2, affine))
            layers += [Cell(operations, width, affine) for _ in range(sizes.cells)]
        self.body = nn.Sequential(*layers)
        last = 4 * channels
        self.activation = nn.Sequential(nn.BatchNorm2d(last), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(last, sizes.classes)

    def forward(self, images: Tensor) -> Tensor:
        """[batch, inputs, height, width] to logits [batch, classes]."""
        features = self.pool(self.activation(self.body(self.stem(images))))
        logits: Tensor = self.head(features.flatten(1))
        return logits


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, affine: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=not affine),
        nn.BatchNorm2d(outputs, affine=affine),
    )


def _operation(name: str, channels: int, affine: bool) -> nn.Module:
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return _convolution(channels, channels, 3 if name == "nor_conv_3x3" else 1, 1, affine)
