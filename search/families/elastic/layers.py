r"""Layers whose channels and kernel size are chosen at each call, from one set of weights.

Smaller depthwise kernels are the centre of the next larger one, times a learned matrix that all channels of the layer
share (Cai et al., arXiv:1908.09791, section 3.3): with $v_k$ the flattened $k \times k$ kernel of one channel,

$$v_{k'} = M_{k \to k'} \operatorname{centre}_{k'}(v_k), \qquad M_{k \to k'} \in R^{k'^2 \times k'^2},$$

where every $M$ is the identity at first and $k \to k'$ runs through all sizes from the largest on. Fewer channels are
the first ones.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from .shape import BlockShape, ElasticShape


class ElasticDepthwise(nn.Module):
    """The weights of a depthwise convolution of several sizes and channel counts.

    Args:
        channels: of the widest one.
        kernels: odd sizes, ascending.
    """

    def __init__(self, channels: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.kernels = kernels
        self.weight = nn.Parameter(torch.empty(channels, 1, kernels[-1], kernels[-1]))
        self.matrices = nn.ParameterDict(
            {self._step(large, small): nn.Parameter(torch.eye(small**2)) for small, large in pairwise(kernels)}
        )

    def kernel(self, size: int, channels: int) -> torch.Tensor:
        """The kernel [channels, 1, size, size] of the first channels."""
        weight = self.weight[:channels]
        for small, large in list(pairwise(self.kernels))[::-1]:
            if large <= size:
                break
            cut = (large - small) // 2
            centre = weight[:, :, cut : cut + small, cut : cut + small].reshape(channels, small**2)
            weight = (centre @ self.matrices[self._step(large, small)].T).view(channels, 1, small, small)
        return weight

    @staticmethod
    def _step(large: int, small: int) -> str:
        return f"{large}to{small}"


class ElasticBlock(nn.Module):
    """The weights of a block of every kernel size and expansion.

    Args:
        block: its place and channels.
        shape: of the network.
    """

    def __init__(self, block: BlockShape, shape: ElasticShape) -> None:
        super().__init__()
        hidden, outputs = block.hidden(block.stage.expansions[-1]), block.stage.width
        self.block = block
        self.expand = nn.Conv2d(block.inputs, hidden, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(hidden, eps=shape.eps)
        self.depthwise = ElasticDepthwise(hidden, block.stage.kernels)
        self.depthwise_norm = nn.BatchNorm2d(hidden, eps=shape.eps)
        self.project = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(outputs, eps=shape.eps)

    def forward(self, x: torch.Tensor, kernel: int, expansion: int, act: nn.Module) -> torch.Tensor:
        """[B, inputs, H, W] -> [B, width, ceil(H / stride), ceil(W / stride)] with the chosen size."""
        hidden, stride = self.block.hidden(expansion), self.block.stride
        y = act(normalized(functional.conv2d(x, self.expand.weight[:hidden]), self.expand_norm))
        y = functional.conv2d(y, self.depthwise.kernel(kernel, hidden), None, stride, kernel // 2, groups=hidden)
        y = act(normalized(y, self.depthwise_norm))
        y = normalized(functional.conv2d(y, self.project.weight[:, :hidden]), self.project_norm)
        return x + y if self.block.residual else y


def normalized(x: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
    """Batch normalization by the first channels of ``norm``; in training mode it updates their statistics in place."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum is not None
    count = x.shape[1]
    return functional.batch_norm(
        x,
        norm.running_mean[:count],
        norm.running_var[:count],
        norm.weight[:count],
        norm.bias[:count],
        norm.training,
        norm.momentum,
        norm.eps,
    )
