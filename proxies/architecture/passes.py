"""Running a network as it was initialized: batch statistics, gradients on, and everything as before afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...errors import BitfrontError, InvalidInput, NonFiniteOutput, UnsupportedModel
from ...evaluators import in_eval, output_tensor
from ...evaluators.float_run import on_device
from ...tracing import without_attention_fast_path

if TYPE_CHECKING:
    from ...task import Batch
    from .proxy import Loss


@contextmanager
def as_initialized(module: nn.Module) -> Iterator[nn.Module]:
    """The network as the first step of its training sees it, without dropout.

    Batch normalizations normalize by the batch (before training they have no statistics of their own) and do not
    remember it; every parameter has gradients. Modes and flags are as before afterwards.
    """
    norms = [each for each in module.modules() if isinstance(each, _BatchNorm)]
    with ExitStack() as stack:
        stack.enter_context(in_eval(module))
        for norm in norms:
            stack.callback(setattr, norm, "track_running_stats", norm.track_running_stats)
            stack.callback(setattr, norm, "training", False)  # in_eval then sets those that were training
            norm.training, norm.track_running_stats = True, False
        for parameter in module.parameters():
            stack.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(parameter.is_floating_point())
        stack.enter_context(without_attention_fast_path())
        stack.enter_context(torch.enable_grad())
        yield module


def outputs_of(module: nn.Module, batch: Batch) -> Tensor:
    """The output of the network on a batch, in float32 or better.

    Raises:
        UnsupportedModel: the network does not accept the batch.
        NonFiniteOutput: an output is not finite.
    """
    try:
        output = output_tensor(on_device(batch, module)(module))
    except BitfrontError:
        raise
    except Exception as cause:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in batch.tensors.items())
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise UnsupportedModel(f"the network does not accept the batch ({shapes}): {reason}") from cause
    if not bool(torch.isfinite(output).all()):
        raise NonFiniteOutput("the untrained network gives outputs that are not finite; check its initialization")
    return output if output.dtype == torch.float64 else output.float()


def loss_of(module: nn.Module, batch: Batch, loss: Loss | None) -> Tensor:
    """The loss of the network on a batch; ``None`` is the cross-entropy.

    Raises:
        InvalidInput: the batch has no targets.
        UnsupportedModel: the network does not accept the batch.
        NonFiniteOutput: an output is not finite.
    """
    if batch.targets is None:
        raise InvalidInput("the batch has no targets; give (inputs, targets), or choose a proxy that needs none")
    output = outputs_of(module, batch)
    return (loss or nn.functional.cross_entropy)(output, batch.targets.to(output.device))


def weights_of(module: nn.Module) -> list[Tensor]:
    """Every weight with two or more dimensions, those of embeddings apart: convolutions and matrix products."""
    embedded = {id(each.weight) for each in module.modules() if isinstance(each, (nn.Embedding, nn.EmbeddingBag))}
    return [each for each in module.parameters() if each.ndim >= 2 and id(each) not in embedded]


def derivatives(value: Tensor, wanted: Sequence[Tensor], again: bool = False, keep: bool = False) -> list[Tensor]:
    """Derivatives of a scalar; zeros where it does not depend on a tensor.

    Args:
        value: what is differentiated.
        wanted: with respect to these.
        again: whether the derivatives are to be differentiated themselves.
        keep: whether the graph is needed for another call.

    Raises:
        UnsupportedModel: an operation of the network has no (second) derivative.
    """
    if not value.requires_grad or not wanted:
        return [torch.zeros_like(each) for each in wanted]
    try:
        found = torch.autograd.grad(
            value, list(wanted), create_graph=again, retain_graph=again or keep, allow_unused=True
        )
    except RuntimeError as cause:
        raise UnsupportedModel(f"the network cannot be differentiated: {str(cause).strip().splitlines()[0]}") from cause
    return [
        torch.zeros_like(each) if gradient is None else gradient for each, gradient in zip(wanted, found, strict=True)
    ]


def weight_gradients(module: nn.Module, batch: Batch, loss: Loss | None) -> list[tuple[Tensor, Tensor]]:
    """Every weight (``weights_of``) with the gradient of the loss of the whole batch."""
    with as_initialized(module):
        weights = weights_of(module)
        gradients = derivatives(loss_of(module, batch, loss), weights)
    return [(weight.detach(), gradient) for weight, gradient in zip(weights, gradients, strict=True)]


def finite(score: float, proxy: str) -> float:
    """The score itself, minus infinity included.

    Raises:
        NonFiniteOutput: it is NaN or plus infinity.
    """
    if score != score or score == float("inf"):
        raise NonFiniteOutput(f"proxy {proxy} overflows on this network; choose another proxy or initialization")
    return score
