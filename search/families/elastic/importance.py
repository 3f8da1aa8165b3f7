r"""Sorting hidden channels by importance, so that fewer channels are the important ones.

Of a block's hidden channel $c$ the importance is the L1 norm of the weights that read it,
$I_c = \sum_o |W^{project}_{o c}|$ (Cai et al., arXiv:1908.09791, section 3.3, elastic width). Channels are permuted in
the three convolutions and their batch normalization together, which leaves the function of the block as it was.
"""

from __future__ import annotations

from itertools import pairwise

import torch

from .layers import ElasticBlock
from .network import ElasticNet


def sort_channels(net: ElasticNet, opened: int = 1) -> None:
    """Sort the hidden channels of every block in place, from important to unimportant.

    Args:
        net: changed in place.
        opened: how many of the largest expansions sub-networks have used in training so far. Channels stay on their
            side of these counts, so the function of those sub-networks stays as well.
    """
    for block in net.blocks.values():
        assert isinstance(block, ElasticBlock)
        _permute(block, channel_order(block, opened))


def channel_order(block: ElasticBlock, opened: int = 1) -> torch.Tensor:
    """Hidden channels [hidden] by falling importance between the counts of the opened expansions; ties keep order."""
    importance = block.project.weight.detach().abs().sum((0, 2, 3))
    counts = [block.block.hidden(expansion) for expansion in block.block.stage.expansions[-opened:]]
    edges = [0, *counts]
    return torch.cat(
        [start + importance[start:stop].argsort(descending=True, stable=True) for start, stop in pairwise(edges)]
    )


def _permute(block: ElasticBlock, order: torch.Tensor) -> None:
    rows = [block.expand.weight, block.depthwise.weight]
    for norm in (block.expand_norm, block.depthwise_norm):
        rows += [value for value in norm.state_dict(keep_vars=True).values() if value.ndim]
    with torch.no_grad():
        for tensor in rows:
            tensor.copy_(tensor[order])
        block.project.weight.copy_(block.project.weight[:, order])
