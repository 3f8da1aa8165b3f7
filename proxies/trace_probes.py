r"""Random probes of the Hessian traces of all sites at once, micro-batch by micro-batch.

``GaussNewtonProbes``: :math:`\lVert (J_n^\top s_n)_l \rVert^2` for every sample n, by one backward pass for all sites
and samples; no second differentiation, no noise from products between sites or samples, never negative.

``HutchinsonProbes``: :math:`v_l^\top (H v)_l` with v of random signs, by double differentiation; products between the
sites have mean zero but add noise, which is why v is zero at the sites that are known well enough. H is the Hessian of

- the objective, or
- its ``residual``, :math:`\langle r, f(w) \rangle` with the gradient r at the outputs held fixed: what the Hessian has
  beyond the Gauss-Newton matrix. Nought for the sites of ``linear_in``, which are left out.

A forward pass (and the first differentiation) serves all probes of a visit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from ..evaluators import objective
from ..evaluators.float_run import on_device
from ..task import SELF_REFERENCED
from .gauss_newton_root import Root, population, vectors
from .hutchinson import random_signs
from .piecewise_linear import linear_in
from .recording import Call, Pass, Recorder, not_differentiable
from .sample_norms import Norms, separable
from .second_order import differentiated, differentiated_twice

if TYPE_CHECKING:
    from ..space import SearchSpace
    from ..task import Batch, Task

WEIGHTS, ACTIVATIONS = 0, 1


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
        self.applies = _applies(space, self.rounded)
        self.reached: set[int] = set()
        self.forward = self.backward = 0
        largest = max(self.batches, key=len)
        with self.recorder.run(largest.piece(0, min(len(largest), 4))) as run:
            self.separable = separable(task.model, run, space.sites, _generator(seed, 0))
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
        root = Root.of(self.task, run.output, _labels(self.task, batch))
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
                        each = gradient.to(_wide(gradient)).flatten(1).square().sum(1)
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
            whole = vectors(output, self.population, _generator(self.seed, 1, position))
            return whole[first : first + count]
        shape = (1, *output.shape)
        return torch.cat(
            [random_signs(shape, _generator(self.seed, 1, position, first + each), output) for each in range(count)]
        )


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
        self.applies = _applies(space, self.rounded)
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
            generator = _generator(self.seed, 2, *(() if self.shared else (position,)), first + index)
            signs = [random_signs(tuple(tensor.shape), generator, tensor) for tensor in tensors]
            try:
                products = torch.autograd.grad(gradients, tensors, signs, retain_graph=True, allow_unused=True)
            except RuntimeError as cause:
                raise not_differentiable(str(cause)) from cause
            self.backward += size
            for (part, row), sign, product in zip(owners, signs, products, strict=True):
                if product is not None:
                    product = product.to_dense() if product.is_sparse else product
                    form = torch.linalg.vecdot(sign.flatten().to(_wide(product)), product.flatten().to(_wide(product)))
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
        output = run.output.to(_wide(run.output))
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


Probes = GaussNewtonProbes | HutchinsonProbes


class Visits:
    """Draws from all micro-batches; with a single one its graph is kept between the visits.

    Args:
        probes: what is drawn.
        stack: closes the graph that is kept.
        keep: whether one may be kept; hooks of two graphs get into each other's way.
    """

    def __init__(self, probes: Probes, stack: ExitStack, keep: bool) -> None:
        self.probes, self.stack = probes, stack
        self.keep = keep and len(probes.batches) == 1
        self._kept: object | None = None

    def draw(self, first: int, count: int, active: np.ndarray) -> Iterator[np.ndarray]:
        """One array of estimates [count, samples, 2, sites] for each micro-batch; see ``GaussNewtonProbes.draw``."""
        for position in range(len(self.probes.batches)):
            with ExitStack() as once:
                graph = self._kept or (self.stack if self.keep else once).enter_context(self.probes.graph(position))
                self._kept = graph if self.keep else None
                yield self.probes.draw(graph, position, first, count, active)  # type: ignore[arg-type]


def labelled(task: Task, batch: Batch) -> bool:
    """Whether the objective of a batch is a loss against its labels, whose gradient does not vanish."""
    return _labels(task, batch) is not None


def _labels(task: Task, batch: Batch) -> Tensor | None:
    return None if task.quality in SELF_REFERENCED else on_device(batch, task.model).targets


def _applies(space: SearchSpace, rounded: frozenset[str]) -> np.ndarray:
    activations = [any(module in rounded for module in site.modules) for site in space.sites]
    return np.array([[True] * len(space.sites), activations])


def _generator(seed: int, *stream: int) -> torch.Generator:
    """An independent generator for each stream of a seed."""
    state = np.random.SeedSequence([abs(seed), int(seed < 0), *stream]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _square(gradient: Tensor) -> float:
    flat = gradient.flatten().to(_wide(gradient))
    return float(torch.linalg.vecdot(flat, flat))


def _numbers(tensor: Tensor) -> np.ndarray:
    numbers: np.ndarray = tensor.double().cpu().numpy()
    return numbers
