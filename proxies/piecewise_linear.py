r"""Where the Hessian of an objective is its Gauss-Newton matrix, by the graph of the forward pass.

.. math:: \nabla_w^2 L(f(w)) = J^\top (\nabla_f^2 L) J + \sum_c \frac{\partial L}{\partial f_c} \nabla_w^2 f_c

The second part vanishes for the block of a weight (or an activation) in which the outputs f are piecewise linear: ReLU
networks with batch-norm in evaluation mode, every layer of them; in any network the layers behind the last
non-linearity (Botev, Ritter and Barber 2017, arXiv:1706.03662, on piecewise linear transfer functions). Blocks between
two weights need not vanish.

A weight counts as linear if every operation on the way to the outputs is linear, piecewise linear, or a product of
which only one factor depends on it. Operations that are not known here count as non-linear.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch.autograd.graph import get_gradient_edge

if TYPE_CHECKING:
    from torch import Tensor


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LINEAR = _names("""
    AccumulateGrad Add Sub Neg Alias Clone Copy ToCopy View ReshapeAlias UnsafeView AsStrided T Transpose Permute Expand
    Squeeze Unsqueeze Select Slice Split SplitWithSizes UnsafeSplit Unbind Cat Stack Repeat Flip Roll Index IndexSelect
    Gather Embedding Mean Sum Cumsum AvgPool1D AvgPool2D AvgPool3D AdaptiveAvgPool2D AdaptiveAvgPool3D ConstantPadNd
    ReflectionPad1D ReflectionPad2D ReplicationPad1D ReplicationPad2D PixelShuffle PixelUnshuffle UpsampleNearest1D
    UpsampleNearest2D UpsampleBilinear2D MaskedFill Where Im2Col Tril Triu Diagonal
""")
_PIECEWISE = _names("""
    Relu Threshold Hardtanh LeakyRelu PreluKernel Abs Clamp ClampMin ClampMax Maximum Minimum Max Min Amax
    MaxPool1DWithIndices MaxPool2DWithIndices MaxPool3DWithIndices AdaptiveMaxPool2D Hardshrink Softshrink
""")
_PRODUCTS = _names("""
    Mul Mm Bmm Mv Dot Addmm Baddbmm Addbmm Linear Convolution MkldnnConvolution CudnnConvolution NativeBatchNorm
    CudnnBatchNorm
""")


def linear_in(output: Tensor, sources: Sequence[Tensor]) -> list[bool]:
    """In which tensors the output is piecewise linear, each by itself.

    Args:
        output: of a forward pass that recorded its graph, with batch-norm in evaluation mode.
        sources: leaves or intermediate tensors of that graph.

    Returns:
        One truth value for each; ``True`` where the output does not depend on it.
    """
    bits: dict[Any, int] = {}
    for position, source in enumerate(sources):
        node = get_gradient_edge(source).node
        bits[node] = bits.get(node, 0) | 1 << position
    depends: dict[Any, int] = {}
    bad = 0
    for node in _in_order(get_gradient_edge(output).node):
        inputs = [depends[following] for following, _ in node.next_functions if following is not None]
        everything = 0
        shared = 0
        for each in inputs:
            shared |= everything & each
            everything |= each
        kind = re.sub(r"Backward\d*$", "", node.name().rsplit("::", 1)[-1])
        if kind == "Div":  # linear in what is divided, which comes first
            divisor = node.next_functions[1][0] if len(node.next_functions) > 1 else None
            bad |= depends[divisor] if divisor is not None else 0
            bad |= shared
        elif kind in _PRODUCTS and not getattr(node, "_saved_training", False):  # instance norm: statistics of its own
            bad |= shared
        elif kind not in _LINEAR and kind not in _PIECEWISE:
            bad |= everything
        depends[node] = everything | bits.get(node, 0)
    return [not bad >> position & 1 for position in range(len(sources))]


def _in_order(root: Any) -> list[Any]:
    """All nodes below a root, each after those that it was computed from."""
    order: list[Any] = []
    seen: set[Any] = set()
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((following, False) for following, _ in node.next_functions if following is not None)
    return order
