r"""The sandwich rule with in-place distillation: gradients of one training step.

Each step runs the largest open sub-network on the labels, and the smallest and some random ones on the largest one's
outputs $p$ (Yu and Huang, arXiv:1903.05134; Yu et al., arXiv:2003.11142):

$$L = H(y, p) + \sum_{s \neq \text{largest}} H(\operatorname{stop}(p), p_s), \qquad H(a, b) = -\sum_c a_c \log b_c.$$
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from ....architecture import ArchitectureSpace, Choices
from .network import ElasticNet
from .statistics import resized


def sandwich(space: ArchitectureSpace, samples: int, draw: np.random.Generator) -> list[Choices]:
    """The largest, the smallest and ``samples`` random architectures; without repeats, the largest first."""
    drawn = [space.largest(), space.smallest(), *(space.sample(draw) for _ in range(samples))]
    return list(dict.fromkeys(drawn))


def sandwich_backward(
    net: ElasticNet, architectures: list[Choices], images: torch.Tensor, targets: torch.Tensor
) -> float:
    """Add the gradients of one step to the parameters, one sub-network at a time.

    Args:
        net: in training mode; its active sub-network changes.
        architectures: the teacher first.
        images: [B, C, H, W] of any resolution.
        targets: classes [B].

    Returns:
        The loss of the teacher on the labels.
    """
    teacher, *students = architectures
    logits = _run(net, teacher, images)
    loss = functional.cross_entropy(logits, targets)
    torch.autograd.backward(loss)
    soft = logits.detach().softmax(-1)
    for student in students:
        torch.autograd.backward(functional.cross_entropy(_run(net, student, images), soft))
    return float(loss.detach())


def _run(net: ElasticNet, choices: Choices, images: torch.Tensor) -> torch.Tensor:
    outputs: torch.Tensor = net.activate(choices)(resized(images, int(choices["resolution"])))
    return outputs
