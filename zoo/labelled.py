"""Labelled images: splits, training batches and the loss that the two trained classifiers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ..errors import InvalidInput
from .entry import Batch, Loaded, Options, batches
from .fold import fold_batch_norm
from .resnet import ResNet
from .training import Recipe, fit, reproducible
from .weights_cache import cached


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
        inputs: float32 [N, 1, H, W], normalised.
        targets: Classes, int64 [N].
    """

    inputs: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        """N."""
        return len(self.targets)

    def take(self, index: torch.Tensor) -> Images:
        """The samples at `index`."""
        return Images(self.inputs[index], self.targets[index])


def cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of logits [B, classes] and classes [B]."""
    return nn.functional.cross_entropy(outputs, targets)


def accuracy(model: nn.Module, data: list[Batch]) -> float:
    """Share of samples whose largest logit is their class.

    Args:
        model: Returns logits [B, classes].
        data: Labelled batches.
    """
    right = total = 0
    with torch.no_grad():
        for inputs, targets in data:
            assert targets is not None
            right += int((model(inputs).argmax(-1) == targets).sum())
            total += len(targets)
    return right / total


def shifted(images: torch.Tensor, by: int, generator: torch.Generator) -> torch.Tensor:
    """Move each image by up to `by` pixels in both directions; what enters from outside is the image's corner value.

    Args:
        images: [B, C, H, W].
        by: Pixels.
        generator: Draws the shifts.

    Returns:
        [B, C, H, W].
    """
    count, _, height, width = images.shape
    padded = nn.functional.pad(images, (by,) * 4, mode="replicate")
    rows, columns = torch.randint(2 * by + 1, (2, count, 1), generator=generator)
    row = (rows + torch.arange(height))[:, None, :, None]
    column = (columns + torch.arange(width))[:, None, None, :]
    return padded[torch.arange(count)[:, None, None, None], torch.arange(images.shape[1])[:, None, None], row, column]


def loaded(
    build: Callable[[], ResNet], recipe: Recipe, train: Images, test: Images, options: Options, *, shift: int
) -> Loaded:
    """Train or read the classifier, and draw the splits.

    Calibration samples come from the training images, validation and holdout samples from two fixed halves of the
    test images.

    Args:
        build: Makes the untrained network.
        recipe: Fixes its training.
        train: Training images.
        test: Test images; even places are for validation, odd ones for holdout.
        options: What the caller asked for.
        shift: Pixels by which training images are moved at random.

    Returns:
        The network with BatchNorm folded, and its splits.

    Raises:
        InvalidInput: More samples were asked for than there are.
    """

    def draw(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = train.take(torch.randint(len(train), (recipe.batch,), generator=generator))
        return shifted(chosen.inputs, shift, generator), chosen.targets

    def fill(model: ResNet) -> None:
        fit(model, recipe, draw, cross_entropy, options.progress)

    def split(name: str, pool: Images, count: int) -> list[Batch]:
        if count > len(pool):
            raise InvalidInput(f"{recipe.name}: {name}={count}, but there are {len(pool)} images for it")
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(options.seed))[:count]
        return batches(pool.inputs[order], pool.targets[order])

    places = torch.arange(len(test))
    calibration = split("calibration", train, options.sizes.calibration)
    validation = split("validation", test.take(places[::2]), options.sizes.validation)
    holdout = split("holdout", test.take(places[1::2]), options.sizes.holdout)
    with reproducible(recipe.seed):
        model = build()
    folded = fold_batch_norm(cached(model, recipe, fill, options.cache))
    return Loaded(folded, calibration, validation, holdout, cross_entropy)
