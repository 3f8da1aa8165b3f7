"""A program lowered to XNNPACK, in the bytes of a ``.pte`` file.

The partitioner of executorch takes a linear layer with packed weights only if its input is rounded too. XNNPACK itself
has kernels for float inputs (``f32_qc8w``, ``f32_qc4w``), so the rule for linear layers is widened: a packed weight, no
bias, and no rounding that belongs to an integer kernel.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections import Counter
from typing import Any

from torch import fx

from ..errors import UnsupportedModel
from .executorch_graph import Program

#: Name of the method of a file that tells the kinds of its sites, as JSON.
KINDS = "bitfront_kinds"

_LEFT_OUT = ("dequantize_per_channel", "quantize_per_token", "choose_qparams")


def lowered(program: Program) -> tuple[bytes, dict[str, int]]:
    """The bytes of a file.

    Args:
        program: as ``executorch_graph.program`` makes it.

    Returns:
        The bytes, and operator -> number of nodes that XNNPACK did not take.

    Raises:
        UnsupportedModel: executorch does not lower the program, or XNNPACK does not take the product of a site.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("executorch").setLevel(logging.ERROR)
        try:
            edge = to_edge_transform_and_lower(
                program.exported,
                partitioner=[XnnpackPartitioner(configs=_configurations())],
                constant_methods={KINDS: json.dumps(program.kinds, sort_keys=True)},
                compile_config=EdgeCompileConfig(_check_ir_validity=False),
            )
            left = _left(edge.exported_program().graph)
            data = bytes(edge.to_executorch().buffer)
        except Exception as cause:
            lines = [line for line in str(cause).splitlines() if line.strip()] or [""]
            raise UnsupportedModel(
                f"executorch does not lower the model: {type(cause).__name__}: {lines[0].strip()}"
            ) from cause
    torn = [name for name in left if any(part in name for part in _LEFT_OUT)]
    if torn:
        raise UnsupportedModel(f"XNNPACK did not take the product of a site ({torn[0]} is left); take fp32 there")
    return data, left


def _left(graph: fx.Graph) -> dict[str, int]:
    names = [node.target.__name__ for node in graph.nodes if node.op == "call_function"]
    return dict(Counter(name for name in names if name != "getitem").most_common())


def _configurations() -> list[Any]:
    """The rules of the partitioner, with that for linear layers widened."""
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    from executorch.backends.xnnpack.partition.config.gemm_configs import LinearConfig
    from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
    from executorch.backends.xnnpack.utils.quant_utils import is_dequant, is_dynamic_qdq, is_quant, tag_as_implicit_q_dq

    def is_packed(node: fx.Node) -> bool:
        value, weight = node.args[:2]
        assert isinstance(value, fx.Node)
        if not is_dequant(weight) or (len(node.args) > 2 and node.args[2] is not None):
            return False
        if not is_dequant(value):
            return True
        last = node
        users = list(node.users)
        if len(users) == 1 and any(name in str(users[0].target) for name in ("relu.default", "hardtanh.default")):
            last = users[0]
        integer = len(last.users) == 1 and is_quant(next(iter(last.users)))
        four_bits = isinstance(weight, fx.Node) and weight.args[4] == -8
        return bool(not is_dynamic_qdq(value) and (four_bits or not integer))

    class PackedLinear(LinearConfig):  # type: ignore[misc]
        def get_deps(self, node: fx.Node, ep: Any) -> tuple[bool, list[fx.Node]]:
            if not is_packed(node):
                found: tuple[bool, list[fx.Node]] = super().get_deps(node, ep)
                return found
            valid, deps = self._get_weight_deps(node, ep, ConfigPrecisionType.STATIC_QUANT)
            for each in deps:
                if is_dequant(each):
                    tag_as_implicit_q_dq(each)
            return valid, deps

    return [PackedLinear if each is LinearConfig else each for each in ALL_PARTITIONER_CONFIGS]
