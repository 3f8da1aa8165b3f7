"""Running the float model on a batch, in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from ..errors import BitfrontError, UnsupportedModel
from ..tracing import without_attention_fast_path

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..task import Batch


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The first tensor among the arguments of a module."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)


def on_device(batch: Batch, model: nn.Module) -> Batch:
    """The batch on the device of the model, where its parameters lie on one; other models place their inputs."""
    from ..task import Batch

    devices = {parameter.device for parameter in model.parameters()}
    tensors = [*batch.tensors.values(), *([] if batch.targets is None else [batch.targets])]
    if len(devices) != 1 or all(tensor.device in devices for tensor in tensors):
        return batch
    device = devices.pop()
    targets = None if batch.targets is None else batch.targets.to(device)
    if isinstance(batch.inputs, dict):
        return Batch({name: tensor.to(device) for name, tensor in batch.inputs.items()}, targets)
    return Batch(tuple(tensor.to(device) for tensor in batch.inputs), targets)


@contextmanager
def in_eval(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode, for the length of a ``with`` block; every module's own mode comes back afterwards.

    Only the ``training`` flags are set: ``train()`` and ``eval()`` of a module, which may do more, are not called.
    """
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield model
    finally:
        for module in training:
            module.training = True


def run_float(model: nn.Module, batch: Batch, where: str) -> Any:
    """Run the float model on a batch, in evaluation mode; a failure becomes one clear error.

    Raises:
        UnsupportedModel: the model does not accept the batch; the message gives the shapes.
    """
    try:
        with in_eval(model), without_attention_fast_path():
            return on_device(batch, model)(model)
    except BitfrontError:
        raise
    except Exception as cause:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in batch.tensors.items())
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise UnsupportedModel(f"the model does not accept the {where} data ({shapes}): {reason}") from cause
