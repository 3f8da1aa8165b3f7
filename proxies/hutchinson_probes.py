r"""Random quadratic forms of a Hessian: :math:`v_l^\top (H v)_l` for all sites l at once, v of random signs.

By double differentiation. Products between the sites have mean zero but add noise, which is why v is zero at the sites
that are known well enough. H is the Hessian of

- the objective, or
- its ``residual``, :math:`\langle r, f(w) \rangle` with the gradient r at the outputs held fixed: what the Hessian has
  beyond the Gauss-Newton matrix. Nought for the sites of ``linear_in``, which are left out.

A forward pass and the first differentiation serve all probes of a visit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from ..evaluators import objective
from .hutchinson import random_signs
from .piecewise_linear import linear_in
from .probing import ACTIVATIONS, WEIGHTS, applicable, generator, wide
from .recording import Pass, Recorder, not_differentiable
from .second_order import differentiated, differentiated_twice

if TYPE_CHECKING:
    from ..space import SearchSpace
    from ..task import Batch, Task

Gradients = tuple[dict[tuple[int, int], list[Tensor]], dict[tuple[int, int], list[Tensor]]]


class HutchinsonProbes:
    """Random quadratic forms of a Hessian.

    Args:
        task: model and objective.
        space: the sites.
        batches: micro-batches.
        rounded: paths of the modules whose activations are looked at.
        seed: of the probes.
        of: the ``"objective"`` or its ``"residual"``.
        shared: whether all micro-batches see the same v, which then probes the full-batch Hessian.

    Attributes:
        applies: bool [2, sites]: where the Hessian may have a trace.
        reached: rows that some gradient reached.
        population: always ``None``.
        forward: samples run forward.
        backward: samples run backward.
    """

    population = None

    def __init__(
        self,
        task: Task,
        space: SearchSpace,
        batches: Sequence[Batch],
        rounded: Sequence[str],
        seed: int,
        of: Literal["objective", "residual"] = "objective",
        shared: bool = False,
    ) -> None:
        self.task, self.space, self.batches, self.seed = task, space, list(batches), seed
        self.rounded = frozenset(rounded)
        self.residual, self.shared = of == "residual", shared
        self.recorder = Recorder(task.model, space, sorted(self.rounded))
        self.applies = applicable(space, self.rounded)
        self.reached: set[int] = set()
        self.forward = self.backward = 0
        if self.residual:
            self._leave_out_linear()

    @contextmanager
    def graph(self, position: int) -> Iterator[Gradients]:
        """Tensors and their gradients, which can be differentiated again; of a micro-batch."""
        batch = self.batches[position]
        with differentiated_twice(), self.recorder.run(batch) as run:
            tensors = self._tensors(run)
            flat = [(key, tensor) for key, found in tensors.items() for tensor in found]
            scalar = self._scalar(run, batch)
            gradients = differentiated(scalar, [tensor for _, tensor in flat], again=True) if flat else []
            self.forward += len(batch)
            self.backward += len(batch)
            firsts: dict[tuple[int, int], list[Tensor]] = {}
            seconds: dict[tuple[int, int], list[Tensor]] = {}
            for (key, tensor), gradient in zip(flat, gradients, strict=True):
                if gradient is not None:
                    self.reached.add(key[1])
                if gradient is not None and gradient.requires_grad:
                    firsts.setdefault(key, []).append(tensor)
                    seconds.setdefault(key, []).append(gradient)
            yield firsts, seconds

    def draw(self, graph: Gradients, position: int, first: int, count: int, active: np.ndarray) -> np.ndarray:
        """Estimates of a micro-batch; arguments and result as those of ``GaussNewtonProbes.draw``.

        Everything stands at the first sample: samples are not told apart.
        """
        size = len(self.batches[position])
        values = np.zeros((count, size, 2, len(self.space.sites)))
        keys = [key for key in graph[0] if active[key]]
        tensors = [tensor for key in keys for tensor in graph[0][key]]
        gradients = [gradient for key in keys for gradient in graph[1][key]]
        owners = [key for key in keys for _ in graph[0][key]]
        for index in range(count if tensors else 0):
            stream = generator(self.seed, 2, *(() if self.shared else (position,)), first + index)
            signs = [random_signs(tuple(tensor.shape), stream, tensor) for tensor in tensors]
            try:
                products = torch.autograd.grad(gradients, tensors, signs, retain_graph=True, allow_unused=True)
            except RuntimeError as cause:
                raise not_differentiable(str(cause)) from cause
            self.backward += size
            for (part, row), sign, product in zip(owners, signs, products, strict=True):
                if product is not None:
                    product = product.to_dense() if product.is_sparse else product
                    form = torch.linalg.vecdot(sign.flatten().to(wide(product)), product.flatten().to(wide(product)))
                    values[index, 0, part, row] += float(form) * size
        return values

    def _tensors(self, run: Pass) -> dict[tuple[int, int], list[Tensor]]:
        """What is differentiated, by (weights or activations, row), where the Hessian may have a trace."""
        found = {(WEIGHTS, row): [weight] for row, weight in enumerate(run.weights) if self.applies[WEIGHTS, row]}
        for call in run.calls:
            if call.value is not None and self.applies[ACTIVATIONS, call.row]:
                found.setdefault((ACTIVATIONS, call.row), []).append(call.value)
        return found

    def _scalar(self, run: Pass, batch: Batch) -> Tensor:
        output = run.output.to(wide(run.output))
        if not self.residual:
            return objective(self.task, output, output.detach(), run.targets)
        leaf = output.detach().requires_grad_(True)
        loss = objective(self.task, leaf, leaf.detach(), run.targets)
        (gradient,) = differentiated(loss, [leaf])
        return output.sum() * 0 if gradient is None else (output * gradient).sum()

    def _leave_out_linear(self) -> None:
        batch = self.batches[0].piece(0, 1)
        with differentiated_twice(), self.recorder.run(batch) as run:
            tensors = [(key, tensor) for key, found in self._tensors(run).items() for tensor in found]
            linear = linear_in(run.output, [tensor for _, tensor in tensors])
        curved = {key for (key, _), each in zip(tensors, linear, strict=True) if not each}
        for key in {key for key, _ in tensors} - curved:
            self.applies[key] = False
