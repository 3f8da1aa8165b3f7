"""Every call of every layer of a space in float: what enters it and what leaves it, without gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from ..evaluators.float_run import first_tensor, run_float
from ..formats import Format, TensorFormat

if TYPE_CHECKING:
    from ..evaluators import QuantizedModel
    from ..space import SearchSpace
    from ..task import Batch, Task


@dataclass(frozen=True)
class LayerCall:
    """One call of one module of a site.

    Attributes:
        row: of the site.
        module: its path.
        layer: the module itself.
        args: positional arguments.
        kwargs: keyword arguments.
        output: what it returned.
    """

    row: int
    module: str
    layer: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any

    @property
    def value(self) -> Tensor | None:
        """The activation that entered; ``None`` for indices."""
        value = first_tensor(self.args, self.kwargs)
        return value if value is not None and value.is_floating_point() else None

    def entering(self, value: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with another activation in its place."""
        mine = self.value
        args = tuple(value if each is mine else each for each in self.args)
        return args, {name: value if each is mine else each for name, each in self.kwargs.items()}


def pieces(task: Task, samples: int, size: int, proxy: str) -> list[Batch]:
    """The first calibration samples, in batches of at most ``size``.

    Raises:
        InvalidInput: fewer than one sample or one a batch is asked for.
    """
    if samples < 1 or size < 1:
        raise InvalidInput(f"{proxy} needs samples and batch of at least 1, got {samples}, {size}")
    found: list[Batch] = []
    for batch in task.calibration:
        usable = min(len(batch), samples)
        found.extend(batch.piece(start, min(start + size, usable)) for start in range(0, usable, size))
        samples -= usable
        if not samples:
            break
    return found


def visit(task: Task, space: SearchSpace, batch: Batch, seen: Callable[[LayerCall], None]) -> None:
    """Run the float model on a batch; ``seen`` gets every call of every module of every site.

    Args:
        task: the model.
        space: the sites.
        batch: data.
        seen: called after the module returned; two sites that share a module are shown each call both.

    Raises:
        UnsupportedModel: the model does not accept the batch.
    """
    with ExitStack() as stack, torch.no_grad():
        for row, site in enumerate(space.sites):
            for name in site.modules:
                hook = _hook(row, name, seen)
                module = task.model.get_submodule(name)
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        run_float(task.model, batch, "calibration")


def activation_columns(quantized: QuantizedModel, row: int, module: str) -> dict[TensorFormat, list[int]]:
    """The distinct formats that the input of a module is rounded to, each with the columns of the formats that do."""
    site = quantized.space.sites[row]
    found: dict[TensorFormat, list[int]] = {}
    for column, name in enumerate(quantized.space.formats):
        target = Format.parse(name)
        if site.offers(name) and target.activation is not None and quantized.rounding(site, module, target) is not None:
            found.setdefault(target.activation, []).append(column)
    return found


def _hook(row: int, name: str, seen: Callable[[LayerCall], None]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        seen(LayerCall(row, name, module, args, kwargs, output))

    return hook
