"""A float model as a ``torch.export`` program, without traces of the machine that wrote it."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from ..evaluators import in_eval
from ..task import Batch


def save_program(model: nn.Module, example: Batch, path: Path) -> str:
    """Write a ``.pt2`` archive; the batch dimension stays free where the model allows it.

    Args:
        model: the float model.
        example: inputs to trace it with.
        path: the file.

    Returns:
        Empty, or why ``torch.export`` refuses the model (first line); then nothing is written.
    """
    free = {name: {0: torch.export.Dim.AUTO} if tensor.ndim else None for name, tensor in example.tensors.items()}
    named = isinstance(example.inputs, dict)
    try:
        with in_eval(model), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                model,
                () if isinstance(example.inputs, dict) else example.inputs,
                example.inputs if isinstance(example.inputs, dict) else None,
                dynamic_shapes=free if named else tuple(free.values()),
            )
    except Exception as cause:  # noqa: BLE001  torch.export raises anything; the caller reports the first line
        lines = [line for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
        return f"torch.export refuses {type(model).__name__}: {lines[0].strip()[:200]}"
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    torch.export.save(program, path)
    return ""
