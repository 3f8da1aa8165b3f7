"""Supernets that ship: their shape, their training and their data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ....errors import InvalidInput
from ....zoo import digits_resnet20, fashion_resnet
from ....zoo.labelled import Images, shifted
from .phases import progressive_shrinking
from .recipe import ElasticRecipe
from .shape import ElasticShape, ElasticStage
from .training import Draw


@dataclass(frozen=True)
class Preset:
    """A supernet that ships.

    Attributes:
        recipe: of a width (multiplies all channels) and a seed.
        data: training and test images.
    """

    recipe: Callable[[float, int], ElasticRecipe] = field(repr=False)
    data: Callable[[], tuple[Images, Images]] = field(repr=False)


def batches_of(images: Images, size: int, shift: int = 1) -> Draw:
    """Training batches: images drawn with replacement and moved by up to ``shift`` pixels."""

    def draw(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = images.take(torch.randint(len(images), (size,), generator=generator))
        return shifted(chosen.inputs, shift, generator), chosen.targets

    return draw


def preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        InvalidInput: there is none of that name.
    """
    if name not in PRESETS:
        raise InvalidInput(f"no elastic preset is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def _fashion(width: float, seed: int) -> ElasticRecipe:
    def stage(channels: int, stride: int) -> ElasticStage:
        return ElasticStage(channels, stride, depths=(1, 2, 3), kernels=(3, 5), expansions=(2, 3, 4))

    shape = ElasticShape((stage(16, 1), stage(24, 2), stage(40, 2)), stem=16, head=96, resolutions=(20, 24, 28))
    phases = progressive_shrinking(shape.scaled(width), largest_steps=900, steps=450, largest_rate=2e-2, rate=1e-2)
    return ElasticRecipe("fashion", "fashion-mnist train, moved by 1 pixel", shape.scaled(width), phases, seed=seed)


def _digits(width: float, seed: int) -> ElasticRecipe:
    stages = (
        ElasticStage(8, 1, depths=(1, 2), kernels=(3, 5), expansions=(2, 4)),
        ElasticStage(16, 2, depths=(1, 2), kernels=(3, 5), expansions=(2, 4)),
    )
    shape = ElasticShape(stages, stem=8, head=32, resolutions=(6, 8), stem_stride=1).scaled(width)
    phases = progressive_shrinking(shape, largest_steps=80, steps=40, largest_rate=4e-2, rate=2e-2, samples=1)
    return ElasticRecipe("digits", "sklearn.load_digits, moved by 1 pixel", shape, phases, seed=seed)


PRESETS = {
    "fashion": Preset(_fashion, fashion_resnet.data),
    "digits": Preset(_digits, digits_resnet20.data),
}
