"""ResNet-20 on scikit-learn's handwritten digits (UCI's optical digits; 1,797 images of 8x8)."""

from __future__ import annotations

import torch

from .entry import Card, Loaded, Options, Sizes
from .labelled import Images, loaded
from .resnet import ResNet
from .training import Recipe

_INSTALL = "pip install scikit-learn"
_TRAIN = 1000


def data() -> tuple[Images, Images]:
    """The fixed split.

    Returns:
        1,000 training images and the other 797 for testing, float32 [N, 1, 8, 8] of about zero mean, unit variance.
    """
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    inputs = (torch.from_numpy(pixels).float().view(-1, 1, 8, 8) - 4.9) / 6.0
    everything = Images(inputs, torch.from_numpy(classes).long())
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))
    return everything.take(order[:_TRAIN]), everything.take(order[_TRAIN:])


def recipe() -> Recipe:
    """The fixed recipe."""
    return Recipe("digits_resnet20", 1, "sklearn.load_digits", steps=500, batch=64, learning_rate=5e-3, warmup=0.2)


def _load(options: Options) -> Loaded:
    return loaded(ResNet, recipe(), *data(), options, shift=1)


CARD = Card(
    name="digits_resnet20",
    description="ResNet-20 for handwritten digits, 8x8",
    quality="accuracy",
    licence="weights Apache-2.0 (trained here); digits CC BY 4.0 (UCI)",
    source="trained by the zoo on scikit-learn's load_digits, the test set of UCI's optical digits",
    parameters=271_402,
    sizes=Sizes(256, 399, 398),
    loader=_load,
    install={"sklearn": _INSTALL},
)
