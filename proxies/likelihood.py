r"""The task's objective as a negative log-likelihood: random gradients at the outputs whose square is its curvature.

For one sample with outputs y the curvature of the objective is :math:`B = \nabla_y^2 \ell`, and every source of
gradients below gives s with :math:`E[s s^\top] = B`, so that :math:`E[(J^\top s)(J^\top s)^\top] = J^\top B J`: the
Gauss-Newton matrix, which for these likelihoods is the Fisher matrix (Martens 2020, arXiv:1412.1193, section 9.2).

=============  ================================================  ==================================================
likelihood     where                                             B over the T positions of a sample
=============  ================================================  ==================================================
``softmax``    ``kl``; cross-entropy with integer targets        :math:`\frac1T (\operatorname{diag}(p) - p p^\top)`
``gaussian``   ``relative_error``; outputs without classes       :math:`I / \lVert y \rVert^2`
``cosine``     ``cosine``                                        :math:`(I - u u^\top) / \lVert y \rVert^2`, u = y/|y|
=============  ================================================  ==================================================

=============  ====================================================================================================
source         s
=============  ====================================================================================================
``data``       the gradient of the task's loss at the sample's label, times the root of T: the empirical Fisher.
               :math:`E[s s^\top] = B` only as far as the labels follow the model's own distribution, independently
               from position to position (Kunstner et al. 2019, arXiv:1905.12558)
``model``      likewise with labels drawn from the model: (p - onehot) / root of T; Gaussian noise for the other two
``signs``      a root of B times random signs: :math:`(\sqrt p\, v - p (\sqrt p \cdot v)) / \sqrt T` for softmax
=============  ====================================================================================================

Where a model is sure of itself, ``model`` nearly always draws the label whose gradient is nearly zero, and all the
curvature comes from rare draws: estimates are far too small until one occurs. ``signs`` has the same expectation
without that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InvalidInput, NonFiniteOutput
from ..evaluators.metrics import task_loss
from ..task import SELF_REFERENCED
from .hutchinson import random_signs

if TYPE_CHECKING:
    from ..task import Task

Source = Literal["data", "model", "signs"]
Labels = Literal["auto", "data", "model"]
Likelihood = Literal["softmax", "gaussian", "cosine"]
IGNORED = -100  # the target that torch's cross-entropy leaves out


@dataclass(frozen=True)
class Score:
    """A gradient at the outputs of one sample.

    Attributes:
        seed: its direction, of the type and shape of the output, with entries of order one (half precision).
        scale: what ``seed`` is to be multiplied with.
        positions: T; ``scale`` gives the gradient of the sample's objective, ``scale * positions ** 0.5`` gives s.
    """

    seed: Tensor
    scale: float
    positions: int

    @property
    def root(self) -> float:
        """What ``seed`` is to be multiplied with to give s."""
        return self.scale * math.sqrt(self.positions)


def has_labels(task: Task) -> bool:
    """Whether all calibration data is labelled."""
    return all(batch.targets is not None for batch in task.calibration)


def objective_has_labels(task: Task) -> bool:
    """Whether the task's objective is a loss against labels; otherwise its gradient vanishes at the float weights."""
    return has_labels(task) and task.quality not in SELF_REFERENCED


def labels_of(task: Task, labels: Labels, proxy: str) -> Source:
    """Where a Fisher proxy takes its gradients from.

    Args:
        task: the task.
        labels: ``"data"``; ``"model"``: the expectation over the model's labels, which ``signs`` estimates best; or
            ``"auto"``: the data where the objective is a loss against its labels, else the model.
        proxy: name, for messages.

    Raises:
        InvalidInput: ``"data"`` where the calibration data has no labels, or another word.
    """
    if labels not in ("auto", "data", "model"):
        raise InvalidInput(f"{proxy}: labels must be 'auto', 'data' or 'model', got {labels!r}")
    if labels == "data" and not has_labels(task):
        raise InvalidInput(f"{proxy}: labels='data' needs calibration batches (inputs, targets); choose 'model'")
    return "data" if labels == "data" or (labels == "auto" and objective_has_labels(task)) else "signs"


def likelihood(task: Task, output: Tensor) -> Likelihood:
    """Which likelihood the objective belongs to (a loss of the user's own is compared by ``check_softmax``)."""
    if task.quality == "cosine":
        return "cosine"
    if task.quality == "relative_error" or output.ndim < 2 or output.shape[-1] < 2:
        return "gaussian"
    return "softmax"


