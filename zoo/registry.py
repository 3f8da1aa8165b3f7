"""The entries by name, and how one is loaded."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import torch

from ..errors import InvalidInput
from . import char_gpt, digits_resnet20, efficientnet_lite0, fashion_resnet, minilm_l6, mobilenet_v2
from .entry import Card, Inputs, Options, Progress, Sizes, ZooEntry

_MODULES = (efficientnet_lite0, mobilenet_v2, minilm_l6, char_gpt, digits_resnet20, fashion_resnet)
_CARDS: dict[str, Card] = {module.CARD.name: module.CARD for module in _MODULES}


def names() -> list[str]:
    """The names of all entries, in the order of docs/zoo.md."""
    return list(_CARDS)


def describe(name: str) -> Card:
    """What is known of an entry without loading it.

    Args:
        name: One of `names()`.

    Returns:
        Its card: description, quality metric, licence, source, number of parameters, default sizes.

    Raises:
        InvalidInput: No entry has this name; the message names the nearest one.
    """
    if name not in _CARDS:
        near = difflib.get_close_matches(str(name), _CARDS, n=1, cutoff=0.0)[0]
        raise InvalidInput(f"no zoo entry is called {name!r}; the nearest is {near!r} (all: {', '.join(_CARDS)})")
    return _CARDS[name]


def load(
    name: str,
    *,
    calibration: int | None = None,
    validation: int | None = None,
    holdout: int | None = None,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> ZooEntry:
    """Load a model with its weights and its data.

    Entries whose weights the zoo trains itself are trained on the first call and read from the cache afterwards.

    Args:
        name: One of `names()`.
        calibration: Samples of the calibration split; None is the entry's default.
        validation: Samples of the validation split; None is the entry's default.
        holdout: Samples of the holdout split; None is the entry's default.
        seed: Chooses which samples the splits hold. The same seed gives the same tensors.
        cache: Folder of trained weights; None is $BITFRONT_CACHE, or ~/.cache/bitfront/zoo.
        progress: Called as progress(steps done, steps in all, loss) while weights are trained.
        folder: Where the data set lies, for entries whose data are not a Python package (fashion_resnet).

    Returns:
        The entry; see `ZooEntry`.

    Raises:
        InvalidInput: Unknown name, a size below 1 or beyond the data, or a missing package or file (the message gives
            the command that installs it).
    """
    card = describe(name)
    default = card.sizes
    sizes = Sizes(
        default.calibration if calibration is None else calibration,
        default.validation if validation is None else validation,
        default.holdout if holdout is None else holdout,
    )
    card.require()
    made = card.loader(
        Options(sizes, seed, None if cache is None else Path(cache), progress, None if folder is None else Path(folder))
    )
    inputs = made.calibration[0][0]
    return ZooEntry(
        name=name,
        model=made.model.eval().requires_grad_(True),
        calibration=made.calibration,
        validation=made.validation,
        holdout=made.holdout,
        example_inputs=_first_two(inputs),
        quality=card.quality,
        loss=made.loss,
        licence=card.licence,
        source=card.source,
        description=card.description,
        input_names=tuple(inputs) if isinstance(inputs, dict) else (),
    )


def _first_two(inputs: Inputs) -> Inputs:
    """A batch of at most two: with one sample, exporters take the batch dimension for a constant."""
    if isinstance(inputs, torch.Tensor):
        return inputs[:2].clone()
    return {key: value[:2].clone() for key, value in inputs.items()}
