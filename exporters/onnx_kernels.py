"""Which products of a graph onnxruntime can compute on integers, and the form in which it recognizes them.

onnxruntime (1.22 to 1.31, CPU) fuses

- ``DequantizeLinear(x), DequantizeLinear(w) -> MatMul`` into ``MatMulIntegerToFloat``, whatever follows; a ``Gemm``
  with a float bias, and a ``MatMul + Add`` that it would turn into one, stay in float. So a two-dimensional linear
  layer is written ``MatMul - (-bias)``, which is the same number bit for bit.
- ``DequantizeLinear(x), DequantizeLinear(w) -> Conv -> QuantizeLinear`` into ``QLinearConv``: only where the output of
  the convolution is itself rounded. (``ConvInteger`` needs no rounded output, but was 4 to 20 times slower than the
  float convolution when measured.) A pointwise convolution whose output is not rounded is a matrix product over its
  pixels, and is written as one.

All other products read the weight through ``Cast(codes) * scale`` and run in float, on rounded inputs: asymmetric
weights, minifloats and weights with groups among them.
One thing must be kept from it: where a convolution or ``Gemm`` with a float weight stands directly between two
roundings (a ReLU or a normalization may lie before the second), onnxruntime rounds the weight to 8 bits with one scale
for the whole tensor and computes something else (measured: an error of 0.6 on EfficientNet-lite0). There it is written
``-conv(x, -w, -b)``, which is the same number bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .onnx_activations import InputRounding
from .onnx_simplify import pads_automatically
from .onnx_trace import DOMAIN
from .onnx_weights import StoredWeight

if TYPE_CHECKING:
    import onnx_ir as ir

#: Operators of onnxruntime that multiply 8-bit integers.
INTEGER_OPERATORS = frozenset(
    {
        "QLinearConv",
        "MatMulIntegerToFloat",
        "QLinearMatMul",
        "QGemm",
        "MatMulInteger",
        "ConvInteger",
        "QLinearConvTranspose",
    }
)
_SHAPE_OPERATORS = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class Product:
    """A node that multiplies an activation with a weight.

    Attributes:
        node: ``Conv``, ``ConvTranspose``, ``Gemm`` or ``MatMul``; the weight is its second input.
        transposed: whether it multiplies with the transposed weight.
    """

    node: ir.Node
    transposed: bool = False


def products(initializer: ir.Value) -> Iterator[Product]:
    """The products that read a weight directly or through one transposition."""
    for node, index in initializer.uses():
        if index == 1 and node.op_type in ("Conv", "ConvTranspose", "MatMul"):
            yield Product(node)
        elif index == 1 and node.op_type == "Gemm" and _is_plain(node):
            yield Product(node, bool(_integer(node, "transB", 0)))
        elif node.op_type == "Transpose" and initializer.shape is not None and len(initializer.shape) == 2:
            for reader, position in node.outputs[0].uses():
                if position == 1 and reader.op_type == "MatMul":
                    yield Product(reader, True)


def site_node_name(site: str, number: int) -> str:
    """Name of the product of a site, by which it is found again in the graph that the runtime made of it."""
    return f"{DOMAIN}/{site}/{number}"


def site_of(node_name: str) -> str | None:
    """The site whose product a node is, from its name."""
    domain, _, rest = node_name.partition("/")
    return rest.rpartition("/")[0] if domain == DOMAIN else None


def write_products(graph: ir.Graph, found: list[Product], weight: StoredWeight, rounding: InputRounding) -> None:
    """Write the products of a site in the form of an integer kernel, or so that they stay in float.

    Args:
        graph: the graph, its inputs still marked.
        found: the products that read the weight, named.
        weight: the stored weight.
        rounding: the marked inputs.
    """
    for product in found:
        node, source = product.node, _source(product.node.inputs[0])
        rounded = rounding.is_integer(source)
        integer = rounded and weight.suits_integer_kernels
        if integer and node.op_type == "MatMul":
            node.replace_input_with(1, weight.dequantized(product.transposed))
        elif integer and node.op_type == "Gemm":
            _gemm_as_matmul(graph, node, weight.dequantized(product.transposed))
        elif integer and node.op_type == "Conv" and rounding.output_is_rounded(node.outputs[0]):
            node.replace_input_with(1, weight.dequantized())
        elif integer and _is_pointwise(node):
            _pointwise_as_matmul(graph, node, weight.dequantized(transpose=True))
        elif rounded and node.op_type != "MatMul" and rounding.reaches_rounding(node.outputs[0]):
            _negate_twice(graph, node)


def _gemm_as_matmul(graph: ir.Graph, gemm: ir.Node, weight: ir.Value) -> None:
    nodes = _matmul(gemm, gemm.inputs[0], weight)
    nodes[-1].outputs[0].shape = gemm.outputs[0].shape
    replace_node(graph, gemm, nodes)


def _pointwise_as_matmul(graph: ir.Graph, conv: ir.Node, weight: ir.Value) -> None:
    """Channels last, matrix product, channels first."""
    import onnx_ir as ir

    shape = conv.inputs[1].shape if conv.inputs[1] is not None else None
    assert shape is not None
    axes = list(range(len(shape)))
    before = ir.node("Transpose", [conv.inputs[0]], {"perm": [0, *axes[2:], 1]})
    product = _matmul(conv, before.outputs[0], weight)
    after = ir.node("Transpose", [product[-1].outputs[0]], {"perm": [0, axes[-1], *axes[1:-1]]})
    after.outputs[0].shape = conv.outputs[0].shape
    replace_node(graph, conv, [before, *product, after])


def _matmul(node: ir.Node, value: ir.Value | None, weight: ir.Value) -> list[ir.Node]:
    """The nodes of value @ weight - (-bias), bias the third input of ``node``."""
    import onnx_ir as ir

    product = ir.node("MatMul", [value, weight], name=node.name)
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return [product]
    negated = ir.node("Neg", [node.inputs[2]])
    return [product, negated, ir.node("Sub", [product.outputs[0], negated.outputs[0]])]


def _negate_twice(graph: ir.Graph, product: ir.Node) -> None:
    """Write conv(x, w, b) as -conv(x, -w, -b); a ``Gemm`` likewise."""
    import onnx_ir as ir

    negated = [ir.node("Neg", [value]) for value in product.inputs[1:] if value is not None]
    parameters = [node.outputs[0] for node in negated]
    turned = ir.node(product.op_type, [product.inputs[0], *parameters], product.attributes, name=product.name)
    result = ir.node("Neg", [turned.outputs[0]])
    result.outputs[0].shape = product.outputs[0].shape
    replace_node(graph, product, [*negated, turned, result])


def replace_node(graph: ir.Graph, node: ir.Node, nodes: list[ir.Node]) -> None:
    """Put nodes in the place of one; the last of them gives its (float) output."""
    import onnx_ir as ir

    for new in nodes:
        new.outputs[0].dtype = ir.DataType.FLOAT
    graph.insert_before(node, nodes)
    ir.convenience.replace_all_uses_with(node.outputs[0], nodes[-1].outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _is_pointwise(conv: ir.Node) -> bool:
    """Whether a convolution multiplies each pixel with one matrix."""
    weight = conv.inputs[1]
    if conv.op_type != "Conv" or weight is None or weight.shape is None or _integer(conv, "group", 1) != 1:
        return False
    ints = {key: conv.attributes[key].as_ints() for key in ("strides", "pads") if key in conv.attributes}
    return (
        all(size == 1 for size in weight.shape[2:])
        and all(stride == 1 for stride in ints.get("strides", ()))
        and not any(ints.get("pads", ()))
        and not pads_automatically(conv)
    )


def _source(value: ir.Value | None) -> ir.Node | None:
    """The node that a value comes from, past operators that only change shapes."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in _SHAPE_OPERATORS and node.domain == "":
        before = node.inputs[0]
        node = None if before is None else before.producer()
    return node


def _is_plain(gemm: ir.Node) -> bool:
    factors = [attribute.as_float() for key, attribute in gemm.attributes.items() if key in ("alpha", "beta")]
    return all(factor == 1.0 for factor in factors) and _integer(gemm, "transA", 0) == 0


def _integer(node: ir.Node, key: str, default: int) -> int:
    return node.attributes[key].as_int() if key in node.attributes else default
