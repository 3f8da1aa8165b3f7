r"""A network as numbers: what its operations compute and move, by kind of operation.

For every kind: how many operations, their multiply-accumulates and the bytes that they read and write; and for the
whole network the roofline of machines of three balances b (multiply-accumulates per byte),

.. math:: R_b = \sum_\mathrm{op} \max\left(\frac{\mathrm{MACs}}{b},\ \mathrm{bytes}\right)

All as log(1 + x), so that a model linear in them is a product of powers in milliseconds. Choices (cells, elastic
depths, formats) are encoded one-hot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput, UnsupportedModel
from ...task import Batch

if TYPE_CHECKING:
    from torch import nn

KINDS = ("convolution", "grouped", "product", "attention", "norm", "pool", "pointwise", "lookup", "move", "other")
BALANCES = (1, 10, 100)
#: aten operations by kind, by the beginning of their names; convolutions and pointwise operations are told apart below.
_BEGINNINGS = (
    ("product", ("mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "dot")),
    ("attention", ("_scaled_dot_product", "scaled_dot_product")),
    (
        "norm",
        ("native_layer_norm", "native_group_norm", "native_batch_norm", "_native_batch_norm", "_softmax", "softmax"),
    ),
    ("pool", ("max_pool", "avg_pool", "adaptive_", "_adaptive", "mean", "sum", "amax")),
    ("lookup", ("embedding", "gather", "index")),
    ("move", ("cat", "constant_pad", "clone", "copy", "_to_copy", "upsample", "stack", "roll", "reflection_pad")),
)


@dataclass(frozen=True)
class Encoding:
    """A network as a vector.

    Attributes:
        names: of the entries, such as ``"convolution gmacs"``.
        values: float64 array [entries].
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]


def encode(module: nn.Module, example_inputs: Any) -> Encoding:
    """Encode a network by one forward pass.

    Args:
        module: any module; it runs in evaluation mode without gradients and is as before afterwards.
        example_inputs: one batch; batch size and sequence length are part of what is encoded.

    Raises:
        UnsupportedModel: the forward pass failed.
    """
    import torch

    from .operations import OperationCounter

    counter = OperationCounter()
    training = {each: each.training for each in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), counter:
            Batch.of(example_inputs)(module)
    except Exception as cause:
        reason = str(cause).strip().splitlines()[:1] or [type(cause).__name__]
        raise UnsupportedModel(
            f"{type(module).__name__} failed on the example inputs: {reason[0]}; give inputs that it accepts"
        ) from cause
    finally:
        for each, was in training.items():
            each.training = was
    names, values = [], []
    for kind in KINDS:
        mine = [each for each in counter.operations if each.kind == kind]
        for name, value in (
            ("operations", len(mine)),
            ("mmacs", sum(each.macs for each in mine) / 1e6),
            ("mb", sum(each.bytes for each in mine) / 1e6),
        ):
            names.append(f"{kind} {name}")
            values.append(math.log1p(value))
    for balance in BALANCES:
        names.append(f"roofline at {balance} macs per byte")
        values.append(math.log1p(sum(max(each.macs / balance, each.bytes) for each in counter.operations) / 1e6))
    return Encoding(tuple(names), np.array(values, dtype=np.float64))


def kind_of(name: str, pointwise: bool) -> str:
    """The kind of an aten operation; convolutions are told apart by their groups elsewhere."""
    for kind, beginnings in _BEGINNINGS:
        if name.startswith(beginnings) or ("batch_norm" in name and kind == "norm"):
            return kind
    return "pointwise" if pointwise else "other"


def encode_choices(options: Sequence[int], choices: NDArray[np.int64]) -> NDArray[np.float64]:
    """One-hot vectors of categorical choices.

    Args:
        options: how many options each gene has.
        choices: int array [architectures, genes].

    Returns:
        float64 array [architectures, sum of options].

    Raises:
        InvalidInput: a choice is out of range, or the shapes do not match.

    >>> encode_choices([2, 3], np.array([[1, 2]])).tolist()
    [[0.0, 1.0, 0.0, 0.0, 1.0]]
    """
    choices = np.asarray(choices)
    if choices.ndim != 2 or choices.shape[1] != len(options):
        raise InvalidInput(f"choices have shape {choices.shape}; give [architectures, {len(options)}]")
    if (choices < 0).any() or (choices >= np.asarray(options)).any():
        raise InvalidInput(f"a choice is out of range; gene i takes 0 to options[i] - 1 with options={list(options)}")
    return np.concatenate([np.eye(count)[choices[:, gene]] for gene, count in enumerate(options)], axis=1)
