"""The float model as an ONNX graph in which every rounded site input is marked."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UnsupportedModel
from ..task import Batch
from .comparison import doubled
from .protocol import ExportRequest

if TYPE_CHECKING:
    import onnx_ir as ir

#: Domain of the marker operator ``Input``; no node of it is left in the file.
DOMAIN = "bitfront"


@dataclass(frozen=True)
class Traced:
    """A float graph.

    Attributes:
        model: the graph. A node ``bitfront::Input`` with the attributes ``site`` and ``module`` stands where the
            input of a module is to be rounded.
        float_bytes: size of the float file, without the markers.
    """

    model: ir.Model
    float_bytes: int


def trace(request: ExportRequest, opset: int) -> Traced:
    """Export the float model with ``torch.onnx.export(dynamo=True)``, unoptimized, so that every weight is there.

    The batch dimension is left free where the model allows it: an example of one sample is doubled for that, because
    ``torch.export`` takes the size 1 for a constant. Where the model fixes it, the example's own batch size is kept.

    Args:
        request: model, configuration and example.
        opset: ONNX operator set.

    Raises:
        UnsupportedModel: ``torch.onnx.export`` refuses the model; the message carries the first cause.
    """
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(_plain_evaluation(request.model))
        stack.enter_context(torch.no_grad())
        for module, site in request.rounded_modules.items():
            handle = request.model.get_submodule(module).register_forward_pre_hook(_marker(site, module))
            stack.callback(handle.remove)
        example = doubled(request.example) if len(request.example) == 1 else request.example
        exported = _export(request.model, example, opset, dynamic=True)
        if isinstance(exported, Exception) or not _is_dynamic(exported):
            exported = _export(request.model, request.example, opset, dynamic=False)
    if isinstance(exported, Exception):
        raise UnsupportedModel(
            f"torch.onnx.export cannot express {type(request.model).__name__}: {_first_cause(exported)}"
        ) from exported
    return Traced(exported, _float_bytes(exported))


def _marker(site: str, module: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def mark(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        value = args[0]
        marked = torch.onnx.ops.symbolic(
            f"{DOMAIN}::Input",
            (value,),
            {"site": site, "module": module},
            dtype=value.dtype,
            shape=value.shape,
            version=1,
        )
        return (marked, *args[1:])

    return mark


def _export(model: nn.Module, example: Batch, opset: int, dynamic: bool) -> ir.Model | Exception:
    import onnx_ir.passes.common as passes

    free = {name: _free(tensor, len(example)) for name, tensor in example.tensors.items()} if dynamic else None
    named = isinstance(example.inputs, dict)
    try:
        program = torch.onnx.export(
            model,
            () if isinstance(example.inputs, dict) else example.inputs,
            kwargs=example.inputs if isinstance(example.inputs, dict) else None,
            dynamic_shapes=free if free is None or named else tuple(free.values()),
            opset_version=opset,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    except Exception as cause:  # noqa: BLE001  torch.export raises anything; the caller reports the first cause
        return cause
    assert program is not None
    passes.ClearMetadataAndDocStringPass()(program.model)
    for value in (*program.model.graph.inputs, *program.model.graph.initializers.values()):
        value.metadata_props.clear()
    return program.model


def _free(tensor: Tensor, samples: int) -> dict[int, Any] | None:
    return {0: torch.export.Dim.AUTO} if tensor.ndim and tensor.shape[0] == samples else None


def _is_dynamic(model: ir.Model) -> bool:
    first = model.graph.inputs[0].shape
    return first is not None and len(first) > 0 and not isinstance(first[0], int)


def _float_bytes(model: ir.Model) -> int:
    """Size of the float file, found without a copy of its weights: those are counted, and the rest is serialized."""
    import onnx_ir as ir

    held = {value: value.const_value for value in model.graph.initializers.values()}
    for value, tensor in held.items():
        if tensor is not None:
            value.const_value = ir.Tensor(np.zeros(0, np.float32), name=value.name)
    try:
        proto = ir.to_proto(model)
    finally:
        for value, tensor in held.items():
            value.const_value = tensor
    weights = sum(tensor.nbytes for tensor in held.values() if tensor is not None)
    return int(proto.ByteSize() + weights - sum(node.ByteSize() for node in proto.graph.node if node.domain == DOMAIN))


def _first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def _plain_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, without the fused attention path that would by-pass the marked modules."""
    training = [module for module in model.modules() if module.training]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    model.eval()
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module in training:
            module.training = True


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's progress notes and deprecation warnings say nothing about the user's model."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
