r"""SQNR: the noise that a format adds, relative to the signal.

.. math::
    s[l, f] = 10^{-\mathrm{SQNR}_W / 10} + 10^{-\mathrm{SQNR}_a / 10}
            = \frac{\lVert Q_f(W_l) - W_l \rVert^2}{\lVert W_l \rVert^2}
            + \frac{\sum \lVert Q_f(a_l) - a_l \rVert^2}{\sum \lVert a_l \rVert^2}, \qquad
    \mathrm{SQNR}_x = 10 \log_{10} \frac{\lVert x \rVert^2}{\lVert Q(x) - x \rVert^2} \text{ dB}

with a_l the activation that enters the site, over the calibration samples; the second term where the format rounds it.
Lin, Talathi and Annapureddy 2016, arXiv:1511.06393: the reciprocals of the signal-to-noise ratios of weights
and activations add up over the layers to that of the output, if all noise is independent and every layer passes the
ratio on. So the sum over a configuration estimates the relative squared error of the output, not the task's loss.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from ..evaluators import QuantizedModel
from .layer_calls import LayerCall, activation_columns, pieces, visit
from .perturbation import weight_errors
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task


class SQNR:
    """Noise-to-signal ratio of the weight and, where formats round it, of the activation.

    Args:
        samples: calibration samples that run forward; none where no format rounds activations.
        batch: samples run at a time.
    """

    name = "sqnr"
    summary = "quantization noise relative to the signal, weights and activations; forward passes only"
    additive = True
    gradients = 0
    source = "Lin et al. 2016, arXiv:1511.06393"

    def __init__(self, samples: int = 64, batch: int = 16) -> None:
        self.samples = samples
        self.batch = batch

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Batches."""
        return len(pieces(task, self.samples, self.batch, self.name))

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring. The seed is not used: nothing is random.

        Raises:
            InvalidInput: fewer than one sample or one a batch.
            UnsupportedModel: the model does not accept the calibration data.
        """
        started = time.perf_counter()
        quantized = QuantizedModel(task.model, space, calibration, cache_bytes=0)
        energy = [float(task.model.get_parameter(s.parameter).detach().double().square().sum()) for s in space.sites]
        values = weight_errors(task, space, calibration) / np.maximum(np.array(energy), _TINY)[:, None]
        columns = {
            (row, module): found
            for row, site in enumerate(space.sites)
            for module in site.modules
            if (found := activation_columns(quantized, row, module))
        }
        noise, signal = np.where(space.allowed, 0.0, np.nan), np.zeros(len(space.sites))

        def add(call: LayerCall) -> None:
            value = call.value
            if value is None or (call.row, call.module) not in columns:
                return
            signal[call.row] += float(value.double().square().sum())
            for target, found in columns[call.row, call.module].items():
                error = quantized.rule(call.module, target)[1](value) - value
                noise[call.row, found] += float(error.double().square().sum())

        batches = pieces(task, self.samples, self.batch, self.name) if columns else []
        for batch in batches:
            visit(task, space, batch, add)
            if advance:
                advance(1)
        values = values + noise / np.maximum(signal, _TINY)[:, None]
        seconds, count = time.perf_counter() - started, sum(len(batch) for batch in batches)
        return Sensitivity(self.name, values, None, tuple(space.names), space.formats, seconds, count)


_TINY = float(np.finfo(np.float64).tiny)