def check_softmax(task: Task, output: Tensor, targets: Tensor | None, proxy: str) -> None:
    """Refuse a loss of the user's own that is not the cross-entropy of the outputs: its curvature is not known.

    Raises:
        InvalidInput: the gradients of the two at the outputs differ.
    """
    if task.loss is None or targets is None or not objective_has_labels(task):
        return
    if likelihood(task, output) != "softmax":
        raise InvalidInput(
            f"{proxy} takes the outputs as logits, but they have shape {tuple(output.shape)}; choose empirical_fisher"
        )
    mine = _data(task, output, targets)
    advice = f"{proxy} takes the outputs as logits; choose empirical_fisher or hessian_trace"
    if not _classes(output, targets):
        raise InvalidInput(
            f"the task's loss compares outputs {tuple(output.shape)} with targets {targets.dtype} "
            f"{tuple(targets.shape)}, which are not class indices: {advice}"
        )
    wanted = _cross_entropy_gradient(output, targets)
    given = mine.seed.float() * mine.scale
    if float((given - wanted).norm()) > 1e-2 * float(wanted.norm()) + 1e-12:
        raise InvalidInput(f"the task's loss is not the mean cross-entropy of the model's outputs: {advice}")


def score(task: Task, output: Tensor, targets: Tensor | None, source: Source, generator: torch.Generator) -> Score:
    """A gradient at the outputs of one sample; see the module docstring.

    Args:
        task: says which objective.
        output: of the model on one sample [1, ...].
        targets: of that sample; with ``data`` they are required, otherwise they only say which positions count.
        source: where the randomness comes from.
        generator: on the CPU.

    Raises:
        NonFiniteOutput: the outputs are not finite.
    """
    output = output.detach()
    if not bool(torch.isfinite(output).all()):
        raise NonFiniteOutput("the float model gives NaN or infinity on the calibration data")
    if source == "data":
        if targets is None:
            raise InvalidInput("gradients at the data's labels need calibration batches (inputs, targets)")
        return _data(task, output, targets)
    kind = likelihood(task, output)
    if kind == "softmax":
        return _softmax(output, targets if objective_has_labels(task) else None, source, generator)
    flat = output.float()
    noise = random_signs(tuple(flat.shape), generator, flat) if source == "signs" else _normal(flat, generator)
    norm = float(flat.double().norm().clamp(min=1e-30))
    if kind == "cosine":
        unit = flat / norm
        noise = noise - unit * (unit * noise).sum()
    return Score(noise.to(output.dtype), 1 / norm, 1)


def _data(task: Task, output: Tensor, targets: Tensor) -> Score:
    with torch.enable_grad():
        leaf = output.detach().float().requires_grad_(True)
        (gradient,) = torch.autograd.grad(task_loss(task, leaf, targets), leaf)
    largest = float(gradient.abs().max())
    positions = int((targets != IGNORED).sum()) if _classes(output, targets) else 1
    return Score((gradient / (largest or 1.0)).to(output.dtype), largest, max(positions, 1))


def _softmax(output: Tensor, targets: Tensor | None, source: Source, generator: torch.Generator) -> Score:
    p = functional.softmax(output.float(), -1)
    if source == "signs":
        mixed = p.sqrt() * random_signs(tuple(p.shape), generator, p)
        seed = mixed - p * mixed.sum(-1, keepdim=True)
    else:
        flat = p.reshape(-1, p.shape[-1]).cpu()
        drawn = torch.multinomial(flat, 1, generator=generator).to(p.device)
        seed = p.scatter_add(-1, drawn.reshape(*p.shape[:-1], 1), p.new_full((*p.shape[:-1], 1), -1.0))
    positions = p.numel() // p.shape[-1]
    if targets is not None and _classes(output, targets):
        counted = targets != IGNORED
        seed, positions = seed * counted[..., None], int(counted.sum())
    return Score(seed.to(output.dtype), 1 / max(positions, 1), max(positions, 1))


def _classes(output: Tensor, targets: Tensor) -> bool:
    """Whether the targets are class indices, one for each position."""
    return not targets.is_floating_point() and targets.shape == output.shape[:-1]


def _cross_entropy_gradient(output: Tensor, targets: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = output.detach().float().requires_grad_(True)
        loss = functional.cross_entropy(leaf.flatten(0, -2), targets.flatten().long())
        (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like)
