"""Quantized weights as ONNX initializers, and the nodes that turn them back into floats.

A float weight initializer is replaced by codes and scales (``onnx_storage``). Two ways lead back:

``Cast(codes) * scale``
    for products in floating point; asymmetric: ``(Cast(codes) - zero_point) * scale``, by a table:
    ``Gather(table, codes) * scale``, with scales spread over their groups. onnxruntime folds it while loading, so the
    model runs at float speed, on the fake-quantized weight bit for bit. (Its ``DequantizeLinear`` would not be folded:
    a convolution would dequantize its weight in every run, and a product would become ``MatMulNBits``, which rounds
    the activations to 8 bits: another function than the one measured.)
``DequantizeLinear``
    for products that onnxruntime fuses into an integer kernel together with the rounding of the input: symmetric
    integers with one scale per channel or tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import UnsupportedModel
from .onnx_storage import code_array, code_type, scale_arrays, scale_type, table_name, uses_table

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..evaluators.quantizers import Layout, QuantizedWeight
    from ..evaluators.quantizers.weight import WeightScale
    from ..formats import TensorFormat
    from ..space import Site
    from .protocol import ExportRequest


@dataclass(frozen=True)
class DeferredWeight:
    """A quantized weight whose codes are computed whenever they are asked for.

    A file is written tensor after tensor, so the codes of one weight are in memory at a time.

    Attributes:
        layout: which elements share a scale.
        scales: the scales.
        compute: gives the codes.
    """

    layout: Layout
    scales: WeightScale
    compute: Callable[[], Tensor]

    @property
    def codes(self) -> Tensor:
        """The codes, computed now."""
        return self.compute()

    @property
    def target(self) -> TensorFormat:
        """The format."""
        return self.layout.target

    @property
    def channel_axis(self) -> int:
        """The axis of the output channels."""
        return self.layout.channel_axis


def deferred(request: ExportRequest, site: Site, target: TensorFormat) -> DeferredWeight:
    """The weight of a site in a narrow format.

    Raises:
        InvalidInput: the format was not calibrated at this site.
    """
    from ..evaluators.quantizers import Layout

    calibration, parameter = request.quantized.calibration, request.model.get_parameter(site.parameter)
    layout = Layout.of(parameter, target, site.channel_axis)
    return DeferredWeight(
        layout, calibration.scales(site, target), lambda: calibration.quantize(site, parameter, target).codes
    )


class StoredWeight:
    """A weight initializer that is being replaced.

    Args:
        graph: the graph that holds it.
        initializer: the float initializer.
        weight: codes and scales.
        opset: ONNX operator set.
    """

    def __init__(
        self, graph: ir.Graph, initializer: ir.Value, weight: QuantizedWeight | DeferredWeight, opset: int
    ) -> None:
        import onnx_ir as ir

        self._graph = graph
        self._initializer = initializer
        self._layout, self._target = weight.layout, weight.target
        self._axis, self._rank = weight.channel_axis, len(weight.layout.shape)
        self._name = str(initializer.name)
        del graph.initializers[self._name]
        arrays = scale_arrays(self._name, weight)
        self._stored = {name: register(graph, ir.Tensor(array, name=name)) for name, array in arrays.items()}
        self._scale, kind, own = self._stored[f"{self._name}.scale"], code_type(weight.target, opset), self._name

        def codes() -> ir.TensorProtocol:
            return ir.Tensor(code_array(weight, opset), kind, name=own)

        self._codes = register(graph, ir.LazyTensor(codes, kind, ir.Shape(weight.layout.shape), name=own))
        self._float: ir.Value | None = None
        self._dequantized: dict[bool, ir.Value] = {}

    @property
    def suits_integer_kernels(self) -> bool:
        """Whether the codes are signed integers that an integer kernel of the runtime multiplies as they are."""
        return (
            self._target.number == "int"
            and self._target.symmetric
            and self._target.granularity in ("tensor", "channel")
        )

    def as_float(self) -> ir.Value:
        """``elements * scale``, in the layout of the float weight."""
        if self._float is None:
            elements = self._elements()
            self._float = self._prepend("Mul", [elements, self._spread(self._factor())])
            self._float.shape = self._codes.shape
        return self._float

    def dequantized(self, transpose: bool = False) -> ir.Value:
        """``DequantizeLinear`` of integer codes, which are cast to int8 first.

        Args:
            transpose: whether to give the transposed matrix. The codes of a pointwise convolution are a matrix too.
        """
        import onnx_ir as ir

        if transpose not in self._dequantized:
            codes, axis, kind = self._codes, self._axis, ir.DataType.INT8
            if codes.dtype != kind:
                codes = self._prepend("Cast", [codes], kind, to=int(kind))
            if transpose and self._rank > 2:
                codes = self._prepend("Reshape", [codes, self._numbers([0, -1])], kind)
            if transpose:
                codes, axis = self._prepend("Transpose", [codes], kind, perm=[1, 0]), 1 - axis
            self._dequantized[transpose] = self._prepend("DequantizeLinear", [codes, self._scale], axis=axis)
        return self._dequantized[transpose]

    def replace_float(self) -> None:
        """Let every remaining use of the float initializer read the codes."""
        if self._initializer.uses() or self._initializer.is_graph_output():
            import onnx_ir as ir

            ir.convenience.replace_all_uses_with(self._initializer, self.as_float(), replace_graph_outputs=True)

    def _elements(self) -> ir.Value:
        import onnx_ir as ir

        if uses_table(self._target):
            kind = ir.DataType.INT32
            indices = self._prepend("Cast", [self._codes], kind, to=int(kind))
            return self._prepend("Gather", [self._stored[table_name(self._target)], indices])
        elements = self._as_float32(self._codes)
        if self._target.symmetric:
            return elements
        zero_point = self._as_float32(self._stored[f"{self._name}.zero_point"])
        return self._prepend("Sub", [elements, self._spread(zero_point)])

    def _factor(self) -> ir.Value:
        """The scales in float32, times that of the tensor where there is one."""
        import onnx_ir as ir

        scale = self._scale if scale_type(self._target) == ir.DataType.FLOAT else self._as_float32(self._scale)
        whole = self._stored.get(f"{self._name}.tensor_scale")
        return scale if whole is None else self._prepend("Mul", [scale, whole])

    def _spread(self, scale: ir.Value) -> ir.Value:
        """Scales in a shape that multiplies the weight."""
        granularity = self._target.granularity
        if granularity == "channel" and self._axis != self._rank - 1:
            axes = list(range(1, self._rank - self._axis))
            return self._prepend("Unsqueeze", [scale, self._numbers(axes)])
        return self._spread_groups(scale) if granularity in ("group", "block") else scale

    def _spread_groups(self, scale: ir.Value) -> ir.Value:
        """Each scale of a matrix repeated over its group of a row, or its square."""
        channels, elements = self._layout.matrix_shape
        down, across = self._layout.scale_shape[0], self._layout.scale_shape[1]
        size = self._target.group
        high = size if self._target.granularity == "block" else 1
        cells = self._prepend("Unsqueeze", [scale, self._numbers([1, 3])])
        cells = self._prepend("Expand", [cells, self._numbers([down, high, across, size])])
        matrix = self._prepend("Reshape", [cells, self._numbers([down * high, across * size])])
        if (down * high, across * size) != (channels, elements):
            matrix = self._prepend("Slice", [matrix, self._numbers([0, 0]), self._numbers([channels, elements])])
        return matrix if self._axis == 0 else self._prepend("Transpose", [matrix], perm=[1, 0])

    def _as_float32(self, value: ir.Value) -> ir.Value:
        import onnx_ir as ir

        return self._prepend("Cast", [value], to=int(ir.DataType.FLOAT))

    def _numbers(self, numbers: list[int]) -> ir.Value:
        """A constant int64 vector, stored once a file."""
        import onnx_ir as ir

        name = f"bitfront.{'_'.join(map(str, numbers))}"
        return register(self._graph, ir.Tensor(np.array(numbers, dtype=np.int64), name=name))

    def _prepend(
        self, operator: str, inputs: list[ir.Value], dtype: ir.DataType | None = None, **attributes: int | list[int]
    ) -> ir.Value:
        import onnx_ir as ir

        return prepend(self._graph, operator, inputs, dtype or ir.DataType.FLOAT, **attributes)


def store_half(graph: ir.Graph, initializer: ir.Value, rounded: Callable[[], Tensor], target: TensorFormat) -> None:
    """Store a weight as a float of 16 bits and cast it back to float32 where it is used.

    Args:
        graph: the graph that holds it.
        initializer: the float initializer.
        rounded: gives the weight, rounded to values that the format holds exactly.
        target: bf16 or fp16.
    """
    import onnx_ir as ir

    name, kind = str(initializer.name), half_type(target)
    narrow = torch.bfloat16 if kind == ir.DataType.BFLOAT16 else torch.float16
    assert initializer.shape is not None

    def values() -> ir.TensorProtocol:
        halved = rounded().detach().to(narrow).cpu().contiguous().view(torch.int16).numpy()
        return ir.Tensor(halved.view(kind.numpy()), kind, name=name)

    del graph.initializers[name]
    stored = register(graph, ir.LazyTensor(values, kind, ir.Shape(initializer.shape.numpy()), name=name))
    cast = prepend(graph, "Cast", [stored], ir.DataType.FLOAT, to=int(ir.DataType.FLOAT))
    cast.shape = stored.shape
    ir.convenience.replace_all_uses_with(initializer, cast, replace_graph_outputs=True)


def store_bias(graph: ir.Graph, name: str, bias: Tensor) -> None:
    """Put another bias in the place of the one that the graph was traced with.

    Raises:
        UnsupportedModel: the graph does not have it.
    """
    import onnx_ir as ir

    if name not in graph.initializers:
        raise UnsupportedModel(
            f"torch.onnx.export did not keep the bias {name}, which is to be corrected; exclude the site"
        )
    graph.initializers[name].const_value = ir.Tensor(bias.detach().float().cpu().numpy(), name=name)


def half_type(target: TensorFormat) -> ir.DataType:
    """The ONNX type of a float of 16 bits."""
    import onnx_ir as ir

    return ir.DataType.BFLOAT16 if target.exponent_bits == 8 else ir.DataType.FLOAT16


def prepend(
    graph: ir.Graph, operator: str, inputs: list[ir.Value], dtype: ir.DataType, **attributes: int | list[int]
) -> ir.Value:
    """A node before all nodes that are not such a node themselves; its output."""
    import onnx_ir as ir

    node = ir.node(operator, inputs, attributes)
    node.outputs[0].dtype = dtype
    count = graph.meta.setdefault("bitfront.prepended", 0)
    if len(graph) > count:
        graph.insert_before(graph[count], node)
    else:
        graph.append(node)
    graph.meta["bitfront.prepended"] = count + 1
    return node.outputs[0]


def register(graph: ir.Graph, tensor: ir.TensorProtocol) -> ir.Value:
    """A new initializer, or the one of that name if there is one already."""
    import onnx_ir as ir

    name = str(tensor.name)
    if name not in graph.initializers:
        kind, shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        graph.register_initializer(ir.Value(name=name, shape=shape, type=kind, const_value=tensor))
    return graph.initializers[name]
