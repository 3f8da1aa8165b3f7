r"""Pairwise perturbation: what two quantized sites cost together beyond the sum of what each costs alone.

.. math::
    \Omega_{ij}[f, g] = L(i \to f,\, j \to g) - L(i \to f) - L(j \to g) + L(\text{float})

Deng et al. 2023, CLADO, arXiv:2307.05657: with :math:`L(x) \approx L + \frac12 \Delta^\top H \Delta` this is
:math:`\Delta_i^\top H_{ij} \Delta_j`, the block of the Hessian between the two sites, measured without derivatives. The
loss of a configuration is then predicted by :math:`\sum_i s[i, x_i] + \sum_{i < j} \Omega_{ij}[x_i, x_j]`
(``Sensitivity.joint``), which ``allocate(..., pair_loss=found.pairs)`` minimises exactly. The paper projects the matrix
to a positive semi-definite one for its solver; here that is not needed and not done.

L is that of ``measured_loss``, and so are the values. All pairs of k sites in F formats take :math:`k (k - 1) F^2 / 2`
runs, so only the sites with the largest spread of values are paired; the interactions of all others count as 0. Of a
pair that is tied only equal formats are run. Activations are reused as by ``measured_sites``.
"""

from __future__ import annotations

import time
from itertools import combinations, product
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InvalidInput
from ..evaluators import FakeQuantEvaluator
from .gradient_errors import mean_and_error
from .measured import MeasuredLoss
from .measured_sample import seeded_sample
from .measured_sites import changes_something, increases, one_by_one, sampled_task
from .padding import without_padding
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task

#: Two rows, and the columns that they take.
Cell = tuple[tuple[int, int], tuple[int, int]]


class Pairwise:
    """Measured loss of single sites, and of pairs of the most sensitive ones.

    Args:
        samples: calibration samples, drawn with the seed.
        batch: how many are run at a time; ``None``: as in the data, more where inputs are small.
        sites: how many sites are paired with each other.
    """

    name = "pairwise"
    summary = (
        "CLADO: measured loss of each site, and the interactions of the most sensitive ones, for allocate(pair_loss=)"
    )
    additive = True
    gradients = 0
    source = "Deng et al. 2023, CLADO, arXiv:2307.05657"

    def __init__(self, samples: int = 64, batch: int | None = None, sites: int = 8) -> None:
        self.samples = samples
        self.batch = batch
        self.sites = sites

    def steps(self, task: Task, space: SearchSpace) -> int:
        """One for every (site, format) that is offered and for every pair of them, were the most offered paired."""
        offered = sorted((len(site.formats) for site in space.sites), reverse=True)[: self.sites]
        pairs = sum(first * second for first, second in combinations(offered, 2))
        return int(space.allowed.sum()) + pairs

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format), and pairs; see the module docstring.

        Raises:
            InvalidInput: fewer than two sites are to be paired.
            NonFiniteOutput: a format gives NaN or infinity.
        """
        started = time.perf_counter()
        if self.sites < 2:
            raise InvalidInput(f"pairwise needs sites of at least 2, got {self.sites}; choose measured_loss")
        drawn = seeded_sample(task.calibration, self.samples, self.batch, seed, self.name)
        batches = without_padding(task.model, drawn)
        quality = MeasuredLoss().quality(task, batches[0].piece(0, 1))
        evaluator = FakeQuantEvaluator(sampled_task(task, batches, quality), space, calibration)

        def loss(each: NDArray[np.float64]) -> NDArray[np.float64]:
            return 0.5 * each**2 if quality == "relative_error" else each

        alone, runs = one_by_one(evaluator, advance)
        values, error = mean_and_error(loss(alone))
        cells = wanted_pairs(evaluator, sensitive(values, self.sites))
        names = [{space.names[row]: space.formats[column] for row, column in zip(*cell, strict=True)} for cell in cells]
        together = loss(increases(evaluator, names, advance)).mean(1) if cells else np.zeros(0)
        seconds, passes = time.perf_counter() - started, (runs + len(cells) + 1) * len(alone)
        pairs = interactions(space, values, cells, together)
        return Sensitivity(self.name, values, error, tuple(space.names), space.formats, seconds, passes, pairs=pairs)


def sensitive(values: NDArray[np.float64], count: int) -> list[int]:
    """The rows with the largest difference between their formats, in their order.

    Args:
        values: [sites, formats]; NaN where a format is not offered.
        count: how many.
    """
    spread = np.nanmax(values, 1) - np.nanmin(values, 1)
    return sorted(np.argsort(-spread, kind="stable")[:count].tolist())


def wanted_pairs(evaluator: FakeQuantEvaluator, rows: list[int]) -> list[Cell]:
    """The pairs of (site, format) that have to be run: both change something, and no tie forbids them."""
    space, found = evaluator.quantized.space, []
    tied = {pair for tie in space.tie_indices for pair in combinations(sorted(tie), 2)}
    active = {
        row: [
            column
            for column, name in enumerate(space.formats)
            if space.sites[row].offers(name) and changes_something(evaluator.quantized, space.sites[row], name)
        ]
        for row in rows
    }
    for first, second in combinations(rows, 2):
        for one, other in product(active[first], active[second]):
            if one == other or (first, second) not in tied:
                found.append(((first, second), (one, other)))
    return found


def interactions(
    space: SearchSpace, values: NDArray[np.float64], cells: list[Cell], together: NDArray[np.float64]
) -> dict[tuple[int, int], NDArray[np.float64]]:
    """The tables of all pairs.

    Args:
        space: says what is offered.
        values: of single sites, [sites, formats].
        cells: the pairs that were run.
        together: their loss.

    Returns:
        Two rows -> [formats of the first, formats of the second]: NaN where not offered, 0 where nothing was run.
    """
    found: dict[tuple[int, int], NDArray[np.float64]] = {}
    for (rows, columns), loss in zip(cells, together, strict=True):
        if rows not in found:
            offered = space.allowed[rows[0]][:, None] & space.allowed[rows[1]]
            found[rows] = np.where(offered, 0.0, np.nan)
        found[rows][columns] = loss - values[rows[0], columns[0]] - values[rows[1], columns[1]]
    return found
