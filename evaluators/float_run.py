"""Running the float model on a batch."""

from __future__ import annotations

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


def run_float(model: nn.Module, batch: Batch, where: str) -> Any:
    """Run the float model on a batch; a failure becomes one clear error.

    Raises:
        UnsupportedModel: the model does not accept the batch; the message gives the shapes.
    """
    try:
        with without_attention_fast_path():
            return batch(model)
    except BitfrontError:
        raise
    except Exception as cause:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in batch.tensors.items())
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise UnsupportedModel(f"the model does not accept the {where} data ({shapes}): {reason}") from cause
