r"""Memory traffic: bytes that a forward pass reads and writes.

.. math:: Q(f) = \sum_i \frac{s_i(f_i)\,\mathrm{calls}_i}{8}
    + B_0 + \sum_v \sum_{c \in C_v(f)} \Big( b_c + \sum_{r \in R_c} b_{c,r} \Big)

Weights: s_i bits of codes, scales and zero-points, read once per call however large the batch is; a look-up reads only
the rows that it returns. B_0: all parameters outside the sites, read once. Activations: every form c of a tensor v (see
``activation_copies.py``) is written once, b_c bytes, and read by each of its readers. Nothing is taken to stay in a
cache between operations. In MB = 10^6 bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..formats import Format
from ..space import SearchSpace, Site
from .activation_copies import FLOAT, Stored
from .cost_model import Question
from .kernels import batched
from .prices import PriceTable, exact, tabulate


def weight_bytes(site: Site, format_: Format, batch: int = 1) -> float:
    """Bytes of weights and scales that one forward pass reads at a site."""
    stored = format_.stored_bits(site.weight_shape, site.channel_axis) / 8
    if site.kind == "embedding":
        returned = math.prod(batched(site.output_shape, site.samples, batch))
        return site.calls * returned * stored / site.elements
    return site.calls * stored


def weight_traffic_mb(space: SearchSpace, question: Question) -> PriceTable:
    """Megabytes of weights that one forward pass of ``question.batch`` samples reads."""
    return exact(
        space,
        "weight_traffic_mb",
        "MB",
        lambda site, format_: weight_bytes(site, format_, question.batch) / 1e6,
        f"exact: codes, scales and zero-points read once per call, rows of look-ups at batch {question.batch}; "
        "base: all other parameters once",
        base=space.fixed_bytes / 1e6,
    )


@dataclass(frozen=True)
class Traffic:
    """The exact traffic of a configuration.

    Attributes:
        stored: the tensors.
        weights: MB of weights [sites, formats].
        fixed: MB of all other parameters.
    """

    stored: Stored
    weights: NDArray[np.float64]
    fixed: float

    @staticmethod
    def of(space: SearchSpace, batch: int) -> Traffic:
        """The traffic of a space at a batch size."""
        weights = tabulate(space, lambda site, format_: weight_bytes(site, format_, batch) / 1e6)
        return Traffic(Stored.of(space, batch), weights, space.fixed_bytes / 1e6)

    def total(self, choice: NDArray[np.int64]) -> float:
        """MB read and written under a choice array [sites]."""
        moved = sum(copy.read + (copy.written if copy.made >= 0 else 0.0) for copy in self.stored.copies(choice))
        return self.fixed + float(self.weights[np.arange(len(choice)), choice].sum()) + moved / 1e6


def traffic_mb(space: SearchSpace, question: Question) -> PriceTable:
    """Megabytes of weights and activations that a forward pass of ``question.batch`` samples reads and writes.

    Where several sites read one tensor in the same form, its one writing is shared out evenly among them in ``values``;
    ``joint`` counts exactly also where their forms differ.

    Raises:
        InvalidInput: the space was made without tracing the tensors.
    """
    exactly = Traffic.of(space, question.batch)
    values, base = _shared_out(exactly.stored)
    return PriceTable(
        metric="traffic_mb",
        unit="MB",
        values=exactly.weights + np.where(space.allowed, values, np.nan),
        sigma=np.zeros_like(values),
        base=exactly.fixed + base,
        source="exact",
        provenance=(
            f"exact: weights read once per call, every tensor written once in each form that is read and read by each "
            f"reader, at batch {question.batch}; pointwise operations fused, nothing kept in caches"
        ),
        joint=exactly,
    )


def _shared_out(stored: Stored) -> tuple[NDArray[np.float64], float]:
    """MB of activations by (site, format) [sites, formats], and of operations outside the sites."""
    values, base = np.zeros(stored.bits.shape), 0.0
    for activation, factor, readers in zip(stored.graph.activations, stored.factors, stored.readers, strict=True):
        wide = factor * activation.width / 1e6
        inner = activation.made >= 0
        outside = [reader for reader in readers if reader.site < 0]
        if outside:
            base += wide * (inner * activation.elements + sum(reader.read for reader in outside))
        sites = [reader for reader in readers if reader.site >= 0]
        for reader in sites:
            for column, form in enumerate(stored.forms[reader.site]):
                if form == FLOAT:
                    written = 0.0 if outside else inner * activation.elements / len(sites)
                    values[reader.site, column] += wide * (written + reader.read)
                else:
                    kept = min(activation.elements, sum(each.elements for each in sites)) / len(sites)
                    each = factor * stored.bits[reader.site, column] / 8e6
                    values[reader.site, column] += each * (inner * kept + reader.read)
    return values, base
