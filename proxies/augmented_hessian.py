r"""Augmented Hessian: the second-order loss of every site, and what two sites cost together, both exact.

.. math::
    L(w + e) - L(w) \approx \underbrace{\tfrac12 \sum_l e_l^\top H_{ll} e_l}_{\text{values}}
        + \underbrace{\sum_{l < m} e_l^\top H_{lm} e_m}_{\text{pairs}}
        \;\Bigl( + \sum_l g_l^\top e_l \Bigr)

with e_l the real quantization errors of site l in a format (weight, rounded input, corrected bias), H the Hessian of
the task's objective over all of these, and g its gradient. Schaefer et al. 2023, arXiv:2306.04879, showed that scores
from the diagonal blocks of the Hessian alone order layers wrongly, and augment them with the dependencies between
layers; that idea is taken from there, the estimate is not: no trace, no probes, but the quadratic form itself, whose
off-diagonal part is what CLADO (Deng et al. 2023, arXiv:2307.05657) measures by perturbation (``pairwise``). Nor is
their bisection: ``allocate(..., pair_loss=found.pairs)`` minimises the sum.

The forms, by ``curvature``:

- ``gauss_newton``: with J the Jacobian of the outputs y and B the Hessian of the objective there,
  :math:`e_l^\top H_{lm} e_m = (B^{1/2\top} J e_l) \cdot (B^{1/2\top} J e_m)`: one tangent of the outputs for every part
  of a format (``site_changes``), and all pairs of all sites are inner products. Exact where the objective is a distance
  to the float model's own outputs (``kl``, ``relative_error``, ``cosine``): its gradient at y vanishes there, and with
  it all else of H. For cross-entropy it leaves out the residual.
- ``hessian``: one product H e for every part, by double differentiation, and its inner products with all others. For
  any loss that can be differentiated twice.
- ``auto``: ``gauss_newton`` where it is exact, ``hessian`` elsewhere.

All pairs are known; those of the ``sites`` with the largest interactions are handed on, because the allocation grows
with them, and those of tied sites, which cost it nothing. ``first_order=True`` adds the gradient, with its sign, to the
values (``first_order``). The sums are those over just these samples: nothing is random.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from ..errors import InvalidInput, NonFiniteOutput
from ..evaluators import QuantizedModel, objective, output_tensor, run_float
from ..evaluators.float_run import on_device
from .gauss_newton_root import Root
from .gradient_errors import ERROR_BYTES, check_reached, rounded_modules
from .layer_calls import pieces
from .likelihood import check_softmax
from .output_tangents import OutputTangents
from .padding import without_padding
from .probing import labelled, labels_of_batch, wide
from .recording import Pass, Recorder
from .second_order import differentiated, differentiated_twice
from .sensitivity import Advance, Sensitivity, in_evaluation
from .site_changes import Directions, Part, biases_of, incidence, inner_products, parts_of

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Batch, Task

Curvature = Literal["auto", "gauss_newton", "hessian"]
_TANGENTS = 1 << 28  # elements of the tangents of one micro-batch


class AugmentedHessian:
    """Second-order loss of single sites and of pairs of them, by exact quadratic forms of the quantization errors.

    Args:
        samples: calibration samples over which the objective is taken.
        batch: samples differentiated at a time, fewer where the outputs are large.
        sites: how many sites are paired with each other; tied ones always are.
        curvature: ``"auto"``, ``"gauss_newton"`` or ``"hessian"``.
        first_order: whether the signed first-order term is added.
    """

    name = "augmented_hessian"
    summary = "second-order loss of each site's real error, and interactions between sites, for allocate(pair_loss=)"
    additive = True
    gradients = 2
    source = "Schaefer et al. 2023, arXiv:2306.04879 (inter-layer dependencies); form of CLADO, arXiv:2307.05657"

    def __init__(
        self,
        samples: int = 32,
        batch: int = 16,
        sites: int = 8,
        curvature: Curvature = "auto",
        first_order: bool = False,
    ) -> None:
        self.samples = samples
        self.batch = batch
        self.sites = sites
        self.curvature = curvature
        self.first_order = first_order

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Samples x sites."""
        return min(self.samples, task.samples("calibration")) * len(space.sites)

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format), and pairs; see the module docstring. The seed is not used: nothing is random.

        Raises:
            InvalidInput: a setting is out of range, or ``gauss_newton`` with a loss that is no cross-entropy.
            UnsupportedModel: the model cannot be differentiated twice.
            NonFiniteOutput: a product is not finite.
        """
        started = time.perf_counter()
        if self.sites < 0 or self.curvature not in get_args(Curvature):
            raise InvalidInput(
                f"augmented_hessian needs sites of at least 0 and curvature 'auto', 'gauss_newton' or 'hessian', "
                f"got {self.sites}, {self.curvature!r}"
            )
        batches = without_padding(task.model, pieces(task, self.samples, self.batch, self.name), lengths=1)
        exact = not any(labelled(task, batch) for batch in batches)
        quantized = QuantizedModel(task.model, space, calibration, ERROR_BYTES)
        tangents = self.curvature == "gauss_newton" or (self.curvature == "auto" and exact)
        forms = _Forms(task, quantized, tangents, self.first_order and not exact)
        for batch in batches:
            forms.add(batch, advance)
        check_reached(task, quantized, forms.reached, batches[0])
        values, pairs = forms.tables()
        if not np.isfinite(values[space.allowed]).all():
            row = int(np.argwhere(~np.isfinite(values) & space.allowed)[0][0])
            raise NonFiniteOutput(f"proxy augmented_hessian: the form at site {space.names[row]} is NaN or infinite")
        kept = {each: pairs[each] for each in wanted(space, pairs, self.sites)}
        seconds, names = time.perf_counter() - started, tuple(space.names)
        return Sensitivity(
            self.name, values, None, names, space.formats, seconds, forms.forward, forms.backward, pairs=kept
        )


def wanted(space: SearchSpace, pairs: dict[tuple[int, int], np.ndarray], count: int) -> list[tuple[int, int]]:
    """The pairs of the sites with the largest interactions with others, and those of tied sites.

    Args:
        space: the sites.
        pairs: of all sites.
        count: how many sites are paired with each other.
    """
    tied = {pair for tie in space.tie_indices for pair in combinations(sorted(tie), 2)}
    strength = np.zeros(len(space.sites))
    for (one, other), table in pairs.items():
        if (one, other) not in tied:
            strength[[one, other]] += np.nanmax(np.abs(table))
    chosen = set(np.argsort(-strength, kind="stable")[:count].tolist())
    return [pair for pair in pairs if pair in tied or chosen.issuperset(pair)]


class _Forms:
    """Sums over micro-batches of e^T H e for all parts.

    Attributes:
        reached: rows that the outputs depend on.
        forward: samples run forward.
        backward: samples run backward.
    """

    def __init__(self, task: Task, quantized: QuantizedModel, tangents: bool, first_order: bool) -> None:
        self.task, self.quantized, self.space = task, quantized, quantized.space
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
        check_softmax(self.task, output, first.targets, "augmented_hessian with curvature='gauss_newton'")
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
