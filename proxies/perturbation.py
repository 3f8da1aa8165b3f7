r"""The size of the perturbation that a format makes: squared error of weights and of input activations.

.. math:: \lVert Q_f(W) - W \rVert_2^2 \qquad \text{and} \qquad \lVert Q_f(a) - a \rVert_2^2 \text{ per sample}
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..evaluators import QuantizedModel
from ..evaluators.float_run import first_tensor, run_float
from ..formats import Format

if TYPE_CHECKING:
    from torch import nn

    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Batch, Task


def weight_errors(task: Task, space: SearchSpace, calibration: Calibration) -> np.ndarray:
    """Squared error of every quantized weight: float64 [sites, formats], NaN where a format is not offered."""
    quantized = QuantizedModel(task.model, space, calibration, cache_bytes=0)
    errors = np.full((len(space.sites), len(space.formats)), np.nan)
    for row, site in enumerate(space.sites):
        original = task.model.get_parameter(site.parameter).detach()
        for column, name in enumerate(space.formats):
            if site.offers(name):
                rounded = quantized.weight(site, Format.parse(name).weight)
                errors[row, column] = float((rounded.float() - original.float()).double().square().sum())
    return errors


def activation_errors(
    task: Task, space: SearchSpace, calibration: Calibration, batches: Iterable[Batch]
) -> tuple[np.ndarray, np.ndarray]:
    """Squared error of every rounded input activation, and how many elements it has.

    Args:
        task: the model.
        space: sites and formats.
        calibration: activation ranges.
        batches: data to run; the mean over its samples is taken.

    Returns:
        Squared error per sample [sites, formats] (0 where the format leaves activations alone, NaN where it is not
        offered) and elements per sample [sites].
    """
    quantized = QuantizedModel(task.model, space, calibration, cache_bytes=0)
    errors = np.where(space.allowed, 0.0, np.nan)
    elements = np.zeros(len(space.sites))
    samples = 0
    wanted = [
        (row, column, module, rounding)
        for row, site in enumerate(space.sites)
        for column, name in enumerate(space.formats)
        if site.offers(name)
        for module in site.modules
        if (rounding := quantized.rounding(site, module, Format.parse(name))) is not None
    ]
    by_module: dict[str, list[Any]] = {}
    for row, column, module, rounding in wanted:
        by_module.setdefault(module, []).append((row, column, rounding))

    def observer(name: str) -> Any:
        def observe(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            value = first_tensor(args, kwargs)
            if value is None or not value.is_floating_point():
                return  # indices; a format that rounds this input is refused where the configuration is taken on
            value = value.detach()
            for row, column, rounding in by_module[name]:
                errors[row, column] += float((rounding(value) - value).double().square().sum())
            for row in {row for row, _, _ in by_module[name]}:
                elements[row] += value.numel()

        return observe

    if not by_module:
        return errors, elements
    with ExitStack() as stack, torch.no_grad():
        for name in by_module:
            handle = task.model.get_submodule(name).register_forward_pre_hook(observer(name), with_kwargs=True)
            stack.callback(handle.remove)
        for batch in batches:
            run_float(task.model, batch, "calibration")
            samples += len(batch)
    return errors / max(1, samples), elements / max(1, samples)
