"""One hooked forward pass: which quantizable modules run, on which shapes, and which of them belong together."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import NonFiniteOutput, UnsupportedModel

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .activation_recorder import ActivationRecorder
    from .activations import ActivationGraph
    from .task import Batch

#: Operations through which a convolution's output keeps its origin until a residual addition.
_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm")
_ACTIVATIONS = ("relu", "relu_", "relu6", "hardtanh", "hardtanh_", "hardswish", "silu", "gelu", "leaky_relu")
_TRANSPARENT = frozenset({*_NORMS, *_ACTIVATIONS, "dropout", "identity", "contiguous", "clone"})
_ADDITIONS = frozenset({"add", "add_", "__add__", "__iadd__", "__radd__"})


@dataclass
class Call:
    """One call of one module.

    Attributes:
        order: position in the forward pass.
        inputs: shapes of the tensor arguments.
        output: shape of the (first) output tensor.
        source: identity of the first argument; equal for modules that read the very same tensor.
    """

    order: int
    inputs: list[tuple[int, ...]]
    output: tuple[int, ...]
    source: int


@dataclass
class Trace:
    """What the forward pass showed.

    Attributes:
        calls: module path -> its calls, for the modules asked for that ran.
        residuals: pairs of module paths whose outputs meet in a residual addition and go nowhere else.
        samples: batch size of the example.
        activations: all tensors of the pass.
    """

    samples: int
    calls: dict[str, list[Call]] = field(default_factory=dict)
    residuals: list[tuple[str, str]] = field(default_factory=list)
    activations: ActivationGraph | None = None


def trace(model: nn.Module, example: Batch, wanted: Callable[[nn.Module], bool]) -> Trace:
    """Run the model once on the example and record the calls of the wanted modules.

    Args:
        model: any module; it runs in evaluation mode without gradients.
        example: one batch of inputs.
        wanted: which modules to record.

    Returns:
        The calls in order of execution, and the residual pairs.

    Raises:
        UnsupportedModel: the forward pass failed; the message carries the cause.
        NonFiniteOutput: the float model's own output holds NaN or infinity.
    """
    import torch

    from .activation_recorder import ActivationRecorder

    found = Trace(samples=max(1, len(example)))
    alive: list[Any] = []  # keeps every input alive, so that id() identifies it for the whole pass
    origins = _Origins()
    recorder = ActivationRecorder(model, example.tensors.values(), found.samples)
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if wanted(module):
                entered = module.register_forward_pre_hook(_entering(name, recorder), with_kwargs=True)
                stack.callback(entered.remove)
                handle = module.register_forward_hook(
                    _recorder(name, found, alive, origins, recorder), with_kwargs=True
                )
                stack.callback(handle.remove)
        stack.enter_context(without_attention_fast_path())
        stack.enter_context(torch.no_grad())
        stack.enter_context(_tracker(origins))
        for module in model.modules():
            stack.callback(setattr, module, "training", module.training)
        model.eval()
        try:
            with recorder:
                output = example(model)
        except Exception as cause:
            shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in example.tensors.items())
            reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
            raise UnsupportedModel(
                f"the model failed on the example inputs ({shapes}): {reason}; give inputs that model(...) accepts"
            ) from cause
    for tensor in _tensors(output):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NonFiniteOutput("the float model gives NaN or infinity on the example inputs; check weights and data")
    found.residuals = origins.meetings
    found.activations = recorder.graph(output)
    return found


def _entering(name: str, recorder: ActivationRecorder) -> Callable[..., None]:
    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recorder.enter(name, _in_order(module, args, kwargs))

    return enter


def _recorder(
    name: str, found: Trace, alive: list[Any], origins: _Origins, recorder: ActivationRecorder
) -> Callable[..., None]:
    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        recorder.leave()
        inputs = _tensors(_in_order(module, args, kwargs))
        outputs = _tensors(output)
        if not inputs or not outputs:
            return
        alive.append(inputs)
        order = sum(len(calls) for calls in found.calls.values())
        shapes = [tuple(tensor.shape) for tensor in inputs]
        found.calls.setdefault(name, []).append(Call(order, shapes, tuple(outputs[0].shape), id(inputs[0])))
        origins.mark(outputs[0], name)

    return record


def _in_order(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments in the order of the signature of ``forward``, however the caller ordered the keywords."""
    if kwargs:
        with suppress(TypeError, ValueError):
            return list(inspect.signature(module.forward).bind(*args, **kwargs).arguments.values())
    return [*args, *kwargs.values()]


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists and dicts, in order."""
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


class _Origins:
    """Which convolution a tensor comes from, as long as only element-wise and normalization layers lie between."""

    def __init__(self) -> None:
        self._meetings: list[tuple[str, str]] = []
        self._read: set[str] = set()  # modules whose output enters anything but an addition
        self._origin: dict[int, tuple[Any, str]] = {}  # id -> (the tensor, kept alive; module path)

    @property
    def meetings(self) -> list[tuple[str, str]]:
        """Pairs of branches that end in one addition; a stem that other layers read too is no branch."""
        return [pair for pair in self._meetings if not self._read & set(pair)]

    def mark(self, tensor: Any, name: str) -> None:
        self._origin[id(tensor)] = (tensor, name)

    def of(self, value: Any) -> str | None:
        found = self._origin.get(id(value))
        return found[1] if found else None

    def observe(self, operation: str, args: tuple[Any, ...], output: Any) -> None:
        if operation in _TRANSPARENT and args:
            name = self.of(args[0])
            if name is not None:
                self.mark(output, name)
        elif operation in _ADDITIONS and len(args) >= 2:
            left, right = self.of(args[0]), self.of(args[1])
            if left is not None and right is not None and left != right:
                self._meetings.append((left, right))
            self._origin.pop(id(output), None)
        elif _tensors(output):
            self._read.update(name for value in args if (name := self.of(value)) is not None)


def _tracker(origins: _Origins) -> Any:
    from torch.overrides import TorchFunctionMode

    class Tracker(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = func(*args, **(kwargs or {}))
            origins.observe(getattr(func, "__name__", ""), args, output)
            return output

    return Tracker()


@contextmanager
def without_attention_fast_path() -> Iterator[None]:
    """The fused path of ``nn.TransformerEncoderLayer`` calls none of its sub-modules, and zeroes padded positions.

    Hooks need the plain path, and two runs that are compared need the same one.
    """
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def per_sample(elements: int, samples: int) -> int:
    """Elements (or MACs) of a batch spread over its samples, rounded up."""
    return math.ceil(elements / samples)
