r"""SNIP: connection sensitivity, times bits.

.. math:: I_l = \frac1N \sum_n \sum_{i \in W_l} \Bigl| w_i \frac{\partial \ell_n}{\partial w_i} \Bigr|

with l_n the loss of sample n; ``bit_weighted`` makes the table of formats from I. Lee, Ajanthan and Torr 2019, SNIP,
arXiv:1810.02340, section 4; summed over a layer and multiplied with its bits it is a baseline of Dong et al. 2023, EMQ,
arXiv:2307.10554. SNIP takes the gradient of one batch, whose size then enters the score, because opposite gradients
cancel; here every sample counts by itself.

Labels: those of the data where the objective is a loss against them. ``kl``, ``relative_error`` and ``cosine`` have no
gradient at the float weights; there it is a random one, with the covariance that the gradients at labels drawn from the
model have (``signs`` in ``likelihood``). ``labels`` forces one or the other.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

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


class SNIP:
    """Weight times gradient, summed over each site, times bits.

    Args:
        samples: calibration samples used; each is one forward and one backward pass.
        labels: ``"data"``, ``"model"``, or ``"auto"``: the data's where the objective uses them.
    """

    name = "snip"
    summary = "zero-cost: |weight x gradient| of each layer, times bits"
    additive = False
    gradients = 1
    source = "Lee et al. 2019 (SNIP), arXiv:1810.02340, section 4; times bits as in EMQ, arXiv:2307.10554"

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
        recorder = Recorder(task.model, space, ())
        generator = torch.Generator().manual_seed(seed)
        draws: list[np.ndarray] = []
        reached: set[int] = set()
        for batch in batches:
            with recorder.run(batch) as run:
                if source != "data" and not draws:
                    check_softmax(task, run.output, run.targets, self.name)
                drawn = score(task, run.output, run.targets, source, generator)
                importance = np.zeros(len(space.sites))
                gradients = run.gradients(run.weights, drawn.seed)
                for row, (weight, gradient) in enumerate(zip(run.weights, gradients, strict=True)):
                    if gradient is not None:
                        reached.add(row)
                        product = weight.detach().float() * gradient.float()
                        importance[row] = float(product.abs().sum(dtype=torch.float64)) * drawn.scale
                draws.append(importance)
            if advance:
                advance(1)
        check_reached(task, QuantizedModel(task.model, space, calibration, cache_bytes=0), reached, batches[0])
        values, error = weighted_mean(space, draws, self.name)
        seconds, count = time.perf_counter() - started, len(batches)
        names = tuple(space.names)
        return Sensitivity(self.name, values, error, names, space.formats, seconds, count, count, additive=False)
