r"""The signed first-order term of the loss: what the gradient says, where it does not vanish.

.. math:: t_n[l, f] = \nabla_{w_l} \ell_n \cdot (Q_f(W_l) - W_l) + \nabla_{a_l} \ell_n \cdot (Q_f(a_l) - a_l)

for the mean objective :math:`\ell_n` of batch n; corrected biases count like weights. Second-order proxies leave it
out, as their papers do, because the gradient of a trained model is small. On data on which training has not converged
it is not: the loss may even fall. Its mean over samples keeps the sign, and so shrinks where the gradients of samples
cancel; ``delta_loss`` adds up magnitudes instead. A distance to the float model's own outputs has no gradient at the
float weights: the term is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..evaluators import QuantizedModel, objective
from .gradient_errors import ERROR_BYTES, rounded_modules
from .probing import ACTIVATIONS, WEIGHTS, labelled, wide
from .recording import Recorder
from .second_order import differentiated
from .site_changes import Directions, biases_of, inner_products, parts_of

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Batch, Task


def first_order_terms(
    task: Task, space: SearchSpace, calibration: Calibration, batches: Sequence[Batch]
) -> tuple[np.ndarray, int]:
    """The first-order term of every batch.

    Args:
        task: model and objective.
        space: sites and formats.
        calibration: scales and ranges.
        batches: data; the mean over the samples of each is taken.

    Returns:
        float64 [batches, 2, sites, formats]: weights (and biases), then inputs; NaN where a format is not offered. And
        the samples that were run forward and backward.

    Raises:
        UnsupportedModel: the model cannot be differentiated.
    """
    found = np.where(space.allowed, 0.0, np.nan)[None, None].repeat(len(batches), 0).repeat(2, 1)
    if not any(labelled(task, batch) for batch in batches):
        return found, 0
    quantized = QuantizedModel(task.model, space, calibration, ERROR_BYTES)
    parts = parts_of(quantized)
    recorder = Recorder(task.model, space, rounded_modules(quantized, space), parameters=biases_of(quantized))
    for position, batch in enumerate(batches):
        with recorder.run(batch) as run:
            directions = Directions(quantized, run)
            output = run.output.to(wide(run.output))
            loss = objective(task, output, output.detach(), run.targets)
            products = inner_products(directions, parts, differentiated(loss, directions.sources))
        for part, product in zip(parts, products, strict=True):
            kind = ACTIVATIONS if part.kind == "input" else WEIGHTS
            found[position, kind, part.row, list(part.columns)] += product
    return found, sum(len(batch) for batch in batches)


def mean_over_samples(terms: np.ndarray, batches: Sequence[Batch]) -> np.ndarray:
    """The mean of what batches have [batches, ...], each weighted with its samples."""
    mean: np.ndarray = np.average(terms, axis=0, weights=[len(batch) for batch in batches])
    return mean
