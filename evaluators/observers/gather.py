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
from .protocol import Observer, extremes
from .registry import OBSERVERS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...formats import TensorFormat
    from ...space import SearchSpace
    from ...task import Task


def observed_ranges(
    task: Task, space: SearchSpace, observer: str, advance: Advance | None = None
) -> dict[tuple[str, str], Range]:
    """Clipping ranges of the inputs of every module whose site offers static activation scales.

    A module that is called more than once in a forward pass has one range for all its calls. Modules that the
    calibration data does not reach, and inputs that are no floats, have none.

    Args:
        task: model and calibration data.
        space: the sites.
        observer: one of ``recipe.ACTIVATIONS``.
        advance: called with 1 after each calibration batch.

    Returns:
        (module path, name of the activation format) -> range, on the CPU.

    Raises:
        NonFiniteOutput: an activation is NaN or infinite; the message names the layer.
    """
    seen = {
        module: _Input(module, observer, targets)
        for site in space.sites
        if (targets := static_activations(site))
        for module in site.modules
    }
    with ExitStack() as stack, torch.no_grad():
        for name, entering in seen.items():
            module = task.model.get_submodule(name)
            stack.callback(module.register_forward_pre_hook(entering.hook, with_kwargs=True).remove)
        for batch in task.calibration:
            run_float(task.model, batch, "calibration")
            for entering in seen.values():
                entering.end_batch()
            if advance:
                advance(1)
        return {
            (name, activation_name(target)): found
            for name, entering in seen.items()
            for target, found in entering.ranges().items()
        }


class _Input:
    """What enters one module, and the observers that look at it."""

    def __init__(self, module: str, observer: str, targets: list[TensorFormat]) -> None:
        self._module = module
        self._new: Callable[[], Observer] = OBSERVERS[observer]
        self._targets = targets
        self._observers: dict[bool, Observer] = {}  # one scale for each feature? -> the observer

    def hook(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Observe the first tensor among the arguments."""
        entering = first_tensor(args, kwargs)
        if entering is None or not entering.is_floating_point() or not entering.numel():
            return
        for by_feature in {_by_feature(target) for target in self._targets}:
            value = _columns(entering.detach().float(), by_feature)
            found = extremes(value)
            if not bool(torch.isfinite(found.low + found.high).all()):
                raise NonFiniteOutput(
                    f"the activation that enters {self._module} is NaN or infinite on the calibration data"
                )
            self._observers.setdefault(by_feature, self._new()).observe(value, found)

    def end_batch(self) -> None:
        """Tell the observers that a calibration batch ends."""
        for observer in self._observers.values():
            observer.end_batch()

    def ranges(self) -> dict[TensorFormat, Range]:
        """The range of every format."""
        found = {}
        for target in self._targets:
            observer = self._observers.get(_by_feature(target))
            if observer is not None:
                shape = (-1,) if _by_feature(target) else ()
                found[target] = Range(*(end.float().reshape(shape).cpu() for end in observer.range(target)))
        return found


def _by_feature(target: TensorFormat) -> bool:
    return target.granularity == "channel"


def _columns(value: Tensor, by_feature: bool) -> Tensor:
    """The values that share a scale as columns: [elements, 1] or [tokens, features]."""
    return value.reshape(-1, value.shape[-1] if by_feature else 1)
