"""Terms of a space from its timed kernels, its graph and the operators outside its sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...space import SearchSpace, Site
from ..kernels import Kernel, is_pointwise
from .graph import SiteGraph
from .terms import CODES, FALLBACK, FLOAT, HALF, INTEGER, KERNELS, KINDS, LAYOUT, OTHER, PARTS, ROUNDED, UNFUSED, Terms


@dataclass(frozen=True)
class KernelCost:
    """One call of a kernel, in milliseconds.

    Attributes:
        kernel: what runs.
        ms: its median time.
        sigma: standard deviation of that.
        conversion: conversions of layout and type that like neighbours make unnecessary; not part of ``ms``.
        instead: time of what runs in place of an integer convolution whose output is not rounded
            (``kernels.unfused``); ``None`` for other kernels.
        instead_conversion: conversions of layout around that one.
    """

    kernel: Kernel
    ms: float
    sigma: float
    conversion: float
    instead: float | None = None
    instead_conversion: float = 0.0


Costs = Mapping[tuple[str, str], KernelCost]


def kind_of(kernel: Kernel) -> int:
    """Index into ``KINDS``."""
    if kernel.weight_format == "int8":
        return INTEGER
    return {"uint8": ROUNDED, "bf16": HALF, "fp16": HALF}.get(kernel.activation_format, FLOAT)


def terms_of(space: SearchSpace, costs: Costs, graph: SiteGraph, other_ms: float) -> Terms:
    """What every configuration is made of.

    A layer that takes its input in another layout or type than its neighbour leaves it pays the conversion. A kernel's
    row holds the conversions on both of its sides together; they are shared out by the elements of input and output.

    Args:
        space: the sites.
        costs: (site name, format name) -> its kernel.
        graph: which site feeds which.
        other_ms: time of a call and of the operators outside the sites.

    Returns:
        The terms.
    """
    unary = np.zeros((len(PARTS), len(space.sites), len(space.formats)))
    kinds = np.zeros((len(space.sites), len(space.formats)), np.int64)
    unfused = np.zeros((len(PARTS), len(space.sites)))
    sides = [_Sides.of(site, costs) for site in space.sites]
    for row, (site, side) in enumerate(zip(space.sites, sides, strict=True)):
        for name in site.formats:
            cost, column = costs[site.name, name], space.formats.index(name)
            kind = kind_of(cost.kernel)
            kinds[row, column] = kind
            unary[KERNELS[kind], row, column] = site.calls * cost.ms
            unary[:, row, column] += _at_ends(side, kind, graph.ends[row])
            if kind == INTEGER:
                unfused[:, row] = _unfused(site, cost, side)
    constant = np.zeros(len(PARTS))
    constant[OTHER] = other_ms
    pair = np.zeros((len(PARTS), len(graph.edges), len(KINDS), len(KINDS)))
    for number, ((source, reader), share) in enumerate(zip(graph.edges, graph.share, strict=True)):
        pair[:, number] = _crossing(sides[source], sides[reader], float(share), bool(graph.leaks[source]))
    return Terms(constant, unary, kinds, graph.edges, pair, graph.readers, graph.leaks, unfused)


@dataclass(frozen=True)
class _Sides:
    """Conversions on the two sides of a site, in milliseconds, and the elements of its input and output."""

    elements_in: int
    elements_out: int
    enter_layout: float
    leave_layout: float
    enter_codes: float
    leave_codes: float
    pointwise: bool

    @staticmethod
    def of(site: Site, costs: Costs) -> _Sides:
        found = [costs[site.name, name] for name in site.formats]
        layout = max([_layout(cost) for cost in found], default=0.0) * site.calls
        codes = max([cost.conversion for cost in found if kind_of(cost.kernel) == INTEGER], default=0.0) * site.calls
        inputs, outputs = (int(np.prod(shape, dtype=np.int64)) for shape in (site.input_shape, site.output_shape))
        share = inputs / max(inputs + outputs, 1)
        sides = (layout * share, layout * (1 - share), codes * share, codes * (1 - share))
        return _Sides(inputs, outputs, *sides, pointwise=is_pointwise(found[0].kernel))


def _layout(cost: KernelCost) -> float:
    """Conversions to and from the layout of float convolutions."""
    if kind_of(cost.kernel) == INTEGER:
        return cost.instead_conversion
    return cost.conversion


def _at_ends(side: _Sides, kind: int, ends: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Conversions where no site is before, or none after."""
    parts = np.zeros(len(PARTS))
    if kind in (FLOAT, ROUNDED):
        parts[LAYOUT] = ends[0] * side.enter_layout + ends[1] * side.leave_layout
    if kind == INTEGER:
        parts[CODES] = ends[0] * side.enter_codes
    return parts


def _unfused(site: Site, cost: KernelCost, side: _Sides) -> NDArray[np.float64]:
    """What an integer convolution pays on top where its output is not rounded.

    Both kernels that run instead round their input themselves, which the edges have counted.
    """
    parts = np.zeros(len(PARTS))
    if cost.instead is None:
        return parts
    more = site.calls * (cost.instead - cost.ms) - side.enter_codes
    if side.pointwise:  # between two transpositions, about as long as a change of layout
        parts[UNFUSED] = more + side.leave_layout
    else:
        parts[FALLBACK] = more + side.enter_layout
    return parts


def _crossing(source: _Sides, reader: _Sides, share: float, leaks: bool) -> NDArray[np.float64]:
    """Array [parts, kinds, kinds]: conversions on an edge, by the kinds of source and reader.

    A float convolution reads and leaves the blocked layout; one on a cast input does both its own conversions, of
    which the last is saved before a reader of that layout; one on a rounded input reads plain and leaves blocked.
    An integer convolution leaves codes where all readers round; unfused it leaves floats, plain if it is pointwise and
    else (being a float convolution then) blocked.
    """
    parts = np.zeros((len(PARTS), len(KINDS), len(KINDS)))
    part = min(1.0, reader.elements_in / max(source.elements_out, 1))  # pooling lies between
    leave, enter = share * part * source.leave_layout, share * reader.enter_layout
    codes = share * reader.enter_codes
    layout, coded = parts[LAYOUT], parts[CODES]
    blocked = [FLOAT, ROUNDED] if source.pointwise or source.leave_codes == 0 else [FLOAT, ROUNDED, INTEGER]
    for kind in blocked:
        layout[kind, [HALF, ROUNDED, INTEGER]] += leave
    layout[HALF, FLOAT] -= leave
    layout[:, ROUNDED] += enter
    if INTEGER not in blocked:
        layout[INTEGER, FLOAT] += enter
    coded[:, INTEGER] += codes
    if not leaks:  # the codes go on as they are
        layout[INTEGER, INTEGER] = coded[INTEGER, INTEGER] = 0.0
        layout[INTEGER, ROUNDED] = enter
        coded[INTEGER, ROUNDED] = share * part * source.leave_codes
    return parts
