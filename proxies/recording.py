"""One forward pass with gradients on: at the weights of sites, at what enters their modules, at what leaves them.

The tensor that enters a module is handed on as a copy: its gradient is then that of this module alone, where several
modules (query, key, value; a residual addition) read the same tensor, and no in-place operation can change it. What
leaves a module is likewise recorded before a copy goes on, so that an in-place activation behind it does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import BitfrontError, UnsupportedModel
from ..evaluators import in_eval, output_tensor
from ..evaluators.float_run import first_tensor, on_device
from ..tracing import without_attention_fast_path

if TYPE_CHECKING:
    from ..space import SearchSpace
    from ..task import Batch, Task


@dataclass
class Call:
    """One call of one module of a site.

    Attributes:
        row: of the site.
        module: its path.
        args: what it was called with, the activation replaced by the copy.
        kwargs: likewise.
        value: the activation that entered; ``None`` for indices.
        output: what left (the first tensor); ``None`` until the module returned.
    """

    row: int
    module: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    value: Tensor | None
    output: Tensor | None = None


@dataclass
class Pass:
    """A forward pass whose graph is alive.

    Attributes:
        output: of the model.
        targets: of the batch.
        weights: of the sites, in the order of the rows.
        calls: in the order of execution.
        parameters: further parameters, by name.
    """

    output: Tensor
    targets: Tensor | None
    weights: list[Tensor]
    calls: list[Call] = field(default_factory=list)
    parameters: dict[str, Tensor] = field(default_factory=dict)

    def gradients(self, wanted: Sequence[Tensor], seed: Tensor, again: bool = False) -> list[Tensor | None]:
        """Gradients of (seed . output); ``None`` where the output does not depend on a tensor.

        Args:
            wanted: weights, or values and outputs of calls.
            seed: of the shape and type of the output.
            again: keep the graph for another call.

        Raises:
            UnsupportedModel: an operation of the model has no derivative.
        """
        if not wanted:
            return []
        try:
            found = torch.autograd.grad(
                self.output, list(wanted), grad_outputs=seed, allow_unused=True, retain_graph=again
            )
        except RuntimeError as cause:
            raise not_differentiable(str(cause)) from cause
        return [each.to_dense() if each is not None and each.is_sparse else each for each in found]


class Recorder:
    """Runs a float model forward with gradients on, and leaves it as it was.

    Args:
        model: the model.
        space: its sites, the rows.
        modules: paths of the modules whose calls are recorded.
        outputs: whether to record what leaves them, too.
        parameters: names of parameters beside the weights of the sites of which derivatives are wanted.
    """

    def __init__(
        self,
        model: nn.Module,
        space: SearchSpace,
        modules: Sequence[str],
        outputs: bool = False,
        parameters: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.parameters = {name: model.get_parameter(name) for name in parameters}
        self.weights = [model.get_parameter(site.parameter) for site in space.sites]
        wanted = set(modules)
        self.modules = [(row, name) for row, site in enumerate(space.sites) for name in site.modules if name in wanted]
        self.outputs = outputs

    @contextmanager
    def run(self, batch: Batch) -> Iterator[Pass]:
        """Run forward.

        Yields:
            The pass; its graph lives as long as it does.

        Raises:
            UnsupportedModel: the model cannot run with gradients on, or its output has none.
        """
        calls: list[Call] = []
        with ExitStack() as stack:
            for parameter in self.model.parameters():
                stack.callback(parameter.requires_grad_, parameter.requires_grad)
                parameter.requires_grad_(False)
            for weight in (*self.weights, *self.parameters.values()):
                weight.requires_grad_(True)
            for row, name in self.modules:
                module = self.model.get_submodule(name)
                stack.callback(module.register_forward_pre_hook(_entering(row, name, calls), with_kwargs=True).remove)
                if self.outputs:
                    stack.callback(module.register_forward_hook(_leaving(name, calls)).remove)
            stack.enter_context(in_eval(self.model))
            stack.enter_context(without_attention_fast_path())
            stack.enter_context(torch.enable_grad())
            batch = on_device(batch, self.model)
            try:
                output = output_tensor(batch(self.model))
            except BitfrontError:
                raise
            except RuntimeError as cause:
                raise not_differentiable(str(cause)) from cause
            if not output.requires_grad:
                raise not_differentiable("its output does not depend on its weights by differentiable operations")
            yield Pass(output, batch.targets, list(self.weights), calls, dict(self.parameters))


def single_samples(task: Task, samples: int) -> list[Batch]:
    """The first ``samples`` calibration samples, each as a batch of one."""
    found: list[Batch] = []
    for batch in task.calibration:
        found.extend(batch.piece(index, index + 1) for index in range(min(len(batch), samples - len(found))))
    return found


def not_differentiable(why: str) -> UnsupportedModel:
    """The error for a model that gradients cannot be taken of; it names the proxies that need none."""
    from .sensitivity import proxies

    free = ", ".join(sorted(name for name, kind in proxies().items() if kind.gradients == 0))
    reason = why.strip().splitlines()[0].rstrip(".") if why.strip() else "no reason given"
    return UnsupportedModel(f"the model cannot be differentiated: {reason}; choose a proxy without gradients: {free}")


def _entering(row: int, name: str, calls: list[Call]) -> Callable[..., Any]:
    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = first_tensor(args, kwargs)
        if value is None or not value.is_floating_point():
            calls.append(Call(row, name, args, kwargs, None))
            return None
        copy = value.clone() if value.requires_grad else value.detach().clone().requires_grad_(True)
        args = tuple(copy if each is value else each for each in args)
        kwargs = {key: copy if each is value else each for key, each in kwargs.items()}
        calls.append(Call(row, name, args, kwargs, copy))
        return args, kwargs

    return enter


def _leaving(name: str, calls: list[Call]) -> Callable[..., Any]:
    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        # sites share a module where attention keeps its projections; each call of it opened one record a site
        opened = [call for call in calls if call.module == name and call.output is None]
        value = output if isinstance(output, Tensor) else first_tensor(tuple(output), {})
        if value is None:
            raise not_differentiable(f"{name} returns {type(output).__name__}, not a tensor")
        for call in opened:
            call.output = value
        if isinstance(output, Tensor):
            return output.clone()
        return type(output)(value.clone() if each is value else each for each in output)

    return leave
