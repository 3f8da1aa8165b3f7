r"""Products with single sites' blocks of the Hessian of the objective on one batch, from the graph of one pass.

Two ways, with the same interface: differentiating the objective twice, for any objective; and, where its Hessian is the
Gauss-Newton matrix :math:`J^\top B J`, a tangent of the outputs (``output_tangents``), their curvature
(``gauss_newton_root``) and one backward pass, which differentiates no operation twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..evaluators import objective
from .gauss_newton_root import Root
from .output_tangents import OutputTangents
from .probing import wide
from .second_order import differentiated

if TYPE_CHECKING:
    from torch import Tensor

    from ..task import Task
    from .recording import Pass


class DoubleBackward:
    """Blocks of the Hessian of the objective on one batch.

    Args:
        task: says which objective.
        run: the pass.
        weights: of the sites.

    Attributes:
        reached: which weights the outputs depend on.
    """

    passes = 1

    def __init__(self, task: Task, run: Pass, weights: Sequence[Tensor]) -> None:
        output = run.output.to(wide(run.output))
        loss = objective(task, output, output.detach(), run.targets)
        self.weights, self.gradients = weights, differentiated(loss, weights, again=True)
        self.reached = [gradient is not None for gradient in self.gradients]

    def times(self, position: int, vector: Tensor) -> Tensor | None:
        """H v, of the shape of the weight; ``None`` where it is zero."""
        weight, gradient = self.weights[position], self.gradients[position]
        if gradient is None or not gradient.requires_grad:
            return None  # the objective is linear in these weights
        direction = vector.reshape(weight.shape).to(gradient.dtype)
        return differentiated(gradient, [weight], direction=direction, keep=True)[0]


class GaussNewton:
    """Blocks of the Gauss-Newton matrix of the objective on one batch; arguments as for ``DoubleBackward``."""

    passes = 2

    def __init__(self, task: Task, run: Pass, weights: Sequence[Tensor]) -> None:
        self.run, self.weights = run, weights
        self.root = Root.of(task, run.output, None)
        self.tangents = OutputTangents(run, weights)
        self.reached = [image is not None for image in self.tangents.images]

    def times(self, position: int, vector: Tensor) -> Tensor | None:
        """G v, of the shape of the weight; ``None`` where it is zero."""
        if not self.reached[position]:
            return None
        tangent = self.tangents.along({position: vector})
        direction, factor = self.root.times(self.root.transposed(tangent))
        largest = float(direction.abs().max()) or 1.0  # half precision holds entries of order one
        seed = (direction / largest).to(self.run.output.dtype)
        (product,) = self.run.gradients([self.weights[position]], seed, again=True)
        return None if product is None else product.to(wide(product)) * (factor * largest)


CurvatureBlocks = DoubleBackward | GaussNewton
"""Blocks of the curvature of one batch, as products with vectors."""
