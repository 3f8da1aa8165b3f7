r"""Outputs of an artifact and of the fake-quantized model, and the distance between them:

.. math:: \max_o \frac{\lVert y_o^{\mathrm{artifact}} - y_o^{\mathrm{fq}} \rVert_2}{\lVert y_o^{\mathrm{fq}} \rVert_2}

over the outputs o.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..task import Batch
from .protocol import ExportRequest


def relative_error(given: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of ``wanted``; for integers the fraction of entries that differ.

    Returns:
        A number >= 0; infinity where shapes differ or ``given`` is not finite.
    """
    if given.shape != wanted.shape:
        return float("inf")
    if not wanted.is_floating_point():
        return float((given != wanted).double().mean()) if wanted.numel() else 0.0
    difference = torch.linalg.vector_norm(given.double() - wanted.double())
    norm = torch.linalg.vector_norm(wanted.double())
    error = float(difference / norm) if norm > 0 else float(difference)
    return error if error == error else float("inf")


def relative_error_over(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """``relative_error`` of one output over several batches, all their values as one vector.

    Args:
        pairs: what was given and what was wanted, batch by batch.
    """
    if any(given.shape != wanted.shape for given, wanted in pairs):
        return float("inf")
    given, wanted = (torch.cat([pair[side].reshape(-1) for pair in pairs]) for side in (0, 1))
    return relative_error(given, wanted)


def reference(request: ExportRequest) -> list[Tensor]:
    """The tensors that the fake-quantized model returns for the example, in order."""
    training = [module for module in request.model.modules() if module.training]
    with request.quantized.applied(request.configuration) as model, torch.no_grad():
        try:
            found = outputs_of(request.example(model.eval()))
        finally:
            for module in training:
                module.training = True
    return [tensor.detach().cpu() for tensor in found]


def doubled(example: Batch) -> Batch:
    """The same samples twice in one batch. Tensors whose first dimension is not the batch stay as they are."""

    def twice(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor]) if tensor.ndim and tensor.shape[0] == len(example) else tensor

    if isinstance(example.inputs, dict):
        return Batch({name: twice(tensor) for name, tensor in example.inputs.items()})
    return Batch(tuple(twice(tensor) for tensor in example.inputs))


def outputs_of(output: Any) -> list[Tensor]:
    """The tensors of an output in the order in which ``torch.export`` flattens it."""
    from torch.utils import _pytree

    return [leaf for leaf in _pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
