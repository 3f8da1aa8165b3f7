r"""Fisher pruning: what removing a channel of a layer's output would cost, times bits.

.. math::
    I_l = \sum_c \frac1{2N} \sum_n \Bigl( \sum_{p} y_{ncp} \frac{\partial \ell_n}{\partial y_{ncp}} \Bigr)^2

with y the output of site l for sample n, channel (feature) c, position (token) p, and l_n the loss of the sample;
``bit_weighted`` makes the table of formats from I. Theis et al. 2018, arXiv:1801.05787, section 2; the zero-cost score
``fisher`` of Turner et al. 2020, BlockSwap, arXiv:1906.04113 and of Abdelfattah et al. 2021, arXiv:2101.08134; times
bits a baseline of Dong et al. 2023, EMQ, arXiv:2307.10554. Samples run one at a time, so that l_n is the sample's own
loss and not a part of a batch's mean.

Labels: those of the data where the objective is a loss against them. ``kl``, ``relative_error`` and ``cosine`` have no
gradient at the float weights; there it is a random one, with the covariance that the gradients at labels drawn from the
model have (``signs`` in ``likelihood``). ``labels`` forces one or the other.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..evaluators import QuantizedModel
from .bit_weighted import weighted_mean
from .gradient_errors import check_reached
from .likelihood import Labels, check_softmax, labels_of, score
from .recording import Recorder, single_samples
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task

_SPREAD = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class FisherPruning:
    """Squared sensitivity of the output channels of each site, times bits.

    Args:
        samples: calibration samples used; each is one forward and one backward pass.
        labels: ``"data"``, ``"model"``, or ``"auto"``: the data's where the objective uses them.
    """

    name = "fisher_pruning"
    summary = "zero-cost: Fisher information of each layer's output channels, times bits"
    additive = False
    gradients = 1
    source = "Theis et al. 2018, arXiv:1801.05787, section 2; times bits as in EMQ, arXiv:2307.10554"

    def __init__(self, samples: int = 32, labels: Labels = "auto") -> None:
        self.samples = samples
        self.labels = labels

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Samples."""
        return min(self.samples, task.samples("calibration"))

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring.

        Raises:
            InvalidInput: labels of the data are asked for and there are none, or labels of the model where the task
                has a loss of its own that is not the cross-entropy of the outputs.
            UnsupportedModel: the model cannot be differentiated.
            NonFiniteOutput: a gradient is not finite.
        """
        started = time.perf_counter()
        source = labels_of(task, self.labels, self.name)
        batches = single_samples(task, self.samples)
        recorder = Recorder(task.model, space, [m for site in space.sites for m in site.modules], outputs=True)
        generator = torch.Generator().manual_seed(seed)
        draws: list[np.ndarray] = []
        reached: set[int] = set()
        for batch in batches:
            with recorder.run(batch) as run:
                if source != "data" and not draws:
                    check_softmax(task, run.output, run.targets, self.name)
                drawn = score(task, run.output, run.targets, source, generator)
                outputs = [(call.row, call.module, call.output) for call in run.calls if call.output is not None]
                gradients = run.gradients([output for _, _, output in outputs], drawn.seed)
                channels: dict[tuple[int, str], Tensor] = {}
                for (row, module, output), gradient in zip(outputs, gradients, strict=True):
                    if gradient is not None:
                        reached.add(row)
                        summed = _by_channel(output, gradient, task.model.get_submodule(module)) * drawn.scale
                        channels[row, module] = channels.get((row, module), 0) + summed
                importance = np.zeros(len(space.sites))
                for (row, _), summed in channels.items():
                    importance[row] += 0.5 * float(summed.square().sum())
                draws.append(importance)
            if advance:
                advance(1)
        check_reached(task, QuantizedModel(task.model, space, calibration, cache_bytes=0), reached, batches[0])
        values, error = weighted_mean(space, draws, self.name)
        seconds, count = time.perf_counter() - started, len(batches)
        names = tuple(space.names)
        return Sensitivity(self.name, values, error, names, space.formats, seconds, count, count, additive=False)


def _by_channel(output: Tensor, gradient: Tensor, module: nn.Module) -> Tensor:
    """Output times gradient, summed over all but the channels: float64 [channels]."""
    product = (output.detach().float() * gradient.float()).double()
    axis = product.ndim - 1 - (len(module.kernel_size) if isinstance(module, _SPREAD) else 0)
    return product.movedim(axis, -1).reshape(-1, product.shape[axis]).sum(0)
