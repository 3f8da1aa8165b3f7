r"""Tangents of the outputs: :math:`J e` for changes e of weights, inputs and biases, from the graph of one pass.

Differentiating backwards twice makes them: :math:`J^\top u` is linear in u, and its derivative in u along e is J e
(Townsend 2017, A new trick for calculating Jacobian vector products). The graph of :math:`J^\top u` serves every e; a
product costs the operations between the change and the outputs, once. No second derivative of any operation is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from .probing import wide
from .second_order import differentiated

if TYPE_CHECKING:
    from torch import Tensor

    from .recording import Pass


class OutputTangents:
    """Products with the Jacobian of the outputs of a pass.

    Args:
        run: the pass, made inside ``differentiated_twice``.
        sources: weights, values of calls or other parameters of the pass.

    Attributes:
        images: gradients at the sources, as functions of the cotangent; ``None`` where the outputs do not depend on it.

    Raises:
        UnsupportedModel: the model cannot be differentiated twice.
    """

    def __init__(self, run: Pass, sources: Sequence[Tensor]) -> None:
        self._output = run.output
        self._cotangent = torch.zeros_like(run.output).requires_grad_(True)
        self.images = differentiated(run.output, sources, direction=self._cotangent, again=True)

    def along(self, changes: Mapping[int, Tensor]) -> Tensor:
        """J e.

        Args:
            changes: position of a source -> its change; the others do not change.

        Returns:
            Of the shape of the outputs, in float32 at least.
        """
        moving = [
            (image, change)
            for position, change in changes.items()
            if (image := self.images[position]) is not None and image.requires_grad
        ]
        if not moving:
            return torch.zeros_like(self._output, dtype=wide(self._output), requires_grad=False)
        images, directions = zip(*moving, strict=True)
        shaped = [each.reshape(image.shape).to(image.dtype) for image, each in zip(images, directions, strict=True)]
        (found,) = differentiated(images, [self._cotangent], direction=shaped, keep=True)
        assert found is not None  # every image is linear in the cotangent
        return found.detach().to(wide(found))
