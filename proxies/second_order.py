"""Differentiating twice: attention kernels that can be, and errors that say what to do instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from .recording import not_differentiable

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def differentiated_twice() -> Iterator[None]:
    """Inside, attention uses the kernel that can be differentiated twice; the choice is restored afterwards."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def differentiated(
    value: Tensor | Sequence[Tensor],
    wanted: Sequence[Tensor],
    *,
    direction: Tensor | Sequence[Tensor] | None = None,
    again: bool = False,
    keep: bool = False,
) -> list[Tensor | None]:
    """Derivatives of a scalar, or of (direction . value), or of the sum of several such products.

    Args:
        value: what is differentiated, or several.
        wanted: with respect to these.
        direction: of the shape of ``value``, or one for each; ``None`` for a scalar.
        again: whether the derivatives are to be differentiated themselves.
        keep: whether the graph is needed for another call.

    Returns:
        Derivatives; ``None`` where the value does not depend on a tensor.

    Raises:
        UnsupportedModel: an operation of the model has no (second) derivative.
    """
    try:
        found = torch.autograd.grad(
            value,
            list(wanted),
            grad_outputs=direction,
            create_graph=again,
            retain_graph=keep or again,
            allow_unused=True,
        )
    except RuntimeError as cause:
        raise not_differentiable(str(cause)) from cause
    if again and _broken(found):
        raise not_differentiable("an operation of it has a derivative, but no second one")
    return [each.to_dense() if each is not None and each.is_sparse else each for each in found]


def _broken(derivatives: Sequence[Tensor | None]) -> bool:
    """Whether the graph of derivatives holds the mark that ``once_differentiable`` leaves.

    Autograd does not follow it when only derivatives with respect to given tensors are wanted: second derivatives
    would come out without that part, or as none at all, and no error would be raised.
    """
    ahead = [each.grad_fn for each in derivatives if each is not None and each.grad_fn is not None]
    seen = set(ahead)
    while ahead:
        node = ahead.pop()
        if node.name() == "torch::autograd::Error":
            return True
        found = {follower for follower, _ in node.next_functions if follower is not None} - seen
        seen |= found
        ahead.extend(found)
    return False
