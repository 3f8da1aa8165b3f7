"""One pass over the calibration data, with an observer at the input of every site."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch

from ...errors import NonFiniteOutput
from ...formats import activation_name
from ..calibration import Advance, static_activations
from ..float_run import first_tensor, run_float
from ..quantizers import Range

if TYPE_CHECKING:
    from torch import nn

    from ...space import SearchSpace
    from ...task import Task


def observed_ranges(
    task: Task, space: SearchSpace, observer: str, advance: Advance | None = None
) -> dict[tuple[str, str], Range]:
    """Clipping ranges of the inputs of every module whose site offers static activation scales.

    Args:
        task: model and calibration data.
        space: the sites.
        observer: one of ``recipe.ACTIVATIONS``.
        advance: called with 1 after each calibration batch.

    Returns:
        (module path, name of the activation format) -> range.

    Raises:
        NonFiniteOutput: an activation is NaN or infinite; the message names the layer.
    """
    ranges: dict[str, Range] = {}
    targets = {module: static_activations(site) for site in space.sites for module in site.modules}

    def hook(name: str) -> Callable[..., None]:
        def observe(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            value = first_tensor(args, kwargs)
            if value is None or not value.is_floating_point():
                return
            low, high = torch.aminmax(value.detach())
            if not bool(torch.isfinite(low) & torch.isfinite(high)):
                raise NonFiniteOutput(f"the activation that enters {name} is NaN or infinite on the calibration data")
            before = ranges.get(name, Range(low, high))
            ranges[name] = Range(torch.minimum(low, before.low), torch.maximum(high, before.high))

        return observe

    with ExitStack() as stack, torch.no_grad():
        for name, wanted in targets.items():
            if wanted:
                handle = task.model.get_submodule(name).register_forward_pre_hook(hook(name), with_kwargs=True)
                stack.callback(handle.remove)
        for batch in task.calibration:
            run_float(task.model, batch, "calibration")
            if advance:
                advance(1)
    return {(name, activation_name(target)): found for name, found in ranges.items() for target in targets[name]}
