r"""Quality metrics: one value per sample, lower is better.

========================  ==============================================================================
``kl``                    :math:`\sum_c p_c (\log p_c - \log q_c)` (nats), p the float model's softmax,
                          mean over the positions of a sample
``loss``                  the task's loss, or cross-entropy, of each sample
``error``                 1 - accuracy: fraction of positions whose arg-max is not the target
``perplexity``            mean cross-entropy of a sample; the aggregate is its exponential
``relative_error``        :math:`\lVert y - \hat y \rVert_2 / \lVert y \rVert_2` per sample
========================  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InvalidInput, NonFiniteOutput

if TYPE_CHECKING:
    from ..task import Task


def output_tensor(output: Any) -> Tensor:
    """The tensor that is judged: the output itself, its ``logits``, or its first tensor.

    Raises:
        InvalidInput: the output holds no floating-point tensor.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = [output["logits"]] if "logits" in output else list(output.values())
    elif hasattr(output, "logits"):
        output = [output.logits]
    if isinstance(output, (tuple, list)):
        for value in output:
            if isinstance(value, Tensor) and value.is_floating_point():
                return value
    raise InvalidInput(f"the model returns {type(output).__name__}; it must return a tensor, or a mapping with logits")


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
        NonFiniteOutput: the output holds NaN or infinity.
        InvalidInput: shapes that do not fit the metric.
    """
    if not bool(torch.isfinite(output).all()):
        raise NonFiniteOutput("the quantized model gives NaN or infinity")
    output, reference = output.float(), reference.float()
    if callable(task.quality):
        values = torch.as_tensor(task.quality(output, targets))
        if values.shape != output.shape[:1]:
            raise InvalidInput(
                f"quality function returned shape {tuple(values.shape)}; it must return one value per sample "
                f"{tuple(output.shape[:1])}"
            )
        return values.double()
    if task.quality == "kl":
        return divergence(output, reference)
    if task.quality == "relative_error":
        norm = reference.flatten(1).norm(dim=1).clamp(min=1e-30)
        return ((output - reference).flatten(1).norm(dim=1) / norm).double()
    if targets is None:
        raise InvalidInput(f"quality {task.quality!r} needs targets; give batches as (inputs, targets)")
    if task.quality == "accuracy":
        return (output.argmax(-1) != targets).double().reshape(len(output), -1).mean(1)
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
        each = [task.loss(output[index : index + 1], targets[index : index + 1]) for index in range(len(output))]
        return torch.stack([value.detach().double() for value in each])
    if targets.is_floating_point() or targets.shape != output.shape[:-1]:
        raise InvalidInput(
            f"cross-entropy needs integer targets of shape {tuple(output.shape[:-1])}, got {targets.dtype} "
            f"{tuple(targets.shape)}; give the task a loss of its own"
        )
    flat = functional.cross_entropy(output.flatten(0, -2).double(), targets.flatten(), reduction="none")
    return flat.reshape(len(output), -1).mean(1)


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
        return functional.cross_entropy(output.flatten(0, -2), targets.flatten())
    if task.quality == "relative_error" or output.shape[-1] < 2:
        return 0.5 * (output - reference).square().mean() / reference.square().mean().clamp(min=1e-30)
    wanted = functional.log_softmax(reference, -1)
    given = functional.log_softmax(output, -1)
    return (wanted.exp() * (wanted - given)).sum(-1).mean()
