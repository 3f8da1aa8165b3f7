r"""MatMulNBits: products with integers of 2, 4 or 8 bits that stay packed in memory (``com.microsoft``, onnxruntime).

The weight lies as uint8 [channels, groups, group * bits / 8], the first code in the low bits, unsigned:

.. math:: w = s\,(q - z), \qquad z = 2^{b-1} \text{ for symmetric formats}

Two uses, told apart by ``accuracy_level``:

4
    the input is rounded to int8 with one scale for each group of the weight, :math:`\max|x| / 127`, and integers are
    multiplied. That is the format ``wXgNa8gN``, to the last bits (2e-7, measured in onnxruntime 1.31 for 2, 4, 8 bits).
1
    the input stays float32 and codes are decoded in every run: a weight-only format with 4-bit codes in memory instead
    of a float matrix (option ``weights="packed"``). Faster than a float product for one row, slower for more
    (docs/export_onnx.md); 2 and 8 bits have no such kernel and would be 2 to 20 times slower, so they are not packed.

Scales are FLOAT16 in the file and are cast while the model is loaded. Formats with one scale per channel get it
repeated over blocks of 128 while loading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..evaluators.quantizers import Layout
from ..formats import Format
from .bit_packing import packed, unpacked
from .onnx_kernels import Product, replace_node
from .onnx_weights import DeferredWeight, prepend, register

if TYPE_CHECKING:
    import onnx_ir as ir

DOMAIN = "com.microsoft"
#: ``accuracy_level``: what the products compute in.
FLOAT32, INT8 = 1, 4
_CHANNEL_BLOCK = 128
_PACKED_BITS = 4


def multiplies_integers(format: Format) -> bool:
    """Whether a format is what the kernel computes at ``accuracy_level`` 4."""
    weight, activation = format.weight, format.activation
    return (
        activation is not None
        and (activation.number, activation.bits, activation.granularity) == ("int", 8, "group")
        and activation.symmetric
        and activation.group == weight.group
        and (weight.number, weight.granularity) == ("int", "group")
    )


def stays_packed(format: Format, layout: Layout) -> bool:
    """Whether a weight-only format has a kernel that keeps it packed: 3 or 4 bits, in groups or per channel."""
    weight = format.weight
    if format.activation is not None or weight.number != "int" or weight.container_bits != _PACKED_BITS:
        return False
    if len(layout.shape) != 2:
        return False
    if weight.granularity == "group":
        return True
    return weight.granularity == "channel" and weight.symmetric and layout.matrix_shape[1] % _CHANNEL_BLOCK == 0


def block_size(layout: Layout) -> int:
    """Elements of a row that share a scale in the node."""
    return layout.target.group or _CHANNEL_BLOCK


def write_nbits(
    graph: ir.Graph, initializer: ir.Value, found: list[Product], weight: DeferredWeight, level: int
) -> None:
    """Replace the products that read a float weight by MatMulNBits.

    Args:
        graph: that holds them.
        initializer: the float weight; nothing else may read it.
        found: its products, named.
        weight: codes and scales.
        level: ``accuracy_level``.
    """
    import onnx_ir as ir

    name, layout, target = str(initializer.name), weight.layout, weight.target
    channels, elements = layout.matrix_shape
    bits, block = target.container_bits, block_size(layout)
    del graph.initializers[name]
    shape = ir.Shape((channels, elements // block, block * bits // 8))

    def pack() -> ir.TensorProtocol:
        return ir.Tensor(_packed_codes(weight), name=name)

    codes = register(graph, ir.LazyTensor(pack, ir.DataType.UINT8, shape, name=name))
    operands = [codes, _scales(graph, name, weight, elements // block)]
    if weight.scales.zero_point is not None:
        zeros = weight.scales.zero_point.cpu().numpy().astype(np.uint8).reshape(channels, -1)
        rows = np.stack([packed(row, bits) for row in zeros])
        operands.append(register(graph, ir.Tensor(rows, name=f"{name}.zero_point")))
    attributes = {"K": elements, "N": channels, "bits": bits, "block_size": block, "accuracy_level": level}
    for product in found:
        node = product.node
        new = ir.node("MatMulNBits", [node.inputs[0], *operands], attributes, domain=DOMAIN, name=node.name)
        nodes = [new]
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            nodes.append(ir.node("Add", [new.outputs[0], node.inputs[2]]))
        nodes[-1].outputs[0].shape = node.outputs[0].shape
        replace_node(graph, node, nodes)


def decoded(stored: Mapping[str, NDArray[Any]], name: str, layout: Layout) -> NDArray[np.float32]:
    """The float32 weight that packed codes in a file stand for.

    Args:
        stored: initializers of the file by name.
        name: of the parameter.
        layout: which elements share a scale.

    Raises:
        KeyError: an array is missing; it carries the name.
    """
    target, (channels, elements) = layout.target, layout.matrix_shape
    bits = target.container_bits
    codes = unpacked(stored[name].reshape(-1), bits, channels * elements, signed=False)
    matrix = torch.from_numpy(codes.astype(np.float32)).reshape(channels, elements)
    if target.symmetric:
        matrix = matrix - 2 ** (bits - 1)
    else:
        rows = stored[f"{name}.zero_point"]
        points = np.stack([unpacked(row, bits, layout.scale_shape[1], signed=False) for row in rows])
        matrix = matrix - layout.expand(torch.from_numpy(points.astype(np.float32)))
    factor = torch.from_numpy(stored[f"{name}.scale"].astype(np.float32))
    found: NDArray[np.float32] = layout.tensor(matrix * layout.expand(factor)).contiguous().numpy()
    return found


def _packed_codes(weight: DeferredWeight) -> NDArray[np.uint8]:
    layout = weight.layout
    channels, elements = layout.matrix_shape
    bits, block = weight.target.container_bits, block_size(layout)
    matrix = layout.matrix(weight.codes).cpu().numpy().astype(np.int16)
    if weight.target.symmetric:
        matrix = matrix + 2 ** (bits - 1)
    return packed(matrix.astype(np.uint8), bits).reshape(channels, elements // block, block * bits // 8)


def _scales(graph: ir.Graph, name: str, weight: DeferredWeight, blocks: int) -> ir.Value:
    """The scales in float32 [channels, blocks]; conversions are folded while loading."""
    import onnx_ir as ir

    target, values = weight.target, weight.scales.scale.float().cpu().numpy()
    narrow: type[np.float16] | type[np.float32] = np.float16 if target.scale == "fp16" else np.float32
    array = values.reshape(weight.layout.scale_shape).astype(narrow)
    scale = register(graph, ir.Tensor(array, name=f"{name}.scale"))
    if narrow is np.float16:
        scale = prepend(graph, "Cast", [scale], ir.DataType.FLOAT, to=int(ir.DataType.FLOAT))
    if target.granularity == "channel":
        counts = ir.Tensor(np.array([len(values), blocks], np.int64), name=f"bitfront.{len(values)}_{blocks}")
        column = ir.Tensor(np.array([1], np.int64), name="bitfront.1")
        scale = prepend(graph, "Unsqueeze", [scale, register(graph, column)], ir.DataType.FLOAT)
        scale = prepend(graph, "Expand", [scale, register(graph, counts)], ir.DataType.FLOAT)
    return scale
