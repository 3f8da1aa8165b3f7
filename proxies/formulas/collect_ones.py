r"""Gradients of the network for an input of ones: what zero-cost formulas look at.

``virtual_gradient`` is the gradient of the summed outputs at the float weights (Dong et al. 2023, EMQ,
arXiv:2307.10554, "virtual gradient"). Indices cannot be ones; where a model takes some, what its embeddings return is
replaced with ones instead (their own gradient is then zero), and other inputs such as masks are those of the first
calibration sample. ``synflow`` is :math:`\log(1 + \partial R / \partial |w|)` of the synaptic flow
(``proxies/synflow``), whose plain value exceeds float32 in deep networks.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import UnsupportedModel
from ...task import Batch
from ..recording import Recorder
from ..synflow import flow
from .collect_context import Context


def collect_virtual_gradient(context: Context, wanted: frozenset[str]) -> dict[str, np.ndarray]:
    """``virtual_gradient``; see the module docstring.

    Raises:
        UnsupportedModel: the model takes only integers and has no embedding that looks them up.
    """
    task = context.task
    batch = task.calibration[0].piece(0, 1)
    embeddings = [module for module in task.model.modules() if isinstance(module, nn.Embedding)]
    if not embeddings and not any(each.is_floating_point() for each in batch.tensors.values()):
        raise UnsupportedModel(
            "the model takes only integers and has no nn.Embedding: there is nothing that ones could be put in"
        )
    recorder = Recorder(task.model, context.space, ())
    with ExitStack() as stack:
        for module in embeddings:
            stack.callback(module.register_forward_hook(_ones).remove)
        with recorder.run(_with_ones(batch)) as run:
            gradients = run.gradients(run.weights, torch.ones_like(run.output))
    context.forward += 1
    context.backward += 1
    context.step()
    return {"virtual_gradient": context.drawn(gradients)}


def collect_synflow(context: Context, wanted: frozenset[str]) -> dict[str, np.ndarray]:
    """``synflow``; see the module docstring."""
    flows = flow(context.task.model, context.task.calibration[0], [site.parameter for site in context.space.sites])
    context.forward += 1
    context.backward += 1
    context.step()
    return {"synflow": context.drawn([each.sign() * each.abs().log1p() for each in flows])}


def _with_ones(batch: Batch) -> Batch:
    """The batch with its floating-point inputs replaced by ones."""
    tensors = {
        name: torch.ones_like(each) if each.is_floating_point() else each for name, each in batch.tensors.items()
    }
    return Batch(tensors if isinstance(batch.inputs, dict) else tuple(tensors.values()), batch.targets)


def _ones(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return torch.ones_like(output)
