r"""Quality metrics: one value per sample, lower is better.

========================  ==============================================================================
``kl``                    :math:`\sum_c p_c (\log p_c - \log q_c)` (nats), p the float model's softmax,
                          mean over the positions of a sample
``loss``                  the task's loss, or mean cross-entropy, of each sample
``error``                 1 - accuracy: fraction of positions whose arg-max is not the target
``perplexity``            as ``loss``; the aggregate is the exponential of the mean over the samples
``relative_error``        :math:`\lVert y - \hat y \rVert_2 / \lVert y \rVert_2` per sample
========================  ==============================================================================

Positions whose target is -100 (padding, by the convention of PyTorch and Hugging Face) do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InvalidInput, NonFiniteOutput

_IGNORED = -100  # the target that torch's cross-entropy leaves out

if TYPE_CHECKING:
    from ..task import Task


def output_tensor(output: Any) -> Tensor:
    """The tensor that is judged: the output itself, its ``logits``, or its first tensor.

    Raises:
        InvalidInput: the output holds no floating-point tensor.
    """
    candidates = output if isinstance(output, (tuple, list)) else [output]
    if isinstance(output, Mapping):
        candidates = [output["logits"]] if "logits" in output else list(output.values())
    elif hasattr(output, "logits"):
        candidates = [output.logits]
    for value in candidates:
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim:
            return value
    kind = f"a tensor {output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
    raise InvalidInput(
        f"the model returns {kind}; it must return a floating-point tensor [samples, ...], or a mapping with logits"
    )


def per_sample(task: Task, output: Tensor, reference: Tensor, targets: Tensor | None) -> Tensor:
    """The metric of the task for every sample of a batch.

    Args:
        task: says which metric.
        output: what the candidate returned, first dimension the batch.
        reference: what the float model returned.
        targets: labels, where the metric needs them.

    Returns:
        float64 tensor [samples].

    Raises:
        NonFiniteOutput: the output or the metric holds NaN or infinity.
        InvalidInput: shapes that do not fit the metric.
    """
    if not bool(torch.isfinite(output).all()):
        raise NonFiniteOutput("the quantized model gives NaN or infinity")
    values = _per_sample(task, output.float(), reference.float(), targets)
    if not bool(torch.isfinite(values).all()):
        raise NonFiniteOutput(f"quality {task.metric!r} is NaN or infinite for a sample whose outputs are finite")
    return values


def _per_sample(task: Task, output: Tensor, reference: Tensor, targets: Tensor | None) -> Tensor:
    if callable(task.quality):
        values: Tensor = torch.as_tensor(task.quality(output, targets))
        if values.shape != output.shape[:1]:
            raise InvalidInput(
                f"quality function returned shape {tuple(values.shape)}; it must return one value per sample "
                f"{tuple(output.shape[:1])}"
            )
        return values.double()
    if task.quality == "kl":
        return divergence(output, reference)
    if task.quality == "relative_error":
        wanted, given = (tensor.reshape(len(output), -1).double() for tensor in (reference, output))
        relative: Tensor = (given - wanted).norm(dim=1) / wanted.norm(dim=1).clamp(min=1e-30)
        return relative
    if targets is None:
        raise InvalidInput(f"quality {task.quality!r} needs targets; give batches as (inputs, targets)")
    if task.quality == "accuracy":
        _check_classes(output, targets, "quality 'accuracy'", "choose another quality, or give a callable")
        return _mean_over_targets((output.argmax(-1) != targets).double(), targets)
    return losses(task, output, targets)


def divergence(output: Tensor, reference: Tensor) -> Tensor:
    """KL divergence from the float model's softmax to the candidate's, per sample (nats), float64 [samples]."""
    if output.ndim < 2 or output.shape[-1] < 2:
        raise InvalidInput(f"quality 'kl' needs logits [..., classes], got shape {tuple(output.shape)}")
    wanted, given = functional.log_softmax(reference.double(), -1), functional.log_softmax(output.double(), -1)
    pointwise = (wanted.exp() * (wanted - given)).sum(-1)
    return pointwise.reshape(len(output), -1).mean(1).clamp(min=0)


def losses(task: Task, output: Tensor, targets: Tensor) -> Tensor:
    """The loss of every sample: the task's own loss sample by sample, or cross-entropy. float64 [samples]."""
    if task.loss is not None:
        each = [
            torch.as_tensor(task.loss(output[index : index + 1], targets[index : index + 1])).detach()
            for index in range(len(output))
        ]
        if any(value.numel() != 1 for value in each):
            raise InvalidInput(f"the task's loss returned shape {tuple(each[0].shape)}; it must return one number")
        return torch.stack([value.double().reshape(()) for value in each])
    _check_classes(output, targets, "cross-entropy", "give the task a loss of its own")
    flat = functional.cross_entropy(output.flatten(0, -2).double(), targets.flatten().long(), reduction="none")
    return _mean_over_targets(flat, targets)


def _check_classes(output: Tensor, targets: Tensor, purpose: str, advice: str) -> None:
    """Raise unless logits [..., classes] and integer targets [...] fit each other."""
    if targets.is_floating_point() or targets.shape != output.shape[:-1] or output.shape[-1] < 2:
        raise InvalidInput(
            f"{purpose} needs outputs [..., classes] and integer targets [...], got outputs {tuple(output.shape)} and "
            f"targets {str(targets.dtype).removeprefix('torch.')} {tuple(targets.shape)}; {advice}"
        )
    counted = targets[targets != _IGNORED]
    if counted.numel() and not 0 <= int(counted.min()) <= int(counted.max()) < output.shape[-1]:
        raise InvalidInput(
            f"{purpose}: targets lie in [{int(counted.min())}, {int(counted.max())}], the model has "
            f"{output.shape[-1]} classes; number the classes from 0"
        )


def _mean_over_targets(values: Tensor, targets: Tensor) -> Tensor:
    """Mean over the positions of each sample whose target counts; float64 [samples]."""
    counts = (targets != _IGNORED).reshape(len(targets), -1)
    if not bool(counts.any(1).all()):
        raise InvalidInput(f"a sample has no target to judge it by (all are {_IGNORED}); leave it out")
    return (values.reshape(counts.shape) * counts).sum(1) / counts.sum(1)


def objective(task: Task, output: Tensor, reference: Tensor, targets: Tensor | None) -> Tensor:
    """The scalar that gradient-based proxies differentiate: mean over the samples.

    The task's loss where it has one; else cross-entropy where there are integer targets; else, for
    ``relative_error``, half the mean squared distance to the float outputs relative to their mean square; else the
    KL divergence to the float model's own outputs. The last two have zero gradient and a positive semi-definite
    Hessian at the float weights.
    """
    if targets is not None and task.quality != "kl" and task.quality != "relative_error":
        if task.loss is not None:
            return task.loss(output, targets)
        _check_classes(output, targets, "cross-entropy", "give the task a loss of its own")
        return functional.cross_entropy(output.flatten(0, -2), targets.flatten().long())
    if task.quality == "relative_error" or output.ndim < 2 or output.shape[-1] < 2:
        return 0.5 * (output - reference).square().mean() / reference.square().mean().clamp(min=1e-30)
    wanted = functional.log_softmax(reference, -1)
    given = functional.log_softmax(output, -1)
    return (wanted.exp() * (wanted - given)).sum(-1).mean()
