"""The vocabulary of the zoo: what an entry is before it is loaded (Card) and after (ZooEntry)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn

from ..errors import InvalidInput

Inputs: TypeAlias = torch.Tensor | dict[str, torch.Tensor]
"""What one call of the model takes: a tensor, or a dict of keyword tensors. The first dimension is the batch."""

Batch: TypeAlias = tuple[Inputs, torch.Tensor | None]
"""(inputs, targets); targets is None where the data carry no labels."""

Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(outputs, targets) -> scalar."""

Progress: TypeAlias = Callable[[int, int, float], None]
"""Called while weights are trained: (steps done, steps in all, training loss of the last step)."""

BATCH_SIZE = 16


@dataclass(frozen=True)
class Sizes:
    """How many samples each split holds.

    Attributes:
        calibration: Samples that scoring and calibration may see.
        validation: Samples on which candidates are compared.
        holdout: Samples for the final judgement only.
    """

    calibration: int
    validation: int
    holdout: int

    def __post_init__(self) -> None:
        for split in ("calibration", "validation", "holdout"):
            size = getattr(self, split)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise InvalidInput(f"{split}={size!r}: a split holds a whole number of samples, at least 1")


@dataclass(frozen=True)
class Options:
    """What the caller of `zoo.load` asked for.

    Attributes:
        sizes: Samples of each split.
        seed: Chooses which samples the splits hold; never how weights are trained.
        cache: Folder of trained weights; None is the default folder of `weights_cache`.
        progress: Told about training steps, or None.
        folder: Where a data set lies that is not a Python package; None is its usual place.
    """

    sizes: Sizes
    seed: int = 0
    cache: Path | None = None
    progress: Progress | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class ZooEntry:
    """A model ready for a search, with its data.

    Attributes:
        name: The registry name.
        model: In eval mode, float32, on the CPU, every parameter with `requires_grad`; returns one tensor.
        calibration: Batches for scoring and calibration.
        validation: Batches for comparing candidates; shares no photograph, topic or sample with `calibration`.
        holdout: Batches for the final judgement; shares nothing with the other two.
        example_inputs: One small batch of inputs, for tracing and export.
        quality: The metric to judge by: "kl", "accuracy", "perplexity", "relative_error" or "loss".
        loss: Differentiable loss of (outputs, targets), or None where the data carry no targets.
        licence: Licence of the weights and of the data.
        source: Where both come from.
        description: One line on the model.
        input_names: Keyword names in the order of `forward` where inputs are a dict, else empty.
    """

    name: str
    model: nn.Module = field(repr=False)
    calibration: list[Batch] = field(repr=False)
    validation: list[Batch] = field(repr=False)
    holdout: list[Batch] = field(repr=False)
    example_inputs: Inputs = field(repr=False)
    quality: str
    loss: Loss | None
    licence: str
    source: str
    description: str
    input_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """What a model's file returns; `zoo.load` adds the card and makes a `ZooEntry` of it."""

    model: nn.Module
    calibration: list[Batch]
    validation: list[Batch]
    holdout: list[Batch]
    loss: Loss | None = None


@dataclass(frozen=True)
class Card:
    """What is known of an entry without loading it.

    Attributes:
        name: The registry name.
        description: One line on the model.
        quality: Default quality metric.
        licence: Licence of the weights and of the data.
        source: Where both come from.
        parameters: Number of parameters with BatchNorm folded.
        sizes: Default number of samples of each split.
        install: Import name of each Python package that loading needs -> the command that installs it.
        loader: Builds the model and its data.
    """

    name: str
    description: str
    quality: str
    licence: str
    source: str
    parameters: int
    sizes: Sizes
    loader: Callable[[Options], Loaded] = field(repr=False, compare=False)
    install: dict[str, str] = field(default_factory=dict, repr=False)

    def require(self) -> None:
        """Check that every package that this entry needs is installed.

        Raises:
            InvalidInput: One is not; the message gives the command that installs it.
        """
        for package in self.install:
            package_folder(package, self.install[package], needed_by=self.name)


def package_folder(package: str, install: str, *, needed_by: str) -> Path:
    """The folder of an installed package, found without importing it.

    Args:
        package: Import name.
        install: Command that installs it, for the message.
        needed_by: Name of the entry, for the message.

    Returns:
        The folder that holds the package's files.

    Raises:
        InvalidInput: The package is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise InvalidInput(f"zoo entry {needed_by!r} needs the package {package}, which is not installed: {install}")
    return Path(next(iter(found.submodule_search_locations)))


def batches(inputs: torch.Tensor, targets: torch.Tensor | None = None, size: int = BATCH_SIZE) -> list[Batch]:
    """Cut samples into batches of at most `size`, in order.

    Args:
        inputs: [N, ...].
        targets: [N, ...] or None.
        size: Samples a batch.

    Returns:
        ceil(N / size) pairs (inputs, targets).
    """
    cuts = [slice(start, start + size) for start in range(0, len(inputs), size)]
    return [(inputs[cut], None if targets is None else targets[cut]) for cut in cuts]
