r"""Squared norms of back-propagated roots: :math:`\lVert (J_n^\top s_n)_l \rVert^2` for all sites l and samples n.

One backward pass for all of them, no second differentiation, no noise from products between sites or samples, never
negative. ``gauss_newton_root`` has the s_n, ``sample_norms`` the norms. A forward pass serves all probes of a visit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .gauss_newton_root import Root, population, vectors
from .hutchinson import random_signs
from .probing import ACTIVATIONS, WEIGHTS, applicable, generator, labels_of_batch, wide
from .recording import Call, Pass, Recorder, not_differentiable
from .sample_norms import Norms, separable

if TYPE_CHECKING:
    from ..space import SearchSpace
    from ..task import Batch, Task


class GaussNewtonProbes:
    """Squared back-propagated roots of the objective's Hessian at the outputs.

    Args:
        task: model and objective.
        space: the sites.
        batches: micro-batches.
        rounded: paths of the modules whose activations are looked at.
        seed: of the probes.

    Attributes:
        reached: rows that some gradient reached.
        population: draws after which the traces are exact, or ``None``.
        forward: samples run forward.
        backward: samples run backward.
    """

    def __init__(
        self, task: Task, space: SearchSpace, batches: Sequence[Batch], rounded: Sequence[str], seed: int
    ) -> None:
        self.task, self.space, self.batches, self.seed = task, space, list(batches), seed
        self.rounded = frozenset(rounded)
        modules = [module for site in space.sites for module in site.modules]
        self.recorder = Recorder(task.model, space, modules, outputs=True)
        self.applies = applicable(space, self.rounded)
        self.reached: set[int] = set()
        self.forward = self.backward = 0
        largest = max(self.batches, key=len)
        with self.recorder.run(largest.piece(0, min(len(largest), 4))) as run:
            self.separable = separable(task.model, run, space.sites, generator(seed, 0))
            alike = len(self.separable) == len(space.sites)
            self.population = population(run.output) if alike else None

    def graph(self, position: int) -> AbstractContextManager[tuple[Pass, Norms, Sequence[Call]]]:
        """The recorded forward pass of a micro-batch."""
        return self._graph(self.batches[position])

    @contextmanager
    def _graph(self, batch: Batch) -> Iterator[tuple[Pass, Norms, Sequence[Call]]]:
        with self.recorder.run(batch) as run:
            self.forward += len(batch)
            yield run, Norms(self.task.model, run), tuple(run.calls)

    def draw(
        self, graph: tuple[Pass, Norms, Sequence[Call]], position: int, first: int, count: int, active: np.ndarray
    ) -> np.ndarray:
        """Estimates of a micro-batch.

        Args:
            graph: of the micro-batch.
            position: of the micro-batch.
            first: index of the first probe.
            count: of probes.
            active: bool [2, sites]: weights and activations that are wanted.

        Returns:
            float64 [count, samples, 2, sites], whose mean over the samples is the estimate; a site whose samples
            cannot be told apart has everything at the first.
        """
        run, norms, calls = graph
        batch = self.batches[position]
        root = Root.of(self.task, run.output, labels_of_batch(self.task, batch))
        values = np.zeros((count, len(batch), 2, len(self.space.sites)))
        drawn = self._vectors(root.output, position, first, count)
        weights = [row for row in np.flatnonzero(active[WEIGHTS]).tolist() if row not in self.separable]
        outputs = [
            call
            for call in calls
            if active[WEIGHTS, call.row] and call.row in self.separable and call.output is not None
        ]
        inputs = [
            call
            for call in calls
            if active[ACTIVATIONS, call.row] and call.module in self.rounded and call.value is not None
        ]
        wanted = [
            *(run.weights[row] for row in weights),
            *(call.output for call in outputs if call.output is not None),
            *(call.value for call in inputs if call.value is not None),
        ]
        for index in range(count):
            direction, factor = root.times(drawn[index])
            gradients = run.gradients(wanted, direction.to(run.output.dtype), again=True)
            self.backward += len(batch)
            scale = factor**2 * len(batch)
            at_outputs = gradients[len(weights) : len(weights) + len(outputs)]
            with torch.no_grad():
                for row, gradient in zip(weights, gradients, strict=False):
                    if gradient is not None:
                        self.reached.add(row)
                        values[index, 0, WEIGHTS, row] = _square(gradient) * scale
                self._separate(norms, outputs, at_outputs, values[index, :, WEIGHTS], scale)
                for call, gradient in zip(inputs, gradients[len(weights) + len(outputs) :], strict=True):
                    if gradient is not None and call.row in self.separable:
                        each = gradient.to(wide(gradient)).flatten(1).square().sum(1)
                        values[index, :, ACTIVATIONS, call.row] += _numbers(each) * scale
                    elif gradient is not None:
                        values[index, 0, ACTIVATIONS, call.row] += _square(gradient) * scale
        return values

    def _separate(
        self, norms: Norms, calls: Sequence[Call], gradients: Sequence[Tensor | None], values: np.ndarray, scale: float
    ) -> None:
        """Squared norms of the weight gradients of single samples, into values [samples, sites]."""
        for row in sorted({call.row for call in calls}):
            mine = [(call, each) for call, each in zip(calls, gradients, strict=True) if call.row == row]
            if all(each is None for _, each in mine):
                continue
            self.reached.add(row)
            squares = norms.of([call for call, _ in mine], [each for _, each in mine])
            if squares is None:
                raise not_differentiable(
                    f"site {self.space.sites[row].name} computes differently from one batch to the next"
                )
            values[:, row] = _numbers(squares) * scale

    def _vectors(self, output: Tensor, position: int, first: int, count: int) -> Tensor:
        if self.population is not None:
            whole = vectors(output, self.population, generator(self.seed, 1, position))
            return whole[first : first + count]
        shape = (1, *output.shape)
        return torch.cat(
            [random_signs(shape, generator(self.seed, 1, position, first + each), output) for each in range(count)]
        )


def _square(gradient: Tensor) -> float:
    flat = gradient.flatten().to(wide(gradient))
    return float(torch.linalg.vecdot(flat, flat))


def _numbers(tensor: Tensor) -> np.ndarray:
    numbers: np.ndarray = tensor.double().cpu().numpy()
    return numbers
