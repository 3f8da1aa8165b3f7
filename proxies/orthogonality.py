r"""Orthogonality: OMPQ's metric, how little the features of a layer overlap with those of all others.

.. math::
    \mathrm{ORM}_{ij} = \frac{\lVert F_j^\top F_i \rVert_F^2}
                            {\lVert F_i^\top F_i \rVert_F \lVert F_j^\top F_j \rVert_F},
    \qquad \gamma_i = \sum_{j \ne i} \mathrm{ORM}_{ij}, \qquad \theta_i = e^{-\beta \gamma_i}

with F_i [samples, features] the outputs of site i on the same samples. Ma et al. 2023, OMPQ, arXiv:2109.07865, eq. 5 to
9, which chooses the bits b by the linear program :math:`\max_b \sum_i b_i \bar\theta_i`,
:math:`\bar\theta_i = \frac1{L - i + 1} \sum_{j \ge i} \theta_j`, over the L layers in the order of execution. The table
is

.. math:: s[i, f] = \frac{\bar\theta_i}{\sum_k \bar\theta_k} \Bigl( 1 - \frac{b_f}{32} \Bigr)

whose sum is minus that objective up to a constant and a factor (``bit_weighted`` says what b_f is). As in the authors'
code the columns of F are centred, which makes ORM the linear centred kernel alignment (Kornblith et al. 2019,
arXiv:1905.00414). The Gram matrices F F^T, samples x samples, give the same norms and are all that is kept.

gamma is counted from its smallest value, which only scales theta: with many sites exp(-gamma) would underflow. A site
whose features are the same for all samples (an embedding of positions) has no ORM; it gets the mean gamma of the
others. Sites that are projections of one attention module share its output. It ranks; how bits lower the loss is not
modelled.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import InvalidInput, NonFiniteOutput, UnsupportedModel
from ..evaluators.float_run import first_tensor
from ..task import Batch
from .bit_weighted import bit_weighted
from .layer_calls import LayerCall, visit
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task


class Orthogonality:
    """ORM of the features of every site, times bits.

    Args:
        samples: calibration samples whose features are compared; they must have the shape of the first.
        beta: how sharply orthogonal layers are preferred; gamma grows with the number of sites, so deep networks want
            less of it (OMPQ chooses it by hand for each network).
    """

    name = "orthogonality"
    summary = "OMPQ: layers whose features overlap least with others first; one forward pass"
    additive = False
    gradients = 0
    source = "Ma et al. 2023 (OMPQ), arXiv:2109.07865, eq. 5-9"

    def __init__(self, samples: int = 32, beta: float = 1.0) -> None:
        self.samples = samples
        self.beta = beta

    def steps(self, task: Task, space: SearchSpace) -> int:
        """One forward pass."""
        return 1

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring. The seed is not used: nothing is random.

        Raises:
            InvalidInput: fewer than two calibration samples of equal shape.
            UnsupportedModel: the outputs of a layer cannot be told apart by sample.
            NonFiniteOutput: an output is NaN or infinite.
        """
        started = time.perf_counter()
        batch = joined(task, self.samples)
        count = len(batch)
        if count < 2:
            raise InvalidInput(
                f"orthogonality compares samples of equal shape, and got {count} of them; give larger calibration "
                "batches, or samples of at least 2"
            )
        grams = torch.zeros(len(space.sites), count, count, dtype=torch.float64)

        def add(call: LayerCall) -> None:
            output = first_tensor((call.output, *_parts(call.output)), {})
            if output is not None and output.ndim and output.shape[0] == 1:
                return  # one for all samples, such as an embedding of positions
            if output is None or not output.ndim or output.shape[0] % count:
                shape = None if output is None else tuple(output.shape)
                raise UnsupportedModel(
                    f"orthogonality: {call.module} returns {shape} for {count} samples, whose first axis is not the "
                    "samples; choose another proxy"
                )
            features = output.detach().float().reshape(count, -1)
            features = features - features.mean(0)
            grams[call.row] += (features @ features.T).double().cpu()

        visit(task, space, batch, add)
        if not bool(torch.isfinite(grams).all()):
            row = int(torch.argwhere(~torch.isfinite(grams).all(dim=(1, 2)))[0])
            raise NonFiniteOutput(f"proxy orthogonality: the output of {space.sites[row].name} is NaN or infinite")
        values = bit_weighted(space, importances(orm(grams.numpy()), self.beta), self.name)
        if advance:
            advance(1)
        seconds = time.perf_counter() - started
        return Sensitivity(self.name, values, None, tuple(space.names), space.formats, seconds, count, additive=False)


def orm(grams: np.ndarray) -> np.ndarray:
    """ORM of every pair from Gram matrices [sites, samples, samples]: [sites, sites], 1 on the diagonal.

    A site whose features do not vary overlaps with nothing.
    """
    flat = grams.reshape(len(grams), -1)
    norms = np.linalg.norm(flat, axis=1)
    unit = flat / np.where(norms > 0, norms, 1.0)[:, None]
    found: np.ndarray = unit @ unit.T
    np.fill_diagonal(found, 1.0)
    return found


def importances(overlap: np.ndarray, beta: float) -> np.ndarray:
    """The coefficients of OMPQ's linear program from ORM [sites, sites]: [sites].

    A site that overlaps with nothing at all counts as the mean of the others.
    """
    gamma = overlap.sum(1) - np.diag(overlap)
    varying = gamma > 0
    gamma = np.where(varying, gamma, gamma[varying].mean() if varying.any() else 0.0)
    theta = np.exp(-beta * (gamma - gamma.min()))
    later = np.cumsum(theta[::-1])[::-1]
    found: np.ndarray = later / np.arange(len(theta), 0, -1)
    return found


def joined(task: Task, samples: int) -> Batch:
    """The first calibration samples as one batch, over all batches whose samples have the shape of the first."""
    wanted = {name: tensor.shape[1:] for name, tensor in task.calibration[0].tensors.items()}
    found: list[Batch] = []
    for batch in task.calibration:
        if samples > 0 and {name: tensor.shape[1:] for name, tensor in batch.tensors.items()} == wanted:
            found.append(batch.piece(0, samples))
            samples -= len(found[-1])
    together = {name: torch.cat([each.tensors[name] for each in found]) for name in wanted} if found else {}
    if isinstance(task.calibration[0].inputs, dict):
        return Batch(together)
    return Batch(tuple(together.values()))


def _parts(output: object) -> tuple[object, ...]:
    return tuple(output) if isinstance(output, (tuple, list)) else ()
