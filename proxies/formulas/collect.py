"""Statistics of the sites of a model: what formulas are built from, drawn and recorded once.

==================  =============  ==================================================================  =============
input               for each       what                                                                needs
==================  =============  ==================================================================  =============
weight              element        the drawn weights                                                   nothing
error               element, fmt   Q(W) - W                                                            nothing
weight_error        site, format   squared error over the whole weight                                 nothing
weight_deviation,   site           standard deviation and largest magnitude of the weights             nothing
weight_max
kurtosis, entropy   site           of the weights; entropy in bits of a histogram of 256 bins          nothing
elements, macs      site           weights; multiply-accumulates of a sample                           nothing
depth               site           position in the order of execution, 0 to 1                          nothing
fan_in, fan_out     site           elements behind an output channel; output channels                  nothing
input_elements,     site           elements of the activation that enters and leaves, of a sample      nothing
output_elements
bits                format         nominal bits of a weight                                            nothing
activation_bits     format         of an input activation; where a format leaves it alone, the width   nothing
                                   that the model's weights have (32 or 16)
noise_bits          format         both as one quantizer (``bit_weighted``)                            nothing
size                site, format   bytes on disk                                                       nothing
activation,         element        root mean square and mean of the input that the weight meets        forward
activation_mean
activation_error    site, format   mean squared error of rounding an element of the input              forward
output_error        site, format   the proxy ``activation_aware``                                      forward
gradient, …         element        see ``collect_gradients``                                           backward
fisher_trace        site           ``fisher`` added up over the whole weight                           backward
virtual_gradient    element        for an input of ones (``collect_ones``)                             one backward
synflow             element        logarithm of the synaptic flow (``collect_ones``)                   one backward
hessian_trace,      site           over the weights; over the activation (``collect_traces``)          backward
activation_trace
==================  =============  ==================================================================  =============
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import BitfrontError, InvalidInput, NonFiniteOutput
from ...evaluators import in_eval
from ..layer_calls import pieces
from .collect_context import NAME, Collector, Context
from .collect_draw import Block, drawn_blocks, shapes
from .collect_gradients import collect_gradients
from .collect_inputs import collect_inputs, collect_output_errors
from .collect_layers import collect_layers
from .collect_ones import collect_synflow, collect_virtual_gradient
from .collect_traces import BATCH, PROBES, collect_traces
from .collect_weights import collect_errors, collect_weights
from .statistics import SiteStatistics

if TYPE_CHECKING:
    from ...evaluators import Calibration
    from ...space import SearchSpace
    from ...task import Task
    from ..sensitivity import Advance

_COLLECTORS: tuple[tuple[Collector, dict[str, tuple[str, ...]]], ...] = (
    (
        collect_weights,
        {"tensors": ("weight",), "scalars": ("weight_deviation", "weight_max", "kurtosis", "entropy")},
    ),
    (collect_errors, {"format_tensors": ("error",), "format_scalars": ("weight_error",)}),
    (
        collect_layers,
        {
            "scalars": ("elements", "macs", "depth", "fan_in", "fan_out", "input_elements", "output_elements"),
            "format_scalars": ("bits", "activation_bits", "noise_bits", "size"),
        },
    ),
    (collect_inputs, {"tensors": ("activation", "activation_mean"), "format_scalars": ("activation_error",)}),
    (collect_output_errors, {"format_scalars": ("output_error",)}),
    (
        collect_gradients,
        {
            "tensors": ("gradient", "gradient_magnitude", "fisher", "hessian_diagonal", "output_gradient"),
            "scalars": ("fisher_trace",),
        },
    ),
    (collect_virtual_gradient, {"tensors": ("virtual_gradient",)}),
    (collect_synflow, {"tensors": ("synflow",)}),
    (collect_traces, {"scalars": ("hessian_trace", "activation_trace")}),
)

INPUTS: Mapping[str, str] = {name: kind for _, kinds in _COLLECTORS for kind, names in kinds.items() for name in names}
"""Every input of a formula that can be collected -> its kind, as ``SiteStatistics.names``."""


@dataclass(frozen=True, eq=False)
class Collected:
    """Statistics, and what they took.

    Attributes:
        statistics: of the sites.
        left_out: input -> why this model does not have it.
        forward_passes: samples run forward.
        backward_passes: samples run backward.
        seconds: wall time.
    """

    statistics: SiteStatistics
    left_out: dict[str, str]
    forward_passes: int
    backward_passes: int
    seconds: float


def collect(
    task: Task,
    space: SearchSpace,
    calibration: Calibration,
    *,
    seed: int,
    inputs: Collection[str] | None = None,
    elements: int = 1024,
    samples: int = 32,
    advance: Advance | None = None,
) -> SiteStatistics:
    """The statistics of ``collected`` alone.

    Raises:
        BitfrontError: as ``collected``.
    """
    found = collected(
        task, space, calibration, seed=seed, inputs=inputs, elements=elements, samples=samples, advance=advance
    )
    return found.statistics


def collected(
    task: Task,
    space: SearchSpace,
    calibration: Calibration,
    *,
    seed: int,
    inputs: Collection[str] | None = None,
    elements: int = 1024,
    samples: int = 32,
    advance: Advance | None = None,
) -> Collected:
    """Record what formulas are built from; see the module docstring. Only calibration data is used.

    Args:
        task: model and calibration data.
        space: sites and formats.
        calibration: scales and ranges.
        seed: of the drawn elements and of random gradients.
        inputs: names of ``INPUTS``; what they do not need is not run. Default: all that this model has.
        elements: drawn from every weight, about; smaller weights are taken whole.
        samples: calibration samples at most, in every pass.
        advance: told about what was done, of ``collect_steps``.

    Returns:
        The statistics, what this model does not have, and the passes that it took.

    Raises:
        InvalidInput: an unknown input, or no element or sample.
        BitfrontError: an input that was asked for by name cannot be had of this model; without ``inputs`` it is left
            out with the reason.
    """
    if samples < 1:
        raise InvalidInput(f"samples={samples}: collect statistics over at least 1 calibration sample")
    wanted = frozenset(INPUTS if inputs is None else _known(inputs))
    started = time.perf_counter()
    blocks = drawn_blocks(space, elements, seed)
    context = Context(task, space, calibration, blocks, seed, samples, advance)
    found: dict[str, np.ndarray] = {}
    left_out: dict[str, str] = {}
    with in_eval(task.model):
        for collector, kinds in _COLLECTORS:
            names = wanted & {name for part in kinds.values() for name in part}
            if not names:
                continue
            try:
                values = collector(context, names)
            except BitfrontError as cause:
                if inputs is not None:
                    raise
                left_out.update(dict.fromkeys(sorted(names), str(cause)))
                continue
            for name in sorted(names):
                reason = _infinite(space, blocks, name, values[name])
                if reason and inputs is not None:
                    raise NonFiniteOutput(reason)
                if reason:
                    left_out[name] = reason
                else:
                    found[name] = values[name]
    of_kind = {
        kind: {name: found[name] for name in INPUTS if name in found and INPUTS[name] == kind}
        for kind in ("tensors", "format_tensors", "scalars", "format_scalars")
    }
    whole = np.array([site.elements for site in space.sites], dtype=np.int64)
    statistics = SiteStatistics(tuple(space.names), space.formats, space.allowed, shapes(blocks), whole, **of_kind)
    return Collected(statistics, left_out, context.forward, context.backward, time.perf_counter() - started)


def collect_steps(task: Task, space: SearchSpace, inputs: Collection[str] | None = None, samples: int = 32) -> int:
    """Upper bound of what ``advance`` of ``collected`` adds up to, for progress bars."""
    wanted = frozenset(INPUTS if inputs is None else _known(inputs))
    count = min(samples, task.samples("calibration"))
    steps: dict[Collector, int] = {
        collect_errors: len(space.sites),
        collect_inputs: count,
        collect_output_errors: count,
        collect_gradients: count,
        collect_virtual_gradient: 1,
        collect_synflow: 1,
        collect_traces: 2 * PROBES * len(pieces(task, samples, BATCH, NAME)),
    }
    return sum(
        steps.get(collector, 0)
        for collector, kinds in _COLLECTORS
        if wanted & {name for part in kinds.values() for name in part}
    )


def _known(inputs: Collection[str]) -> list[str]:
    """The names, if all are known."""
    for name in inputs:
        if name not in INPUTS:
            near = difflib.get_close_matches(name, INPUTS, n=1, cutoff=0.0)
            raise InvalidInput(f"unknown input {name!r}; did you mean {near[0]!r}? Known: {', '.join(INPUTS)}")
    return list(inputs)


def _infinite(space: SearchSpace, blocks: list[Block], name: str, values: np.ndarray) -> str:
    """Where the values of an input are not finite; empty if they are."""
    bad = ~np.isfinite(values)
    if not bad.any():
        return ""
    of_elements = INPUTS[name] in ("tensors", "format_tensors")
    owner = np.repeat(np.arange(len(blocks)), shapes(blocks).prod(axis=1)) if of_elements else np.arange(len(blocks))
    where = bad.reshape(-1, len(owner)).any(axis=0) if of_elements else bad.reshape(len(owner), -1).any(axis=1)
    return f"{name} is NaN or infinite at site {space.sites[int(owner[where.argmax()])].name}"
