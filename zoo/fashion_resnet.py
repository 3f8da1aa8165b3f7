"""A small ResNet on Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017; 70,000 labelled images of clothes, 28x28)."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import torch

from ..errors import InvalidInput
from .entry import Card, Loaded, Options, Sizes
from .labelled import Images, loaded
from .resnet import ResNet
from .training import Recipe

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

_INSTALL = (
    "apt-get install dataset-fashion-mnist (Debian, Ubuntu), or name the folder of its four idx .gz files with "
    "folder=… or BITFRONT_FASHION_MNIST"
)
_IMAGES, _LABELS = 2051, 2049  # magic numbers of the idx format: unsigned bytes in 3 and in 1 dimensions


def data_folder(folder: Path | None = None) -> Path:
    """`folder`, else $BITFRONT_FASHION_MNIST, else where the Debian package puts the files."""
    return folder or Path(os.environ.get("BITFRONT_FASHION_MNIST") or DEBIAN_FOLDER)


def data(folder: Path | None = None) -> tuple[Images, Images]:
    """Read the data set.

    Args:
        folder: See `data_folder`.

    Returns:
        60,000 training and 10,000 test images, float32 [N, 1, 28, 28] of about zero mean and unit variance.

    Raises:
        InvalidInput: A file is missing or is not in the idx format.
    """
    return _images(data_folder(folder), "train"), _images(data_folder(folder), "t10k")


def _images(folder: Path, part: str) -> Images:
    pixels = _idx(folder / f"{part}-images-idx3-ubyte.gz", _IMAGES)
    labels = _idx(folder / f"{part}-labels-idx1-ubyte.gz", _LABELS)
    inputs = (torch.from_numpy(pixels).float()[:, None] / 255.0 - 0.286) / 0.353
    return Images(inputs, torch.from_numpy(labels).long())


def _idx(path: Path, magic: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """One idx file: magic number, sizes, bytes; all big-endian."""
    if not path.is_file():
        raise InvalidInput(f"fashion_resnet needs {path.name}, which is not in {path.parent}: {_INSTALL}")
    try:
        content = gzip.decompress(path.read_bytes())
        dimensions = 3 if magic == _IMAGES else 1
        found, *shape = struct.unpack_from(f">{1 + dimensions}I", content)
        if found == magic:
            return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy()
    except (OSError, EOFError, struct.error, ValueError) as error:
        raise InvalidInput(f"{path} is damaged ({error}): {_INSTALL}") from error
    raise InvalidInput(f"{path} is not the idx file expected (magic number {found}, not {magic}): {_INSTALL}")


def recipe() -> Recipe:
    """The fixed recipe."""
    return Recipe("fashion_resnet", 1, "fashion-mnist train", steps=1800, batch=64, learning_rate=1e-2, warmup=0.2)


def _build() -> ResNet:
    return ResNet(blocks=2, width=16, stride=2)


def _load(options: Options) -> Loaded:
    return loaded(_build, recipe(), *data(options.folder), options, shift=1)


CARD = Card(
    name="fashion_resnet",
    description="ResNet-14 for clothes, 28x28",
    quality="accuracy",
    licence="weights Apache-2.0 (trained here); images MIT (Zalando)",
    source="trained by the zoo on Fashion-MNIST (Debian package dataset-fashion-mnist)",
    parameters=174_410,
    sizes=Sizes(256, 1000, 1000),
    loader=_load,
)
