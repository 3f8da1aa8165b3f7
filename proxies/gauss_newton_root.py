r"""Random vectors at the outputs of a micro-batch whose back-propagated squares add up to a Gauss-Newton trace.

.. math:: E[s s^\top] = B = \nabla_y^2 L(y) \quad\Rightarrow\quad
          E \lVert (J^\top s)_l \rVert^2 = \operatorname{tr}(J_l^\top B J_l)

with L the task's objective over the micro-batch. B is block diagonal over samples, and s = root(B) u with E[u u^T] = I:

- softmax outputs (``kl``, cross-entropy): :math:`s = (\sqrt p\,u - p (\sqrt p \cdot u)) / \sqrt T`, T the positions
  that count in the micro-batch;
- ``relative_error``: :math:`s = u / \lVert Y \rVert`, Y the outputs of the micro-batch;
- ``cosine``, n samples: :math:`s = (u - \hat y (\hat y \cdot u)) / (\lVert y \rVert \sqrt n)`.

Schraudolph 2002 (Neural Computation 14(7), section 3); random roots: Dangel et al. 2020, arXiv:1912.10985, section 2.3.

Where a sample has few outputs D, its vectors u are the rows of a random orthogonal matrix times the root of D: each is
as good as random signs, and the mean over all D is the trace itself. Sampling without replacement from a population of
D: the squared error of k of them is :math:`(1 - k/D) S^2 / k` (Cochran 1977, Sampling Techniques, eq. 2.20).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import NonFiniteOutput
from .hutchinson import random_signs
from .likelihood import IGNORED, likelihood

if TYPE_CHECKING:
    from ..task import Task

FRAME = 32  # outputs per sample up to which orthogonal vectors are drawn


@dataclass(frozen=True)
class Root:
    """The square root of the Hessian of the objective at the outputs of a micro-batch.

    Attributes:
        output: float32 or float64, detached.
        kind: ``softmax``, ``gaussian`` or ``cosine``.
        counted: which positions count [...], or ``None`` for all.
    """

    output: Tensor
    kind: str
    counted: Tensor | None

    @staticmethod
    def of(task: Task, output: Tensor, targets: Tensor | None) -> Root:
        """The root for a micro-batch.

        Args:
            task: its quality names the objective.
            output: of the float model.
            targets: where the objective is a loss against labels, else ``None``.

        Raises:
            NonFiniteOutput: the outputs are not finite.
        """
        output = output.detach()
        if not bool(torch.isfinite(output).all()):
            raise NonFiniteOutput("the float model gives NaN or infinity on the calibration data")
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        kind = likelihood(task, output)
        counted = targets != IGNORED if targets is not None and kind == "softmax" else None
        return Root(output, kind, counted)

    def times(self, u: Tensor) -> tuple[Tensor, float]:
        """root(B) u as (direction of entries of order one, factor): half precision holds the direction."""
        if self.kind == "softmax":
            p = functional.softmax(self.output, -1)
            mixed = p.sqrt() * u
            direction = mixed - p * mixed.sum(-1, keepdim=True)
            positions = p.numel() // p.shape[-1]
            if self.counted is not None:
                direction, positions = direction * self.counted[..., None], int(self.counted.sum())
            return direction, 1 / math.sqrt(max(positions, 1))
        if self.kind == "gaussian":
            return u, 1 / math.sqrt(max(float(self.output.double().square().sum()), 1e-30))
        flat = self.output.flatten(1)
        norm = flat.norm(dim=1, keepdim=True).clamp(min=1e-30)
        unit, direction = flat / norm, u.flatten(1)
        direction = (direction - unit * (unit * direction).sum(1, keepdim=True)) * (norm.min() / norm)
        return direction.view_as(u), 1 / (float(norm.min()) * math.sqrt(len(flat)))

    def transposed(self, tangent: Tensor) -> Tensor:
        r"""root(B)^T t, so that inner products of these are :math:`t^\top B t'`: as ``tangent``.

        Args:
            tangent: of the shape of the outputs.
        """
        tangent = tangent.to(self.output.dtype)
        if self.kind == "softmax":
            p = functional.softmax(self.output, -1)
            found = p.sqrt() * (tangent - (p * tangent).sum(-1, keepdim=True))
            positions = p.numel() // p.shape[-1]
            if self.counted is not None:
                found, positions = found * self.counted[..., None], int(self.counted.sum())
            return found / math.sqrt(max(positions, 1))
        if self.kind == "gaussian":
            return tangent / math.sqrt(max(float(self.output.double().square().sum()), 1e-30))
        flat, moved = self.output.flatten(1), tangent.flatten(1)
        norm = flat.norm(dim=1, keepdim=True).clamp(min=1e-30)
        unit = flat / norm
        across: Tensor = (moved - unit * (unit * moved).sum(1, keepdim=True)) / (norm * math.sqrt(len(flat)))
        return across.view_as(tangent)


def population(output: Tensor) -> int | None:
    """How many vectors make a sample's trace exact; ``None`` where its outputs are too many for that."""
    size = output[0].numel()
    return size if 1 <= size <= FRAME and output.ndim <= 2 else None


def vectors(output: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """All vectors u of a micro-batch: [count, *output.shape], orthogonal within each sample where ``population``."""
    size = population(output)
    if size is None:
        return random_signs((count, *output.shape), generator, output)
    normal = torch.randn(len(output), size, size, generator=generator, dtype=torch.float64)
    frame = torch.linalg.qr(normal).Q * math.sqrt(size)
    drawn: Tensor = frame[:, :count].movedim(0, 1).reshape(-1, *output.shape).to(output)
    return drawn
