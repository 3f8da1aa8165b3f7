r"""Quality metrics: one value per sample, lower is better.

==================  ==============  ========================================================================
``quality``         stored metric   value of a sample
==================  ==============  ========================================================================
``kl``              the same        :math:`\sum_c p_c (\log p_c - \log q_c)` (nats), p the float model's
                                    softmax, mean over the positions of the sample
``loss``            the same        the task's loss, or mean cross-entropy (nats)
``accuracy``        ``error``       fraction of positions whose arg-max is not the target
``top5``, ``topK``  ``top5_error``  fraction of positions whose target is not among the K largest outputs
                                    (of equal outputs the lower class comes first)
``perplexity``      the same        as ``loss``; the aggregate is the exponential of the mean over the samples
``relative_error``  the same        :math:`\lVert y - \hat y \rVert_2 / \lVert y \rVert_2`
``cosine``          the same        :math:`1 - \langle y, \hat y \rangle / (\lVert y \rVert_2 \lVert \hat y \rVert_2)`;
                                    0 where both are zero, 1 where only one is
a callable          its name        what it returns
==================  ==============  ========================================================================

y is the float model's output and :math:`\hat y` the candidate's, all values of a sample as one vector. Positions whose
target is -100 (padding, by the convention of PyTorch and Hugging Face) do not count. Everything is computed in float64
from float32 outputs: in float32 the divergence of an 8-bit model (1e-5 nats) would drown in the rounding of the
log-softmax (1e-6). The work goes in pieces that stay in the cache: 3 to 5 times faster than whole tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InvalidInput, NonFiniteOutput
from ..task import SELF_REFERENCED, top_k

_IGNORED = -100  # the target that torch's cross-entropy leaves out
_CHUNK = 1 << 15  # logits at a time on a CPU: with their float64 temporaries they stay in the second-level cache
_CHUNK_DEVICE = 1 << 24  # elsewhere: few launches, bounded memory

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
    if task.quality == "cosine":
        return cosine_distance(output, reference)
    if targets is None:
        raise InvalidInput(f"quality {task.quality!r} needs targets; give batches as (inputs, targets)")
    if task.quality == "accuracy":
        _check_classes(output, targets, "quality 'accuracy'", "choose another quality, or give a callable")
        return _mean_over_targets((output.argmax(-1) != targets).double(), targets)
    if (largest := top_k(task.quality)) is not None:
        return top_k_error(output, targets, largest)
    return losses(task, output, targets)


def divergence(output: Tensor, reference: Tensor) -> Tensor:
    """KL divergence from the float model's softmax to the candidate's, per sample (nats), float64 [samples]."""
    if output.ndim < 2 or output.shape[-1] < 2:
        raise InvalidInput(f"quality 'kl' needs logits [..., classes], got shape {tuple(output.shape)}")
    classes = output.shape[-1]
    flat, wanted = output.reshape(-1, classes), reference.reshape(-1, classes)
    pointwise = torch.empty(len(flat), dtype=torch.float64, device=output.device)
    for rows in _chunks(flat):
        p = functional.log_softmax(wanted[rows].double(), -1)
        q = functional.log_softmax(flat[rows].double(), -1)
        pointwise[rows] = torch.linalg.vecdot(q.neg_().add_(p), p.exp())
    return pointwise.reshape(len(output), -1).mean(1).clamp(min=0)


def cosine_distance(output: Tensor, reference: Tensor) -> Tensor:
    """1 - cosine similarity of the outputs of every sample, float64 [samples]."""
    wanted, given = (functional.normalize(each.reshape(len(output), -1).double()) for each in (reference, output))
    both_zero = ~(wanted.any(1) | given.any(1))
    distance: Tensor = 1 - torch.linalg.vecdot(wanted, given)
    return distance.clamp(0, 2).masked_fill(both_zero, 0)


def top_k_error(output: Tensor, targets: Tensor, k: int) -> Tensor:
    """Fraction of positions whose target is not among the k largest outputs, float64 [samples].

    Raises:
        InvalidInput: there are no more than k classes, so that no position could be wrong.
    """
    _check_classes(output, targets, f"quality 'top{k}'", "choose another quality, or give a callable")
    if k >= output.shape[-1]:
        raise InvalidInput(
            f"quality 'top{k}' needs more than {k} classes, the model has {output.shape[-1]}; "
            f"choose 'top{max(1, output.shape[-1] // 2)}' or 'accuracy'"
        )
    index = targets.long().clamp(min=0)[..., None]
    mine = output.gather(-1, index)
    before = torch.arange(output.shape[-1], device=output.device) < index
    rank = ((output > mine) | ((output == mine) & before)).sum(-1)
    return _mean_over_targets((rank >= k).double(), targets)


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
    flat, index = output.flatten(0, -2), targets.flatten().long().clamp(min=0)[:, None]
    surprise = torch.empty(len(flat), dtype=torch.float64, device=output.device)
    for rows in _chunks(flat):
        logits = flat[rows].double()
        surprise[rows] = logits.logsumexp(-1) - logits.gather(1, index[rows])[:, 0]
    return _mean_over_targets(surprise, targets)


def _chunks(flat: Tensor) -> Iterator[slice]:
    """Slices of the rows of ``flat`` [positions, classes]."""
    size = _CHUNK if flat.device.type == "cpu" else _CHUNK_DEVICE
    step = max(1, size // flat.shape[1])
    return (slice(start, start + step) for start in range(0, len(flat), step))


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


def task_loss(task: Task, output: Tensor, targets: Tensor) -> Tensor:
    """The task's loss of a batch, or mean cross-entropy: differentiable, []."""
    if task.loss is not None:
        return task.loss(output, targets)
    _check_classes(output, targets, "cross-entropy", "give the task a loss of its own")
    return functional.cross_entropy(output.flatten(0, -2), targets.flatten().long())


def objective(task: Task, output: Tensor, reference: Tensor, targets: Tensor | None) -> Tensor:
    """The scalar that gradient-based proxies differentiate: mean over the samples.

    The task's loss where it has one; else cross-entropy where there are integer targets; else, for
    ``relative_error``, half the mean squared distance to the float outputs relative to their mean square; for
    ``cosine`` the mean cosine distance to them; else the KL divergence to them. The last three have zero gradient and
    a positive semi-definite Hessian at the float weights.
    """
    if targets is not None and task.quality not in SELF_REFERENCED:
        return task_loss(task, output, targets)
    if task.quality == "cosine":
        given, wanted = (each.reshape(len(output), -1) for each in (output, reference))
        return 1 - functional.cosine_similarity(given, wanted).mean()
    if task.quality == "relative_error" or output.ndim < 2 or output.shape[-1] < 2:
        return 0.5 * (output - reference).square().mean() / reference.square().mean().clamp(min=1e-30)
    wanted = functional.log_softmax(reference, -1)
    given = functional.log_softmax(output, -1)
    return (wanted.exp() * (wanted - given)).sum(-1).mean()
