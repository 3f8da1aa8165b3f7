r"""Entropy: the information that rounding takes from the activation and the weight of a site, in bits.

.. math::
    s[l, f] = \bigl[ H(a_l) - H(Q_f(a_l)) \bigr]_+ + \bigl[ H(W_l) - H(q_f(W_l)) \bigr]_+, \qquad
    H = -\sum_j p_j \log_2 p_j

H(a) is the entropy of the histogram of the activation that enters the site over the calibration data; both histograms
have the same bins, and the first term is there where the format rounds the activation. After the accuracy half of the
search score of Tao et al. 2024, QuantMCU, arXiv:2401.13714 (value-driven quantization search), which rounds feature
maps only, and weighs the change of their entropy against the bit operations saved; those are a price here
(``hw_models``), not a loss. The number of bins and the cut at zero are ours.

The second term is ours, so that weight-only formats are told apart: q_f(W) are the codes, W is binned after each output
channel was divided by its largest magnitude, which is what scales per channel do. Codes that stand for the same value
under different scales are one symbol, so finer groups do not count as more information.

It ranks: entropy says how many values are told apart, not what the network does with them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput, NonFiniteOutput
from ..evaluators import QuantizedModel
from ..evaluators.quantizers import Layout
from ..formats import Format, TensorFormat
from .layer_calls import LayerCall, activation_columns, pieces, visit
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace, Site
    from ..task import Task


class Entropy:
    """Entropy lost by rounding activations and weights.

    Args:
        samples: calibration samples that run forward (twice: ranges, then histograms); none where no format rounds
            activations.
        batch: samples run at a time.
        bins: of the histograms; what rounding loses is counted down from log2(bins) bits at most.
    """

    name = "entropy"
    summary = "QuantMCU: entropy that rounding takes from activations and weights; forward passes only"
    additive = False
    gradients = 0
    source = "Tao et al. 2024 (QuantMCU), arXiv:2401.13714; the term of the weights is ours"

    def __init__(self, samples: int = 64, batch: int = 16, bins: int = 2048) -> None:
        self.samples = samples
        self.batch = batch
        self.bins = bins

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Sites, and batches twice."""
        return len(space.sites) + 2 * len(pieces(task, self.samples, self.batch, self.name))

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring. The seed is not used: nothing is random.

        Raises:
            InvalidInput: fewer than one sample, one a batch, or two bins.
            UnsupportedModel: the model does not accept the calibration data.
            NonFiniteOutput: an activation is NaN or infinite.
        """
        started = time.perf_counter()
        if self.bins < 2:
            raise InvalidInput(f"entropy needs at least 2 bins, got {self.bins}")
        quantized = QuantizedModel(task.model, space, calibration, cache_bytes=0)
        values = np.full((len(space.sites), len(space.formats)), np.nan)
        for row, site in enumerate(space.sites):
            weight = task.model.get_parameter(site.parameter).detach()
            lost = {
                name: self._weight_loss(site, weight, calibration, Format.parse(name).weight) for name in site.formats
            }
            for column, name in enumerate(space.formats):
                if site.offers(name):
                    values[row, column] = lost[name]
            if advance:
                advance(1)
        histograms = _Histograms(quantized, self.bins)
        batches = pieces(task, self.samples, self.batch, self.name) if histograms.columns else []
        for seen in (histograms.widen, histograms.count):
            for batch in batches:
                visit(task, space, batch, seen)
                if advance:
                    advance(1)
        values = values + histograms.losses()
        seconds, count = time.perf_counter() - started, 2 * sum(len(batch) for batch in batches)
        return Sensitivity(self.name, values, None, tuple(space.names), space.formats, seconds, count, additive=False)

    def _weight_loss(self, site: Site, weight: Tensor, calibration: Calibration, target: TensorFormat) -> float:
        if target.is_wide:
            return 0.0
        matrix = Layout.of(weight, target, site.channel_axis).matrix(weight.float())
        scaled = matrix / matrix.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        whole = entropy(torch.histc(scaled, self.bins, -1.0, 1.0))
        codes = calibration.quantize(site, weight, target).codes
        return max(0.0, whole - entropy(torch.bincount(codes.flatten().long() + 128)))


class _Histograms:
    """Histograms of the activations that some format rounds, before and after."""

    def __init__(self, quantized: QuantizedModel, bins: int) -> None:
        self.quantized = quantized
        self.bins = bins
        space = quantized.space
        self.columns = {
            (row, module): found
            for row, site in enumerate(space.sites)
            for module in site.modules
            if (found := activation_columns(quantized, row, module))
        }
        self.ends: dict[int, tuple[float, float]] = {}
        self.plain: dict[int, Tensor] = {}
        self.rounded: dict[tuple[int, TensorFormat], Tensor] = {}

    def widen(self, call: LayerCall) -> None:
        """First pass: the range of every site."""
        value = call.value
        if value is None or not value.numel() or (call.row, call.module) not in self.columns:
            return
        low, high = (float(end) for end in value.aminmax())
        if not np.isfinite([low, high]).all():
            name = self.quantized.space.sites[call.row].name
            raise NonFiniteOutput(f"proxy entropy: what enters {name} is NaN or infinite")
        known = self.ends.get(call.row, (low, high))
        self.ends[call.row] = min(low, known[0]), max(high, known[1])

    def count(self, call: LayerCall) -> None:
        """Second pass: what falls into every bin."""
        value = call.value
        if value is None or call.row not in self.ends or (call.row, call.module) not in self.columns:
            return
        self.plain[call.row] = self.plain.get(call.row, 0) + self._binned(value, call.row)
        for target in self.columns[call.row, call.module]:
            key = call.row, target
            binned = self._binned(self.quantized.rule(call.module, target)[1](value), call.row)
            self.rounded[key] = self.rounded.get(key, 0) + binned

    def losses(self) -> np.ndarray:
        """Bits lost by activations [sites, formats]."""
        space = self.quantized.space
        values = np.where(space.allowed, 0.0, np.nan)
        for (row, _), columns in self.columns.items():
            for target, found in columns.items():
                if (row, target) in self.rounded:
                    lost = entropy(self.plain[row]) - entropy(self.rounded[row, target])
                    values[row, found] = max(0.0, lost)
        return values

    def _binned(self, value: Tensor, row: int) -> Tensor:
        low, high = self.ends[row]
        place = (value.float() - low) * (self.bins / max(high - low, _TINY))
        # rounding may step over the ends: those values belong to the last bins
        return torch.bincount(place.long().clamp(0, self.bins - 1).flatten(), minlength=self.bins).cpu()


_TINY = float(np.finfo(np.float32).tiny)


def entropy(counts: Tensor) -> float:
    """Entropy of a histogram in bits; 0 for an empty one."""
    occupied = counts[counts > 0].double()
    p = occupied / occupied.sum()
    return float(-(p * p.log2()).sum()) if len(p) else 0.0
