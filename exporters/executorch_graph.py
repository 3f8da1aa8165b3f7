"""The float model as a ``torch.export`` program whose sites hold codes, and whose inputs are rounded where they were.

====================  ================================================================================================
product               written as
====================  ================================================================================================
integer               input and output in static int8, codes in int8: the kernels of XNNPACK take all three
per token             ``choose_qparams_per_token_asymmetric`` before a linear layer, codes in int8 or int4
packed                input in float (rounded by a static scale or not at all), codes in int8 or int4; a convolution
                      is a linear layer on the patches of its input, [batch, height, width, kernel x channels]
unpacked              a grouped convolution that cannot be integer: its dequantized weight, in 32 bits
====================  ================================================================================================

A product is integer where its output goes, through at most a ReLU or a clip, into one rounding and nowhere else:
XNNPACK has no kernel from int8 to float.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.ao.quantization.fx import _decomposed

from ..errors import UnsupportedModel
from ..evaluators.quantizers import ActivationQuantizer, DynamicQuantizer, Quantizer
from ..formats import TensorFormat
from ..space import Site
from ..task import Batch
from .protocol import ExportRequest
from .quiet_trace import traced_quietly

OPERATORS = torch.ops.quantized_decomposed
assert _decomposed.quantized_decomposed_lib.ns == "quantized_decomposed"  # importing it registers the operators

_ATEN = torch.ops.aten
_LINEAR, _CONVOLUTIONS = _ATEN.linear.default, (_ATEN.conv2d.default, _ATEN.conv2d.padding)
_FUSED = (_ATEN.relu.default, _ATEN.hardtanh.default)
_BYTE = (-128, 127, torch.int8)


@dataclass(frozen=True)
class Product:
    """One use of the weight of a site.

    Attributes:
        node: a linear layer or a convolution of the graph.
        site: whose weight it multiplies with.
        quantizer: of its input; ``None`` where it stays in float.
        kind: ``integer``, ``per token``, ``packed`` or ``unpacked``, as in the table of this module.
    """

    node: fx.Node
    site: Site
    quantizer: Quantizer | None
    kind: str


@dataclass(frozen=True)
class Program:
    """What is lowered.

    Attributes:
        exported: the program.
        kinds: site -> kind of its products.
    """

    exported: torch.export.ExportedProgram
    kinds: dict[str, str]


def program(request: ExportRequest) -> Program:
    """Trace the float model, insert codes and roundings, trace again.

    Raises:
        UnsupportedModel: ``torch.export`` cannot express the model, or a site is not used as a layer.
    """
    with traced_quietly(request.model):
        module = _exported(request.model, request.example).run_decompositions({}).module(check_guards=False)
        assert isinstance(module, fx.GraphModule)
        kinds = _rewrite(module, request)
        return Program(_exported(module, request.example), kinds)


def _exported(model: nn.Module, example: Batch) -> torch.export.ExportedProgram:
    args, named = ((), example.inputs) if isinstance(example.inputs, dict) else (example.inputs, None)
    try:
        return torch.export.export(model, args, named)
    except Exception as cause:
        lines = str(cause).strip().splitlines() or [""]
        raise UnsupportedModel(
            f"torch.export cannot express {type(model).__name__}: {type(cause).__name__}: {lines[0]}"
        ) from cause


def _rewrite(module: fx.GraphModule, request: ExportRequest) -> dict[str, str]:
    graph = module.graph
    for node in graph.nodes:
        if node.op == "call_function" and node.target is _ATEN.relu6.default:
            node.target, node.args = _ATEN.hardtanh.default, (node.args[0], 0.0, 6.0)
    biases = request.quantized.changes(request.configuration).biases
    products = _products(module, request)
    editors = [_Editor(module, request, product, f"site{number}") for number, product in enumerate(products)]
    rounded: dict[tuple[Any, Quantizer], fx.Node] = {}
    for editor in editors:
        editor.round_input(rounded)
    for editor, product in zip(editors, products, strict=True):
        for name in (name for name in biases if _bias(product) is not None):
            if _tensor(request.model, str(_bias(product).target)) is request.model.get_parameter(name):  # type: ignore[union-attr]
                editor.exchange_bias(request.quantized.bias(name, biases[name]))
        editor.write()
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()
    return {product.site.name: product.kind for product in products}


def _products(module: fx.GraphModule, request: ExportRequest) -> list[Product]:
    """The products of all narrow sites in the order of the graph.

    Raises:
        UnsupportedModel: the weight of such a site goes into something else.
    """
    sites = {id(request.model.get_parameter(site.parameter)): site for site in request.space.sites}
    found: list[tuple[fx.Node, Site, Quantizer | None]] = []
    for node in module.graph.nodes:
        site = sites.get(id(_tensor(request.model, str(node.target)))) if node.op == "get_attr" else None
        if site is None or request.format_of(site).is_wide:
            continue
        for user in node.users:
            if user.target not in (_LINEAR, *_CONVOLUTIONS) or user.args[1] is not node:
                raise UnsupportedModel(f"site {site.name}: its weight goes into {user.target}; take fp32 there")
            path = list(user.meta["nn_module_stack"].values())[-1][0].partition("@")[0]
            found.append((user, site, request.quantized.rounding(site, path, request.format_of(site))))
    missing = {site.name for site in sites.values() if not request.format_of(site).is_wide}
    missing -= {site.name for _, site, _ in found}
    if missing:
        raise UnsupportedModel(f"site {min(missing)}: the graph does not use its weight; exclude the site")
    order = {node: number for number, node in enumerate(module.graph.nodes)}
    quantizers = {node: quantizer for node, _, quantizer in found}
    found.sort(key=lambda use: order[use[0]])
    return [
        Product(node, site, by, _kind(node, request.format_of(site).weight, quantizers)) for node, site, by in found
    ]


def _kind(node: fx.Node, weight: TensorFormat, quantizers: dict[fx.Node, Quantizer | None]) -> str:
    quantizer = quantizers[node]
    if isinstance(quantizer, DynamicQuantizer):
        return "per token"
    if isinstance(quantizer, ActivationQuantizer) and weight.container_bits == 8 and _rounds_output(node, quantizers):
        return "integer"
    return "unpacked" if node.target in _CONVOLUTIONS and _argument(node, 6, 1) != 1 else "packed"


def _rounds_output(node: fx.Node, quantizers: dict[fx.Node, Quantizer | None]) -> bool:
    """Whether the output goes into one static rounding and nowhere else."""
    users = list(node.users)
    if len(users) == 1 and users[0].target in _FUSED:
        node, users = users[0], list(users[0].users)
    found = {quantizers.get(user) if user.args[0] is node else None for user in users}
    return len(found) == 1 and isinstance(found.pop(), ActivationQuantizer)


@dataclass(frozen=True)
class _Editor:
    """Rewrites one product.

    Attributes:
        module: holds the graph and what it reads.
        request: configuration and calibration.
        product: what is rewritten.
        prefix: begins the names of the new tensors.
    """

    module: fx.GraphModule
    request: ExportRequest
    product: Product
    prefix: str

    def exchange_bias(self, bias: Tensor) -> None:
        """Give the product a corrected bias."""
        node = self.product.node
        with self.module.graph.inserting_before(node):
            node.update_arg(2, self._constant("bias", bias))

    def round_input(self, rounded: dict[tuple[Any, Quantizer], fx.Node]) -> None:
        """Round the input; static roundings of one value are shared, as one kernel writes them once."""
        graph, node, quantizer = self.module.graph, self.product.node, self.product.quantizer
        value: Any = node.args[0]
        if isinstance(quantizer, ActivationQuantizer):
            point = quantizer.zero_point - (0 if quantizer.symmetric else 128)
            if (value, quantizer) not in rounded:
                with graph.inserting_after(value):
                    rounded[value, quantizer] = graph.call_function(
                        OPERATORS.quantize_per_tensor.default, (value, quantizer.scale, point, *_BYTE)
                    )
            codes = rounded[value, quantizer]
            with graph.inserting_before(node):
                back = OPERATORS.dequantize_per_tensor.default
                node.update_arg(0, graph.call_function(back, (codes, quantizer.scale, point, *_BYTE)))
        elif isinstance(quantizer, DynamicQuantizer):
            with graph.inserting_before(node):
                chosen = graph.call_function(OPERATORS.choose_qparams_per_token_asymmetric.default, (value, torch.int8))
                both = tuple(graph.call_function(operator.getitem, (chosen, position)) for position in (0, 1))
                codes = graph.call_function(OPERATORS.quantize_per_token.default, (value, *both, *_BYTE))
                back = OPERATORS.dequantize_per_token.default
                node.update_arg(0, graph.call_function(back, (codes, *both, *_BYTE, torch.float32)))

    def write(self) -> None:
        """Put the codes in place of the weight."""
        node, kind = self.product.node, self.product.kind
        site, graph = self.product.site, self.module.graph
        target = self.request.format_of(site).weight
        with graph.inserting_before(node):
            if kind == "unpacked":
                node.update_arg(1, self._constant("weight", self.request.quantized.weight(site, target)))
                return
            codes, scale = stored(self.request, site, kind)
            weight = self._weight(codes, scale, 4 if target.container_bits == 4 else 8)
            if kind in ("integer", "per token"):
                node.update_arg(1, weight)
                return
            value = node.args[0]
            if node.target in _CONVOLUTIONS:
                value = self._patches(value)
            found = graph.call_function(_LINEAR, (value, weight))
            bias = _bias(self.product)
            if bias is not None:
                found = graph.call_function(_ATEN.add.Tensor, (found, bias))
            if node.target in _CONVOLUTIONS:
                found = graph.call_function(_ATEN.permute.default, (found, [0, 3, 1, 2]))
        node.replace_all_uses_with(found)
        graph.erase_node(node)

    def _weight(self, codes: Tensor, scale: Tensor, bits: int) -> fx.Node:
        zeros = self._constant("zero", torch.zeros(len(scale), dtype=torch.int64))
        held = self._constant("codes", codes), self._constant("scale", scale)
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        arguments = (*held, zeros, 0, low, high, torch.int8)
        return self.module.graph.call_function(OPERATORS.dequantize_per_channel.default, arguments)

    def _patches(self, value: Any) -> Any:
        """The input of a convolution as [batch, height, width, kernel x channels]."""
        node, call = self.product.node, self.module.graph.call_function
        stride, dilation = (_pair(_argument(node, position, 1)) for position in (3, 5))
        kernel = self.product.site.weight_shape[2:]
        top, left, bottom, right = _padding(_argument(node, 4, 0), kernel, dilation)
        value = call(_ATEN.permute.default, (value, [0, 2, 3, 1]))
        if any((top, left, bottom, right)):  # after the permutation: executorch would pad the codes of a rounded input
            value = call(_ATEN.constant_pad_nd.default, (value, [0, 0, left, right, top, bottom], 0.0))
        height, width = node.meta["val"].shape[2:]
        if tuple(kernel) == (1, 1) and stride == (1, 1):
            return value
        parts = []
        for row in range(kernel[0]):
            for column in range(kernel[1]):
                part = value
                for axis, start, step, size in (
                    (1, row * dilation[0], stride[0], height),
                    (2, column * dilation[1], stride[1], width),
                ):
                    part = call(_ATEN.slice.Tensor, (part, axis, start, start + step * (size - 1) + 1, step))
                parts.append(part)
        return call(_ATEN.cat.default, (parts, 3)) if len(parts) > 1 else parts[0]

    def _constant(self, name: str, tensor: Tensor) -> fx.Node:
        name = f"{self.prefix}_{name}"
        self.module.register_buffer(name, tensor.detach().clone().contiguous())
        return self.module.graph.get_attr(name)


def stored(request: ExportRequest, site: Site, kind: str) -> tuple[Tensor, Tensor]:
    """Codes and scales of a site as a graph holds them.

    Args:
        request: configuration and calibration.
        site: in a narrow format.
        kind: of its products; packed convolutions are matrices.

    Returns:
        int8 codes of the weight's shape, or [channels, kernel x inputs]; float32 scales [channels].
    """
    weight = request.model.get_parameter(site.parameter)
    quantized = request.quantized.calibration.quantize(site, weight, request.format_of(site).weight)
    codes = quantized.codes
    if kind == "packed" and codes.ndim == 4:
        codes = codes.permute(0, 2, 3, 1).flatten(1)
    return codes.contiguous(), quantized.scale.float()


def _bias(product: Product) -> fx.Node | None:
    bias = _argument(product.node, 2, None)
    assert bias is None or isinstance(bias, fx.Node)
    return bias


def _argument(node: fx.Node, position: int, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else default


def _pair(value: Any) -> tuple[int, int]:
    both = (value, value) if isinstance(value, int) else tuple(value)
    return (both[0], both[-1])


def _padding(given: Any, kernel: tuple[int, ...], dilation: tuple[int, int]) -> tuple[int, int, int, int]:
    """Rows above, columns left, rows below, columns right."""
    if given == "valid":
        return 0, 0, 0, 0
    if given == "same":
        rows, columns = (step * (size - 1) for step, size in zip(dilation, kernel, strict=True))
        return rows // 2, columns // 2, rows - rows // 2, columns - columns // 2
    rows, columns = _pair(given)
    return rows, columns, rows, columns


def _tensor(module: nn.Module, name: str) -> Tensor | None:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, None)
    return value if isinstance(value, Tensor) else None
