"""The nodes that round an activation as each quantizer does, to the bit.

=====================  ===============================================================================================
static integers        ``QuantizeLinear, DequantizeLinear`` on uint8, and ``Clip`` on the codes below 8 bits
static e4m3, e5m2      ``Div``, ``Clip``, ``Cast`` to FLOAT8 and back, ``Mul``
per token              scales by ``ReduceMax`` over each row, then ``Div``, ``Round`` and ``Clip`` or ``Cast``, ``Mul``
bf16, fp16             ``Cast`` there and back
=====================  ===============================================================================================

onnxruntime divides by the scale, rounds half to even and saturates, as the quantizers do; its FLOAT8 was compared with
``grid.nearest`` on three million values. (Its optimizer takes ``QuantizeLinear`` to FLOAT8 for one to integers, and
computes something else.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..evaluators.quantizers import ActivationQuantizer, FloatRounding, Quantizer
from ..evaluators.quantizers.dynamic_activation import DynamicQuantizer
from ..evaluators.quantizers.static_activation import FloatQuantizer
from ..formats import TensorFormat
from .onnx_storage import float8_type
from .onnx_weights import half_type, register

if TYPE_CHECKING:
    import onnx_ir as ir

_CONTAINER_TOP = 255
_TINY = np.float32(torch.finfo(torch.float32).tiny)  # the smallest scale of a dynamic quantizer


def refusal(target: TensorFormat) -> str:
    """Why an activation format cannot be written; empty if it can."""
    narrow_float = target.number == "float" and float8_type(target) is None
    if target.granularity not in ("tensor", "token") or narrow_float or target.scale not in ("fp32",):
        return "inputs are rounded to integers, e4m3 or e5m2, with one static scale (a8, a8s) or one per token (a8d)"
    return ""


def unsigned(quantizer: Quantizer) -> Quantizer:
    """The same rounding with codes from 0 on, which the integer kernels of x86 take; other quantizers as they are.

    Signed codes [-2^(b-1), 2^(b-1) - 1] with the zero-point 0 are the codes [0, 2^b - 1] with the zero-point 2^(b-1).
    """
    if isinstance(quantizer, ActivationQuantizer) and quantizer.symmetric:
        return ActivationQuantizer(quantizer.scale, 2 ** (quantizer.bits - 1), quantizer.bits)
    return quantizer


@dataclass(frozen=True)
class Rounding:
    """Writes the nodes that round one value.

    Attributes:
        graph: where.
        before: the node that they are put before.
        value: what is rounded.
    """

    graph: ir.Graph
    before: ir.Node
    value: ir.Value

    def by(self, quantizer: Quantizer) -> ir.Value:
        """The rounded value.

        Args:
            quantizer: of a format that ``refusal`` lets pass, from ``unsigned``.
        """
        import onnx_ir as ir

        if isinstance(quantizer, FloatRounding):
            kind = half_type(quantizer.target)
            return self._cast(self._cast(self.value, kind), ir.DataType.FLOAT)
        if isinstance(quantizer, DynamicQuantizer):
            target = quantizer.target
            if not target.symmetric:
                return self._asymmetric_rows(target)
            return self._scaled(self._scale(self._reduced("ReduceMax", self._add("Abs", [self.value])), target), target)
        if isinstance(quantizer, FloatQuantizer):
            return self._scaled(self._constant(np.float32(quantizer.scale)), quantizer.target)
        assert isinstance(quantizer, ActivationQuantizer)
        scale, zero_point = self._constant(np.float32(quantizer.scale)), self._constant(np.uint8(quantizer.zero_point))
        codes = self._add("QuantizeLinear", [self.value, scale, zero_point], ir.DataType.UINT8)
        top = 2**quantizer.bits - 1
        if top < _CONTAINER_TOP:
            codes = self._add("Clip", [codes, None, self._constant(np.uint8(top))], ir.DataType.UINT8)
        return self._add("DequantizeLinear", [codes, scale, zero_point])

    def _scaled(self, scale: ir.Value, target: TensorFormat) -> ir.Value:
        """S nearest(x / s)."""
        import onnx_ir as ir

        ratio = self._add("Div", [self.value, scale])
        kind = float8_type(target)
        if kind is None:
            low, high = target.levels
            elements = self._clip(self._add("Round", [ratio]), low, high)
        else:
            narrow = self._cast(self._clip(ratio, -target.largest, target.largest), kind)
            elements = self._cast(narrow, ir.DataType.FLOAT)
        return self._add("Mul", [elements, scale])

    def _asymmetric_rows(self, target: TensorFormat) -> ir.Value:
        """S (clamp(round(x / s) + z) - z) with the range of each row, widened to hold zero."""
        zero = self._constant(np.float32(0))
        low = self._add("Min", [self._reduced("ReduceMin", self.value), zero], shaped=False)
        high = self._add("Max", [self._reduced("ReduceMax", self.value), zero], shaped=False)
        scale = self._scale(self._add("Sub", [high, low], shaped=False), target)
        negated = self._add("Neg", [low], shaped=False)
        zero_point = self._add("Round", [self._add("Div", [negated, scale], shaped=False)], shaped=False)
        zero_point = self._clip(zero_point, *target.levels, shaped=False)
        codes = self._add("Add", [self._add("Round", [self._add("Div", [self.value, scale])]), zero_point])
        elements = self._add("Sub", [self._clip(codes, *target.levels), zero_point])
        return self._add("Mul", [elements, scale])

    def _scale(self, width: ir.Value, target: TensorFormat) -> ir.Value:
        """The width over the largest element, at least the smallest normal number; zeros stay zero under any scale."""
        quotient = self._add("Div", [width, self._constant(np.float32(target.largest))], shaped=False)
        return self._add("Max", [quotient, self._constant(_TINY)], shaped=False)

    def _reduced(self, operator: str, value: ir.Value) -> ir.Value:
        axes = self._constant(np.array([-1], dtype=np.int64))
        return self._add(operator, [value, axes], shaped=False, keepdims=1)

    def _clip(self, value: ir.Value, low: float, high: float, shaped: bool = True) -> ir.Value:
        bounds = self._constant(np.float32(low)), self._constant(np.float32(high))
        return self._add("Clip", [value, *bounds], shaped=shaped)

    def _cast(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        return self._add("Cast", [value], kind, to=int(kind))

    def _add(
        self,
        operator: str,
        inputs: list[ir.Value | None],
        dtype: ir.DataType | None = None,
        shaped: bool = True,
        **attributes: int,
    ) -> ir.Value:
        """A node; ``shaped`` says that its output has the shape of the rounded value."""
        import onnx_ir as ir

        node = ir.node(operator, inputs, attributes)
        node.outputs[0].dtype = dtype or ir.DataType.FLOAT
        if shaped:
            node.outputs[0].shape = self.value.shape
        self.graph.insert_before(self.before, node)
        return node.outputs[0]

    def _constant(self, number: np.generic[Any] | np.ndarray[Any, Any]) -> ir.Value:
        """A constant, stored once a file."""
        import onnx_ir as ir

        array = np.asarray(number)
        return register(self.graph, ir.Tensor(array, name=f"bitfront.{array.dtype}_{array.tolist()!r}"))
