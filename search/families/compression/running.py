"""Running a network on the example, and comparing what comes out with what the original gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ....errors import UnsupportedModel
from ....evaluators import run_float
from ....evaluators.float_run import in_eval, on_device
from ....task import Batch


def outputs(model: nn.Module, example: Batch) -> list[Tensor]:
    """All tensors that the model returns on the example, in evaluation mode and without gradients.

    Raises:
        UnsupportedModel: the model does not accept the example, or returns no tensor.
    """
    with torch.no_grad():
        found = [each for each in tree_leaves(run_float(model, example, "example")) if isinstance(each, Tensor)]
    if not found:
        raise UnsupportedModel(f"{type(model).__name__} returns no tensor on the example inputs")
    return found


def fault(model: nn.Module, example: Batch, expected: Sequence[Tensor]) -> str:
    """Why a changed network cannot stand in for the original; empty if it can.

    Args:
        model: the changed network.
        example: inputs.
        expected: outputs of the original; shapes and types must agree, and nothing may be NaN or infinite.
    """
    try:
        found = outputs(model, example)
        if any(isinstance(module, nn.TransformerEncoderLayer) for module in model.modules()):
            _by_the_fast_path(model, example)
    except UnsupportedModel as cause:
        return str(cause)
    told = [(tuple(each.shape), each.dtype) for each in found]
    wanted = [(tuple(each.shape), each.dtype) for each in expected]
    if told != wanted:
        return f"the outputs are {told}, those of the original {wanted}"
    if not all(bool(torch.isfinite(each).all()) for each in found if each.is_floating_point()):
        return "the outputs hold NaN or infinity"
    return ""


def _by_the_fast_path(model: nn.Module, example: Batch) -> None:
    """Run as callers do: the fused path of PyTorch's encoder reads the weights of its layers without calling them."""
    try:
        with torch.no_grad(), in_eval(model):
            on_device(example, model)(model)
    except (AttributeError, RuntimeError, TypeError) as cause:
        raise UnsupportedModel(f"the fused path of nn.TransformerEncoderLayer fails: {cause}") from cause


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put another module in the place of the one at ``path``, in every place where the model holds that one."""
    old = model.get_submodule(path)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                parent._modules[name] = module


@contextmanager
def replaced(model: nn.Module, path: str, module: nn.Module) -> Iterator[None]:
    """Another module in the place of the one at ``path``, for the length of a ``with`` block."""
    old = model.get_submodule(path)
    replace(model, path, module)
    try:
        yield
    finally:
        replace(model, path, old)
