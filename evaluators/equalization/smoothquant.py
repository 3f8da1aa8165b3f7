r"""SmoothQuant (Xiao et al. 2023, arXiv:2211.10438): difficult inputs become easier, at the expense of the weights.

.. math::
    Y = (X \operatorname{diag}(s)^{-1}) (\operatorname{diag}(s) W), \qquad
    s_j = \frac{\max |X_j|^{\alpha}}{\max |W_j|^{1 - \alpha}} \quad \text{(eq. 3, 4)}

for input feature j of a linear layer. Linear layers that read the very same tensor share s. Where that tensor comes
from a norm (LayerNorm, RMSNorm, or one that ends in a product with its weight) and only they read it, the norm's own
weight and bias are divided by s, which costs nothing; everywhere else the layer divides its input, in a hook that runs
before anything is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ...space import SearchSpace, Site
from ...task import Batch
from ..float_run import first_tensor, run_float
from .channels import grouped, scale_channels
from .dataflow import Dataflow, Operand, record

ALPHA = 0.5
_SMALLEST = 1e-5
_NORMS = ("layer_norm", "rms_norm")
_PRODUCTS = ("mul", "__mul__", "__rmul__", "multiply")


def smooth(model: nn.Module, space: SearchSpace, batches: Sequence[Batch], alpha: float = ALPHA) -> dict[str, Tensor]:
    """Smooth the inputs of all linear layers of a model in place.

    Layers whose weight other modules share (a head tied to an embedding) are left alone.

    Args:
        model: in evaluation mode; a layer that divides its input itself has the buffer ``smoothing``.
        space: its sites.
        batches: calibration data.
        alpha: how much of the difficulty goes over to the weights, between 0 and 1.

    Returns:
        Site name -> s, float32 [input features].
    """
    dataflow = record(model, batches[0])
    sites = [site for site in space.sites if _is_smoothable(site, dataflow)]
    largest = _largest_inputs(model, sites, batches)
    found = {}
    for group in _groups(sites, dataflow):
        modules = [model.get_submodule(site.modules[0]) for site in group]
        inputs = torch.stack([largest[site.name] for site in group]).amax(0)
        weights = torch.stack(
            [
                grouped(module.get_parameter("weight").detach(), site.kind).float().abs().amax((0, 1, 3))
                for module, site in zip(modules, group, strict=True)
            ]
        ).amax(0)
        scale = smoothing_scales(inputs, weights, alpha)
        factors = _foldable_factors(model, group, dataflow)
        with torch.no_grad():
            for parameter in factors:
                parameter.copy_(parameter.double() / scale)
        for site, module in zip(group, modules, strict=True):
            scale_channels(module, site.kind, inputs=scale)
            if not factors:
                _divide_input(module, scale)
            found[site.name] = scale
    return found


def smoothing_scales(inputs: Tensor, weights: Tensor, alpha: float) -> Tensor:
    """The scale s of eq. 4 from max |X_j| and max |W_j|, both [features]; 1 for features that are never used."""
    scale = inputs.pow(alpha) / weights.clamp(min=_SMALLEST).pow(1 - alpha)
    return torch.where((inputs > 0) & (weights > 0), scale.clamp(min=_SMALLEST), torch.ones_like(scale))


def smooth_input(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A forward pre-hook (with keywords): the input of a layer, divided by ``module.smoothing``."""
    value = first_tensor(args, kwargs)
    assert value is not None
    divided = value / module.get_buffer("smoothing")
    return (
        tuple(divided if each is value else each for each in args),
        {name: divided if each is value else each for name, each in kwargs.items()},
    )


def _divide_input(module: nn.Module, scale: Tensor) -> None:
    before = getattr(module, "smoothing", None)
    scale = scale.to(module.get_parameter("weight").dtype)
    module.register_buffer("smoothing", scale if before is None else before * scale)
    if before is None:
        module.register_forward_pre_hook(smooth_input, with_kwargs=True)


def _is_smoothable(site: Site, dataflow: Dataflow) -> bool:
    if site.kind not in ("linear", "hf_conv1d") or len(site.modules) != 1:
        return False
    return all(step.module == site.modules[0] for step in dataflow.uses[site.parameter])


def _groups(sites: Sequence[Site], dataflow: Dataflow) -> list[list[Site]]:
    """Sites that read the very same tensor; what is called more than once stands alone."""
    groups: dict[object, list[Site]] = {}
    for site in sites:
        values = dataflow.entering[site.modules[0]]
        groups.setdefault(values[0] if len(values) == 1 else site.name, []).append(site)
    return list(groups.values())


def _foldable_factors(model: nn.Module, group: list[Site], dataflow: Dataflow) -> list[nn.Parameter]:
    """The parameters that the tensor which enters a group is proportional to, if nothing else reads that tensor.

    Weight and bias of a LayerNorm or RMSNorm; or the one vector that it is a product with, as most written-out norms
    end. Empty if there are none, or if anything else reads them.
    """
    values = dataflow.entering[group[0].modules[0]]
    producer = dataflow.producer.get(values[0])
    if len(values) != 1 or producer is None or values[0] in dataflow.returned:
        return []
    modules = {site.modules[0] for site in group}
    if any(step.module not in modules for step in dataflow.readers[values[0]]):
        return []
    names = [operand.parameter for operand in producer.operands if operand.parameter in dict(model.named_parameters())]
    if producer.function in _NORMS:
        weighed = isinstance(producer.argument(2, "weight"), Operand) and len(names) == len(producer.operands) - 1
    else:
        weighed = producer.function in _PRODUCTS and len(names) == 1 and len(producer.operands) == 2
    parameters = [model.get_parameter(name) for name in names]
    plain = all(tuple(parameter.shape) == producer.outputs[0].shape[-1:] for parameter in parameters)
    once = all(len(dataflow.uses[name]) == 1 for name in names)
    return parameters if weighed and plain and once else []


def _largest_inputs(model: nn.Module, sites: Sequence[Site], batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Site name -> max |X_j| over the data, float32 [features]."""
    largest: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for site in sites:
            module = model.get_submodule(site.modules[0])
            handle = module.register_forward_pre_hook(_watch(site.name, largest), with_kwargs=True)
            stack.callback(handle.remove)
        stack.enter_context(torch.no_grad())
        for batch in batches:
            run_float(model, batch, "calibration")
    return largest


def _watch(name: str, largest: dict[str, Tensor]) -> Callable[..., None]:
    def watch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = first_tensor(args, kwargs)
        assert value is not None
        found = value.detach().float().reshape(-1, value.shape[-1]).abs().amax(0)
        largest[name] = torch.maximum(largest[name], found) if name in largest else found

    return watch
