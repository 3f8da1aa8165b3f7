"""NAS-Bench-201 as a family: six operators make a network."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cached_property

import torch
from torch import nn

from ....architecture import Choices
from .cell_space import CELL_SPACE
from .network import Nas201Network, NetworkSizes


class NasBench201:
    """The networks of Dong and Yang 2020 (arXiv:2001.00326), 15,625 cells; weights are PyTorch's initial ones.

    The benchmark's networks have ``channels=16, cells=5`` and images of 32 x 32 (CIFAR) or 16 x 16 pixels.

    Args:
        classes: of the head.
        channels: of the first stage.
        cells: of every stage.
        inputs: channels of the image.
        affine: whether normalizations have weights.
        seed: of the initial weights.

    Attributes:
        name: ``nasbench201``.
        architecture: one dimension of kind ``operator`` an edge of the cell.
        sizes: the arguments but the seed.
        seed: of the initial weights.

    Raises:
        InvalidInput: a size is not positive.
    """

    def __init__(
        self,
        classes: int = 10,
        channels: int = 16,
        cells: int = 5,
        inputs: int = 3,
        affine: bool = True,
        seed: int = 0,
    ) -> None:
        self.name = "nasbench201"
        self.architecture = CELL_SPACE
        self.sizes = NetworkSizes(classes, channels, cells, inputs, affine)
        self.seed = seed

    def build(self, choices: Choices) -> nn.Module:
        """The network of these choices in evaluation mode, with initial weights that the seed alone decides.

        Raises:
            InvalidInput: the choices are no cell.
        """
        operations = [int(index) for index in CELL_SPACE.indices(CELL_SPACE.choices(choices))]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = Nas201Network(operations, self.sizes)
        return network.eval()

    def resolution(self, choices: Choices) -> int | None:
        """``None``: inputs stay as they are."""
        return None

    @cached_property
    def digest(self) -> str:
        """Content hash of the arguments and of the initial weights of the smallest network (16 hex digits)."""
        content = hashlib.sha256(json.dumps([asdict(self.sizes), self.seed], sort_keys=True).encode())
        for name, tensor in self.build(CELL_SPACE.smallest()).state_dict().items():
            content.update(name.encode() + tensor.numpy().tobytes())
        return content.hexdigest()[:16]
