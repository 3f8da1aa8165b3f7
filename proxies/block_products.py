"""Products with one site's block of the Hessian of the objective over all samples, by double differentiation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..evaluators import objective
from .hutchinson import Products
from .recording import Recorder
from .second_order import differentiated, differentiated_twice

if TYPE_CHECKING:
    from ..space import SearchSpace
    from ..task import Batch, Task


class BlockProducts(AbstractContextManager["BlockProducts"]):
    """The diagonal blocks H_ll of the Hessian over the weights, as products with vectors.

    The objective is the mean over the micro-batches, by their samples. Inside ``with`` the graph of a single
    micro-batch is kept; several are run again for every call.

    Args:
        task: model and objective.
        space: the sites.
        batches: micro-batches.

    Attributes:
        reached: rows that some gradient reached.
        forward: samples run forward.
        backward: samples run backward.
    """

    def __init__(self, task: Task, space: SearchSpace, batches: Sequence[Batch]) -> None:
        self.task, self.space, self.batches = task, space, list(batches)
        self.samples = sum(len(batch) for batch in self.batches)
        self.recorder = Recorder(task.model, space, ())
        self.reached: set[int] = set()
        self.forward = self.backward = 0
        self._stack = ExitStack()
        self._kept: list[Tensor | None] | None = None

    def __exit__(self, *error: object) -> None:
        self._kept = None
        self._stack.close()

    def weight(self, row: int) -> Tensor:
        """The weight of a site."""
        return self.task.model.get_parameter(self.space.sites[row].parameter)

    def of(self, row: int) -> Products:
        """The block of a site: vectors [elements, k] -> products [elements, k], in float32 at least."""

        def products(vectors: Tensor) -> Tensor:
            result = torch.zeros_like(vectors)
            if len(self.batches) == 1:
                if self._kept is None:
                    rows = range(len(self.space.sites))
                    self._kept = self._stack.enter_context(self._gradients(self.batches[0], rows))
                self._add(self._kept[row], row, vectors, result, 1.0, self.samples)
                return result
            for batch in self.batches:
                with self._gradients(batch, [row]) as (gradient,):
                    self._add(gradient, row, vectors, result, len(batch) / self.samples, len(batch))
            return result

        return products

    @contextmanager
    def _gradients(self, batch: Batch, rows: Sequence[int]) -> Iterator[list[Tensor | None]]:
        with differentiated_twice(), self.recorder.run(batch) as run:
            output = run.output.to(torch.promote_types(run.output.dtype, torch.float32))
            loss = objective(self.task, output, output.detach(), run.targets)
            gradients = differentiated(loss, [run.weights[row] for row in rows], again=True)
            self.forward += len(batch)
            self.backward += len(batch)
            self.reached.update(row for row, gradient in zip(rows, gradients, strict=True) if gradient is not None)
            yield gradients

    def _add(
        self, gradient: Tensor | None, row: int, vectors: Tensor, result: Tensor, share: float, samples: int
    ) -> None:
        if gradient is None or not gradient.requires_grad:
            return  # the objective is linear in this weight, or does not depend on it
        weight = self.weight(row)
        for column in range(vectors.shape[1]):
            direction = vectors[:, column].reshape(weight.shape).to(gradient.dtype)
            (product,) = differentiated(gradient, [weight], direction=direction, keep=True)
            self.backward += samples
            if product is not None:
                result[:, column] += product.detach().flatten().to(result.dtype) * share
