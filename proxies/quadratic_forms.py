r"""Quadratic forms of the errors of formats: :math:`e^\top H e'` for all parts of all formats of all sites.

With H the Hessian of the task's objective over weights, inputs and biases, or its Gauss-Newton matrix
:math:`J^\top B J`. The latter needs one tangent of the outputs J e for every part (``output_tangents``), and all forms
are inner products of :math:`B^{1/2\top} J e`; the former one product H e for every part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..evaluators import objective, output_tensor, run_float
from ..evaluators.float_run import on_device
from .gauss_newton_root import Root
from .gradient_errors import rounded_modules
from .likelihood import check_softmax
from .output_tangents import OutputTangents
from .probing import labels_of_batch, wide
from .recording import Pass, Recorder
from .second_order import differentiated, differentiated_twice
from .site_changes import Directions, Part, biases_of, incidence, inner_products, parts_of

if TYPE_CHECKING:
    from ..evaluators import QuantizedModel
    from ..task import Batch, Task
    from .sensitivity import Advance

_TANGENTS = 1 << 28  # elements of the tangents of one micro-batch


class QuadraticForms:
    """Sums over micro-batches of e^T H e for all pairs of parts.

    Args:
        task: model and objective.
        quantized: what the formats change.
        tangents: whether by tangents of the outputs (the Gauss-Newton matrix); otherwise by products with the Hessian.
        first_order: whether the gradient is added to the values.
        proxy: name, for messages.

    Attributes:
        reached: rows that the outputs depend on.
        forward: samples run forward.
        backward: samples run backward.
    """

    def __init__(self, task: Task, quantized: QuantizedModel, tangents: bool, first_order: bool, proxy: str) -> None:
        self.task, self.quantized, self.space, self.proxy = task, quantized, quantized.space, proxy
        self.tangents, self.first_order = tangents, first_order
        self.parts = parts_of(quantized)
        modules = rounded_modules(quantized, self.space)
        self.recorder = Recorder(task.model, self.space, modules, parameters=biases_of(quantized))
        self.form = np.zeros((len(self.parts), len(self.parts)))
        self.linear = np.zeros(len(self.parts))
        self.samples = self.forward = self.backward = 0
        self.reached: set[int] = set()
        self._fitting: int | None = None  # samples whose tangents fit into memory

    def add(self, batch: Batch, advance: Advance | None) -> None:
        """Add a micro-batch, in pieces if its tangents are too large together."""
        if self._fitting is None:
            self._fitting = self._fit(batch) if self.tangents else len(batch)
        for start in range(0, len(batch), self._fitting):
            piece = batch.piece(start, min(start + self._fitting, len(batch)))
            with differentiated_twice(), self.recorder.run(piece) as run:
                self.forward += len(piece)
                self._add(piece, run, advance)

    def _fit(self, batch: Batch) -> int:
        """How many samples have tangents that fit into memory; refuses a loss that has no known root."""
        first = on_device(batch.piece(0, 1), self.task.model)
        with torch.no_grad():
            output = output_tensor(run_float(self.task.model, first, "calibration"))
        check_softmax(self.task, output, first.targets, f"{self.proxy} with curvature='gauss_newton'")
        return max(1, _TANGENTS // max(1, len(self.parts) * output.numel()))

    def _add(self, batch: Batch, run: Pass, advance: Advance | None) -> None:
        directions = Directions(self.quantized, run)
        form, linear = (self._by_tangents if self.tangents else self._by_products)(batch, run, directions, advance)
        self.form += len(batch) * form
        self.linear += len(batch) * linear
        self.samples += len(batch)

    def _by_tangents(
        self, batch: Batch, run: Pass, directions: Directions, advance: Advance | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Inner products of tangents of the outputs."""
        tangents = OutputTangents(run, directions.sources)
        self.backward += len(batch)
        self._reach(tangents.images)
        root = Root.of(self.task, run.output, labels_of_batch(self.task, batch))
        rows = []
        for _, part in self._told(batch, advance):
            rows.append(root.transposed(tangents.along(directions.of(part))).flatten())
            self.backward += len(batch)
        matrix = torch.stack(rows) if rows else torch.zeros(0, 1)
        linear = np.zeros(len(self.parts))
        if self.first_order:
            linear = inner_products(directions, self.parts, self._gradients(run, directions, again=False))
        return _gram(matrix), linear

    def _by_products(
        self, batch: Batch, run: Pass, directions: Directions, advance: Advance | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Inner products with products of the Hessian."""
        gradients = self._gradients(run, directions, again=True)
        self._reach(gradients)
        form = np.zeros_like(self.form)
        for index, part in self._told(batch, advance):
            moving = [
                (each, change)
                for position, change in directions.of(part).items()
                if (each := gradients[position]) is not None and each.requires_grad
            ]
            if not moving:
                continue  # the objective is linear in it
            along = [change.reshape(each.shape).to(each.dtype) for each, change in moving]
            found = differentiated([each for each, _ in moving], directions.sources, direction=along, keep=True)
            self.backward += len(batch)
            form[index] = inner_products(directions, self.parts, found)
        linear = inner_products(directions, self.parts, gradients) if self.first_order else np.zeros(len(self.parts))
        return (form + form.T) / 2, linear

    def _gradients(self, run: Pass, directions: Directions, again: bool) -> list[torch.Tensor | None]:
        output = run.output.to(wide(run.output))
        loss = objective(self.task, output, output.detach(), run.targets)
        return differentiated(loss, directions.sources, again=again, keep=True)

    def _told(self, batch: Batch, advance: Advance | None) -> Iterator[tuple[int, Part]]:
        """All parts with their index; ``advance`` is called behind the last one of a site."""
        for index, part in enumerate(self.parts):
            yield index, part
            last = index + 1 == len(self.parts) or self.parts[index + 1].row > part.row
            if advance and last:
                advance(len(batch))

    def _reach(self, gradients: Sequence[torch.Tensor | None]) -> None:
        self.reached |= {row for row in range(len(self.space.sites)) if gradients[row] is not None}

    def tables(self) -> tuple[np.ndarray, dict[tuple[int, int], np.ndarray]]:
        """The values [sites, formats], and the interactions of all pairs of sites [formats, formats]."""
        formats, allowed = len(self.space.formats), self.space.allowed
        holds = incidence(self.parts, formats)
        rows = np.array([part.row for part in self.parts], dtype=int)
        of = [holds * (rows == row) for row in range(len(self.space.sites))]
        form, linear = self.form / self.samples, self.linear / self.samples
        values = np.stack([0.5 * np.einsum("fp,pq,fq->f", each, form, each) + each @ linear for each in of])
        pairs = {
            (one, other): np.where(allowed[one][:, None] & allowed[other], of[one] @ form @ of[other].T, np.nan)
            for one, other in combinations(range(len(of)), 2)
        }
        return np.where(allowed, values, np.nan), pairs


def _gram(rows: torch.Tensor) -> np.ndarray:
    """Inner products of rows [parts, elements], added up in float64 piece by piece."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for piece in torch.split(rows, max(1, (1 << 24) // max(1, len(rows))), dim=1):
        wide_piece = piece.double()
        total += wide_piece @ wide_piece.T
    found: np.ndarray = total.cpu().numpy()
    return found
