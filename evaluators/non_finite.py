"""Where NaN or infinity first arises in a quantized model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..task import Batch
from .batch_norm import Statistics, taken_on
from .float_run import first_tensor, on_device
from .metrics import output_tensor
from .quantized_model import QuantizedModel


def first_non_finite(
    quantized: QuantizedModel, configuration: Mapping[str, str], batch: Batch, statistics: Statistics | None = None
) -> str:
    """Run a batch with checks and name the first offending site in execution order.

    Args:
        quantized: the model.
        configuration: what it takes on.
        batch: on which the output was not finite.
        statistics: of batch normalization, taken on with the configuration.

    Returns:
        Such as ``"the output of site layer1.conv (w2)"``: the weight, the rounded input or the output of a site, or
        ``"what enters site …"`` when it arose between two sites. Empty if the output is finite.
    """
    findings: list[str] = []
    with ExitStack() as stack:
        model = stack.enter_context(quantized.applied(configuration))
        stack.enter_context(taken_on(model, statistics or {}))
        stack.enter_context(torch.no_grad())
        for name in dict.fromkeys(module for site in quantized.space.sites for module in site.modules):
            for handle in _watched(quantized, configuration, name, findings):
                stack.callback(handle.remove)
        output = output_tensor(on_device(batch, model)(model))
    if _finite(output):
        return ""
    return findings[0] if findings else "what follows the last site"


def _watched(
    quantized: QuantizedModel, configuration: Mapping[str, str], name: str, findings: list[str]
) -> list[torch.utils.hooks.RemovableHandle]:
    """Hooks that check a module: its input before and after rounding, its weights, its output."""
    sites = [site for site in quantized.space.sites if name in site.modules]

    def called(which: int = 0) -> str:
        return f"site {sites[which].name} ({configuration.get(sites[which].name, 'float')})"

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not _finite(first_tensor(args, kwargs)):
            findings.append(f"what enters {called()}")

    def rounded(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not _finite(first_tensor(args, kwargs)):
            findings.append(f"the rounded input of {called()}")
        for which, site in enumerate(sites):
            if not _finite(quantized.model.get_parameter(site.parameter)):
                findings.append(f"the weight of {called(which)}")

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        tensors = output if isinstance(output, (tuple, list)) else [output]
        if not all(_finite(each) for each in tensors):
            findings.append(f"the output of {called()}")

    module = quantized.model.get_submodule(name)
    return [
        module.register_forward_pre_hook(before, prepend=True, with_kwargs=True),
        module.register_forward_pre_hook(rounded, with_kwargs=True),
        module.register_forward_hook(after),
    ]


def _finite(value: Any) -> bool:
    return not isinstance(value, Tensor) or not value.is_floating_point() or bool(torch.isfinite(value).all())
