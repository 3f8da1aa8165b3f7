r"""The check back: the file that was written computes what the fake-quantized model computes.

Two comparisons. The stored weights, decoded from the file, must equal the fake-quantized ones bit for bit. The outputs
on the example inputs must agree up to

.. math:: \max_o \frac{\lVert y_o^{\mathrm{file}} - y_o^{\mathrm{fq}} \rVert_2}{\lVert y_o^{\mathrm{fq}} \rVert_2}
          \le \mathrm{bound}

over the outputs o. (For integer outputs, such as an arg-max, it is the fraction of entries that differ.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ExportMismatch
from ..formats import Format
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


def reference(request: ExportRequest) -> list[Tensor]:
    """The tensors that the fake-quantized model returns for the example, in order."""
    training = [module for module in request.model.modules() if module.training]
    with request.quantized.applied(request.configuration) as model, torch.no_grad():
        try:
            found = _tensors(request.example(model.eval()))
        finally:
            for module in training:
                module.training = True
    return [tensor.detach().cpu() for tensor in found]


def check_weights(request: ExportRequest, path: Path) -> None:
    """Compare the weights in the file with the fake-quantized ones, bit for bit.

    Raises:
        ExportMismatch: names the first site that differs.
    """
    import onnx_ir as ir

    stored = ir.load(path).graph.initializers
    for site in request.space.sites:
        target = Format.parse(request.configuration.to_dict().get(site.name, "fp32")).weight
        wanted = request.quantized.weight(site, target).float().cpu().numpy()
        names = [name for name in parameter_names(request, site.parameter) if name in stored]
        if not names:
            raise ExportMismatch(f"site {site.name}: its weight {site.parameter} is not in the file")
        tensor = stored[names[0]].const_value
        assert tensor is not None
        given = tensor.numpy().astype(np.float32)
        if target.number == "int":
            scale = stored[f"{names[0]}.scale"].const_value
            assert scale is not None
            along = [-1 if axis == site.channel_axis else 1 for axis in range(given.ndim)]
            given = given * scale.numpy().reshape(along)
        if not np.array_equal(given, wanted):
            worst = float(np.abs(given - wanted).max())
            raise ExportMismatch(
                f"site {site.name}: the weight in the file differs from the fake-quantized one (by up to {worst:.3g})"
            )


def parameter_names(request: ExportRequest, parameter: str) -> list[str]:
    """All names of a parameter in the model: more than one where it is shared."""
    wanted = request.model.get_parameter(parameter)
    return [name for name, tensor in request.model.named_parameters(remove_duplicate=False) if tensor is wanted]


def _tensors(output: Any) -> list[Tensor]:
    """The tensors of an output in the order in which ``torch.export`` flattens it."""
    from torch.utils import _pytree

    return [leaf for leaf in _pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
