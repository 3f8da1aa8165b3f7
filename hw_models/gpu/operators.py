"""Operators outside the sites on a GPU: one kernel for each that moves its tensors once, timed by the element-wise law.

Which operators there are is what tracing recorded, with pointwise ones fused into the operator before them (as TensorRT
and inductor do): softmax, normalization over features, pooling, the two products of attention, copies that transpose. A
product between activations (attention) is taken to be bound by its bytes, which holds for short sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...activations import ActivationGraph
from ...space import SearchSpace
from .elementwise import ElementwiseLaw

#: Relative standard deviation of that time: assumed; nothing outside the sites was measured.
OPERATOR_SIGMA = 0.5


@dataclass(frozen=True)
class Operators:
    """What runs outside the sites.

    Attributes:
        kernels: how many.
        ms: their time in all.
        sigma: its standard deviation.
    """

    kernels: int
    ms: float
    sigma: float


def operators(space: SearchSpace, law: ElementwiseLaw, batch: int = 1) -> Operators | None:
    """The operators outside the sites, or ``None`` where tracing did not record them.

    Args:
        space: traced sites.
        law: of the device's element-wise kernels.
        batch: samples per forward pass.
    """
    if space.activations is None:
        return None
    moved = bytes_outside(space.activations, {path for site in space.sites for path in site.modules}, batch)
    ms = float(law.ms(np.array(list(moved.values()), dtype=np.float64)).sum()) if moved else 0.0
    return Operators(len(moved), ms, OPERATOR_SIGMA * ms)


def bytes_outside(graph: ActivationGraph, modules: set[str], batch: int) -> dict[int, float]:
    """Step -> bytes that it reads and writes, for the steps that no site computes.

    Floating-point tensors are counted in 16 bits.

    Args:
        graph: of the forward pass.
        modules: paths of the modules of the sites.
        batch: samples per forward pass.
    """
    moved: dict[int, float] = {}
    inside = {read.step for each in graph.activations for read in each.reads if read.module in modules}
    for each in graph.activations:
        scale = (batch / graph.samples if each.per_sample else 1.0) * (2 if each.width == 4 else each.width)
        moved[each.made] = moved.get(each.made, 0.0) + scale * each.elements
        for read in each.reads:
            moved[read.step] = moved.get(read.step, 0.0) + scale * read.elements
    return {step: size for step, size in moved.items() if 0 <= step < graph.steps and step not in inside}
