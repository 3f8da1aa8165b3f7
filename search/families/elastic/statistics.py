"""Inputs of a sub-network's resolution, and its own batch-norm statistics on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn

from ....errors import InvalidInput

M = TypeVar("M", bound=nn.Module)


def resized(images: torch.Tensor, resolution: int | None) -> torch.Tensor:
    """Images [B, C, H, W] resized to a square, bilinear without antialiasing; ``None`` leaves them."""
    if resolution is None or images.shape[-2:] == (resolution, resolution):
        return images
    return functional.interpolate(images, (resolution, resolution), mode="bilinear", align_corners=False)


def recalibrated(model: M, batches: Iterable[torch.Tensor], resolution: int | None = None) -> M:
    """Give a sub-network batch-norm statistics of its own: means over batches of their mean and variance.

    A sub-network of shared weights has other activations than the mixture that the supernet's statistics describe
    (Yu and Huang, arXiv:1903.05134, "post-statistics"). Each batch is run with the statistics of the batch itself; the
    variance is the unbiased one.

    Args:
        model: changed in place, left in evaluation mode.
        batches: images [B, C, H, W], of one size, on the model's device.
        resolution: that they are resized to.

    Returns:
        ``model``.

    Raises:
        InvalidInput: there is no batch.
    """
    images = [resized(batch, resolution) for batch in batches]
    if not images:
        raise InvalidInput("batch-norm statistics need calibration batches, got none")
    update_bn(images, model)
    return model.eval()
