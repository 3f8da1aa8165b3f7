"""Which products of a graph onnxruntime can compute on integers, and the form in which it recognizes them.

onnxruntime (1.22 to 1.31, CPU) fuses

- ``DequantizeLinear(x), DequantizeLinear(w) -> MatMul`` into ``MatMulIntegerToFloat``, whatever follows; a ``Gemm``
  with a float bias, and a ``MatMul + Add`` that it would turn into one, stay in float. So a two-dimensional linear
  layer is written ``MatMul - (-bias)``, which is the same number bit for bit.
- ``DequantizeLinear(x), DequantizeLinear(w) -> Conv -> QuantizeLinear`` into ``QLinearConv``: only where the output of
  the convolution is itself rounded. (``ConvInteger`` needs no rounded output, but was 4 to 20 times slower than the
  float convolution when measured.)

All other products read the weight through ``Cast(codes) * scale`` and run in float, on rounded inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .onnx_activations import InputRounding
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
        node: ``Conv``, ``Gemm`` or ``MatMul``; the weight is its second input.
        transposed: whether it multiplies with the transposed weight.
    """

    node: ir.Node
    transposed: bool = False


def products(initializer: ir.Value) -> Iterator[Product]:
    """The products that read a weight directly or through one transposition."""
    for node, index in initializer.uses():
        if index == 1 and node.op_type in ("Conv", "MatMul"):
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


def use_integer_kernels(graph: ir.Graph, found: list[Product], weight: StoredWeight, rounding: InputRounding) -> None:
    """Write those products of a site in the form of an integer kernel that can have one.

    Args:
        graph: the graph, its inputs still marked.
        found: the products that read the weight, named.
        weight: the stored weight.
        rounding: the marked inputs.
    """
    for product in found:
        node = product.node
        if not rounding.is_integer(_source(node.inputs[0])):
            continue
        if node.op_type == "Conv":
            if rounding.output_is_rounded(node.outputs[0]):
                node.replace_input_with(1, weight.dequantized())
        elif node.op_type == "MatMul":
            node.replace_input_with(1, weight.dequantized(product.transposed))
        else:
            _gemm_as_matmul(graph, node, weight.dequantized(product.transposed))


def _gemm_as_matmul(graph: ir.Graph, gemm: ir.Node, weight: ir.Value) -> None:
    import onnx_ir as ir

    product = ir.node("MatMul", [gemm.inputs[0], weight], name=gemm.name)
    nodes, result = [product], product.outputs[0]
    if len(gemm.inputs) > 2 and gemm.inputs[2] is not None:
        negated = ir.node("Neg", [gemm.inputs[2]])
        difference = ir.node("Sub", [result, negated.outputs[0]])
        nodes, result = [product, negated, difference], difference.outputs[0]
    for node in nodes:
        node.outputs[0].dtype = ir.DataType.FLOAT
    result.shape = gemm.outputs[0].shape
    graph.insert_before(gemm, nodes)
    ir.convenience.replace_all_uses_with(gemm.outputs[0], result, replace_graph_outputs=True)
    graph.remove(gemm, safe=True)


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
