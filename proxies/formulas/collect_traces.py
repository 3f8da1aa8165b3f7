"""Hessian traces of every site, over its weights and over the activation that enters it."""

from __future__ import annotations

import numpy as np

from ..gradient_errors import check_reached, rounded_modules
from ..layer_calls import pieces
from ..probing import ACTIVATIONS, WEIGHTS
from ..site_traces import Setting, estimate
from ..stopping import relative_errors
from .collect_context import NAME, Context

PROBES, TOLERANCE, BATCH = 4, 0.1, 16


def collect_traces(context: Context, wanted: frozenset[str]) -> dict[str, np.ndarray]:
    """``hessian_trace`` and ``activation_trace``, by the estimators of the proxy ``hessian_trace``.

    Sampling stops when all are known to a standard error of 10 %, or after 4 probes of each sample. The trace over
    activations is that of one sample, 0 where no offered format rounds them.

    Raises:
        UnsupportedModel: the model cannot be differentiated.
    """
    task, space = context.task, context.space
    batches = pieces(task, context.samples, BATCH, NAME)
    setting = Setting("auto", PROBES, TOLERANCE, False, context.seed)

    def vague(values: np.ndarray, errors: np.ndarray) -> np.ndarray:
        return np.asarray(np.any(relative_errors(values, errors) > TOLERANCE, axis=0))

    rounded = rounded_modules(context.quantized, space)
    found = estimate(task, space, batches, rounded, setting, vague, context.advance)
    check_reached(task, context.quantized, found.reached, batches[0])
    context.forward += found.forward
    context.backward += found.backward
    return {"hessian_trace": found.values[WEIGHTS], "activation_trace": found.values[ACTIVATIONS]}
