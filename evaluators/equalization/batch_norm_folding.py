r"""Batch normalization folded into the layer before it.

With running mean :math:`\mu`, variance :math:`\sigma^2` and affine :math:`\gamma, \beta` of output channel c,

.. math::
    w'_c = \frac{\gamma_c}{\sqrt{\sigma_c^2 + \epsilon}} w_c, \qquad
    b'_c = \beta_c + \frac{\gamma_c}{\sqrt{\sigma_c^2 + \epsilon}} (b_c - \mu_c),

the same affine map of the input as in evaluation mode (Jacob et al. 2018, arXiv:1712.05877, section 3.2).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...space import SearchSpace
from .channels import ensure_bias, output_channels, scale_channels
from .dataflow import Dataflow
from .pairs import Layers


def fold_batch_norms(model: nn.Module, space: SearchSpace, dataflow: Dataflow) -> list[str]:
    """Fold every batch normalization that reads nothing but a site whose output goes nowhere else.

    Args:
        model: changed in place; a folded normalization becomes an ``nn.Identity`` at the same path.
        space: the sites.
        dataflow: of the model.

    Returns:
        The paths of the folded normalizations.
    """
    folded = []
    layers = Layers(space, dataflow)
    for site, step in layers.steps.items():
        module = model.get_submodule(site.modules[0])
        after = dataflow.only_reader(step.outputs[0].value)
        if after is None or after.function != "batch_norm" or layers.axis(site, step.outputs[0]) != 1:
            continue
        norm = model.get_submodule(after.module)
        if not isinstance(norm, _BatchNorm) or len(dataflow.entering[after.module]) != 1 or norm.running_mean is None:
            continue
        assert norm.running_var is not None
        bias = ensure_bias(module, output_channels(module, site))
        with torch.no_grad():
            factor = (norm.running_var.double() + norm.eps).rsqrt()
            if norm.weight is not None:
                factor *= norm.weight
            shift = -factor * norm.running_mean
            if norm.bias is not None:
                shift += norm.bias
            scale_channels(module, site.kind, outputs=factor)
            bias.add_(shift.to(bias.dtype))
        model.set_submodule(after.module, nn.Identity())
        folded.append(after.module)
    return folded
