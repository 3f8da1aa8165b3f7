r"""What a runtime is known to compute otherwise, run on the fake-quantized model.

Some rules of a runtime cannot be changed, such as the scale that it chooses for an input while it runs. The
configuration was measured with another rule; the artifact is still the same function up to that rule, and how far the
rule moves the outputs is found by running the fake-quantized model with the rule of the runtime:

.. math:: d = \max_o \lVert y_o^{\mathrm{rule}} - y_o \rVert_2 / \lVert y_o \rVert_2

An artifact that is farther than a few d from the fake-quantized model computes something else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..evaluators import Calibration, QuantizedModel
from ..evaluators.quantizers import Quantizer
from ..formats import TensorFormat
from ..space import Site
from .comparison import reference, relative_error

if TYPE_CHECKING:
    from .protocol import ExportRequest

#: What rounds an input in the runtime: the quantizer itself where the rule is the same.
InputRule = Callable[[TensorFormat, Quantizer], Quantizer]
#: What the runtime makes of a fake-quantized weight of a format.
WeightRule = Callable[[TensorFormat, Tensor], Tensor]


@dataclass(frozen=True)
class HalfRange:
    r"""Symmetric integers with one dynamic scale per token that spans half of all codes.

    torchao and compressed-tensors choose :math:`s = \max |v| / ((q_{max} - q_{min}) / 2)`, 127.5 for 8 bits; ``a8d``
    (and the kernels of vLLM) :math:`\max |v| / 127`.

    Attributes:
        target: the format.
    """

    target: TensorFormat

    def __call__(self, value: Tensor) -> Tensor:
        """Fake quantization, in the type of ``value``."""
        low, high = self.target.levels
        rows = value.detach().float()
        scale = rows.abs().amax(-1, keepdim=True) / ((high - low) / 2)
        scale = torch.where(scale == 0, 1.0, scale)
        return (rows / scale).round_().clamp_(low, high).mul_(scale).to(value.dtype)


def as_runtime(target: TensorFormat, quantizer: Quantizer) -> Quantizer:
    """The rules that torchao and compressed-tensors share: ``HalfRange``, and no rounding to 16 bits."""
    if target.is_wide:
        return _unchanged
    if target.number == "int" and target.dynamic and target.symmetric:
        return HalfRange(target)
    return quantizer


def with_rules(
    request: ExportRequest, inputs: InputRule = as_runtime, weights: WeightRule | None = None
) -> ExportRequest:
    """The request with a fake-quantized model that follows the rules of a runtime.

    Args:
        request: what is exported.
        inputs: how it rounds inputs.
        weights: what it makes of weights; ``None``: nothing else.
    """
    own = request.quantized
    calibration = _Rules(**vars(own.calibration), inputs=inputs)
    if weights is None:
        return replace(request, quantized=QuantizedModel(own.model, own.space, calibration))
    return replace(request, quantized=_Changed(own, calibration, weights))


def rule_distance(request: ExportRequest, inputs: InputRule = as_runtime, weights: WeightRule | None = None) -> float:
    """How far the rules of a runtime move the outputs of the fake-quantized model on the example.

    Returns:
        The largest relative error of any output; 0 where the rules are the same.
    """
    formats = [request.format_of(site) for site in request.space.sites]
    values = [each.activation for each in formats if each.activation is not None]
    same = all(inputs(value, _probe) is _probe for value in values)
    if same and weights is None:
        return 0.0
    wanted, moved = reference(request), reference(with_rules(request, inputs, weights))
    return max(relative_error(given, expected) for given, expected in zip(moved, wanted, strict=True))


def _probe(value: Tensor) -> Tensor:
    """Stands for any quantizer, to ask whether a rule keeps it."""
    return value


def _unchanged(value: Tensor) -> Tensor:
    return value


@dataclass(frozen=True)
class _Rules(Calibration):
    inputs: InputRule = field(default=as_runtime)

    def activation(self, module: str, target: TensorFormat) -> Quantizer:
        return self.inputs(target, super().activation(module, target))


class _Changed(QuantizedModel):
    """A quantized model whose weights a rule changes once more."""

    def __init__(self, own: QuantizedModel, calibration: Calibration, rule: WeightRule) -> None:
        super().__init__(own.model, own.space, calibration)
        self._rule = rule

    def weight(self, site: Site, target: TensorFormat) -> Tensor:
        return self._rule(target, super().weight(site, target))
