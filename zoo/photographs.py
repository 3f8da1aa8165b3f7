"""Real photographs that installed packages carry, cut into crops.

scikit-image and scikit-learn ship these files inside their wheels; they are read from the installed folders, nothing is
downloaded. Every photograph belongs to exactly one split, so no crop of a split shows what another split shows. The
left motorcycle picture stands alone: the right one is the same scene. Drawings, rendered text on white and masks
(logo, horse, phantom, chessboard, colour wheel) are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from .entry import package_folder

SPLITS: dict[str, tuple[str, ...]] = {
    "calibration": ("chelsea.png", "china.jpg", "astronaut.png", "coins.png", "grass.png", "hubble_deep_field.jpg"),
    "validation": ("coffee.png", "motorcycle_left.png", "camera.png", "brick.png", "clock_motion.png", "retina.jpg"),
    "holdout": ("flower.jpg", "rocket.jpg", "page.png", "gravel.png", "moon.png", "ihc.png"),
}
"""Split -> file names; fixed, so that results of different seeds may be compared."""

INSTALL = {"skimage": "pip install 'bitfront[zoo]'", "sklearn": "pip install 'bitfront[zoo]'"}
LICENCE = "CC0 or public domain (scikit-image's), CC BY 2.0 (scikit-learn's china.jpg and flower.jpg)"
SOURCE = "photographs bundled with scikit-image and scikit-learn"

_FROM_SKLEARN = ("china.jpg", "flower.jpg")
_SMALLEST_SIDE = 0.4  # of the shorter side; smaller crops of these pictures show blur


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its images.

    Attributes:
        mean: Per RGB channel, on the 0..255 scale.
        std: Per RGB channel, on the 0..255 scale.
        side: Height and width in pixels.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    side: int = 224


def photograph(name: str) -> npt.NDArray[np.uint8]:
    """One photograph.

    Args:
        name: A file name of `SPLITS`.

    Returns:
        RGB pixels [height, width, 3]; grey pictures have three equal channels.
    """
    from PIL import Image

    package, folder = ("sklearn", "datasets/images") if name in _FROM_SKLEARN else ("skimage", "data")
    path = package_folder(package, INSTALL[package], needed_by="photographs") / folder / name
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def whole(name: str, preprocessing: Preprocessing) -> torch.Tensor:
    """The largest centred square of a photograph, as the network sees it.

    Args:
        name: A file name of `SPLITS`.
        preprocessing: The network's own.

    Returns:
        float32 [1, 3, side, side].
    """
    pixels = photograph(name)
    height, width = pixels.shape[:2]
    side = min(height, width)
    return _resized(pixels, (height - side) // 2, (width - side) // 2, side, preprocessing)[None]


def crops(split: str, count: int, preprocessing: Preprocessing, seed: int) -> torch.Tensor:
    """Square crops at random scales and positions, the photographs of the split taken in turn.

    The first crop of each photograph is its largest centred square; of the later ones, the side is drawn between 40 and
    100 % of the shorter side, the position uniformly, and every second one is mirrored.

    Args:
        split: A key of `SPLITS`.
        count: Crops in all.
        preprocessing: The network's own.
        seed: Chooses scales and positions.

    Returns:
        float32 [count, 3, side, side].
    """
    generator = np.random.default_rng([seed, list(SPLITS).index(split)])
    pictures = {name: photograph(name) for name in islice(SPLITS[split], count)}
    found: list[torch.Tensor] = []
    for index in range(count):
        name = SPLITS[split][index % len(SPLITS[split])]
        if index < len(SPLITS[split]):
            found.append(whole(name, preprocessing)[0])
            continue
        pixels = pictures[name]
        height, width = pixels.shape[:2]
        side = round(min(height, width) * generator.uniform(_SMALLEST_SIDE, 1.0))
        top, left = (int(generator.integers(0, room + 1)) for room in (height - side, width - side))
        crop = _resized(pixels, top, left, side, preprocessing)
        found.append(crop.flip(-1) if generator.random() < 0.5 else crop)
    return torch.stack(found)


def _resized(pixels: npt.NDArray[np.uint8], top: int, left: int, side: int, to: Preprocessing) -> torch.Tensor:
    """The square [top, top + side) x [left, left + side), resized (bicubic) and normalised: [3, side, side]."""
    from PIL import Image

    square = Image.fromarray(np.ascontiguousarray(pixels[top : top + side, left : left + side]))
    small = np.asarray(square.resize((to.side, to.side), Image.Resampling.BICUBIC), dtype=np.float32)
    normal = (small - np.asarray(to.mean, np.float32)) / np.asarray(to.std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(normal.transpose(2, 0, 1)))
