r"""MatMulNBits: onnxruntime's product with a 4-bit weight that stays 4-bit in memory.

The weight ``[n, k]`` is stored in blocks of ``block_size`` inputs, each with one float32 scale s and the zero-point 8,

.. math:: w = s\,(q - 8), \qquad s = \max|w| / 7.5, \qquad q \in 0 \ldots 15,

two codes in a byte, the first in the low bits; k is padded to whole blocks. (Operator ``com.microsoft.MatMulNBits``,
onnxruntime's ContribOperators.md.) ``accuracy_level`` 0 computes in the type of the input, 4 rounds the input to int8,
one scale a block, and sums integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .kernels import Kernel

if TYPE_CHECKING:
    from .cpu_kernels import LayerData

_OPSET, _IR = 21, 10
_ZERO = 8


def quantized_blocks(weight: NDArray[np.float32], block: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Round a weight to 4 bits in blocks.

    Args:
        weight: [n, k].
        block: inputs that share a scale.

    Returns:
        Codes [n, blocks, block] from 0 to 15, and scales [n, blocks].
    """
    n, k = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -k % block))).reshape(n, -1, block)
    scale = np.maximum(np.abs(padded).max(axis=2), 1e-6) / np.float32(7.5)
    codes = np.clip(np.rint(padded / scale[..., None]) + _ZERO, 0, 15).astype(np.uint8)
    return codes, scale.astype(np.float32)


def dequantized(codes: NDArray[np.uint8], scale: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """The weight [n, k] that blocks stand for."""
    wide = (codes.astype(np.float32) - _ZERO) * scale[..., None]
    rows: NDArray[np.float32] = wide.reshape(len(codes), -1)[:, :k]
    return rows


def build_nbits(kernel: Kernel, data: LayerData) -> bytes:
    """The serialized ONNX model of a 4-bit product: input ``x``, output ``y``."""
    from onnx import TensorProto, helper, numpy_helper

    attributes = dict(kernel.attributes)
    block, level = attributes["block_size"][0], attributes["accuracy_level"][0]
    weight = data.weight if kernel.channel_axis == 0 else data.weight.T
    n, k = weight.shape
    codes, scale = quantized_blocks(np.ascontiguousarray(weight), block)
    packed = codes[..., 0::2] | (codes[..., 1::2] << 4)
    tensors = [numpy_helper.from_array(packed, "codes"), numpy_helper.from_array(scale.reshape(-1), "scales")]
    product = helper.make_node(
        "MatMulNBits",
        ["x", "codes", "scales"],
        ["product" if data.bias is not None else "y"],
        domain="com.microsoft",
        K=k,
        N=n,
        bits=4,
        block_size=block,
        accuracy_level=level,
    )
    nodes = [product]
    if data.bias is not None:
        tensors.append(numpy_helper.from_array(data.bias, "bias"))
        nodes.append(helper.make_node("Add", ["product", "bias"], ["y"]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(kernel.input_shape))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    model = helper.make_model(
        helper.make_graph(nodes, "kernel", inputs, outputs, tensors),
        opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)],
        ir_version=_IR,
    )
    content: bytes = model.SerializeToString()
    return content
