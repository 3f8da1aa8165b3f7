r"""Activation-aware error: the squared error of the weights, weighted with the size of the inputs that they multiply.

.. math::
    s[l, f] = \sum_{c, i} (Q_f(W_l) - W_l)_{ci}^2 \, E[x_i^2] + \sum_{c, i} (W_l)_{ci}^2 \, E[(Q_f(x) - x)_i^2]

with W_l as a matrix [output channels c, elements i] and x the rows that it is multiplied with: tokens, or the patches
of a convolution. The second term where the format rounds the activation. It is the expected squared error of the
layer's outputs (summed over the channels, mean over tokens or positions) if neither the inputs nor their errors are
correlated. That weights which meet large inputs matter more is the observation of AWQ (Lin et al. 2023,
arXiv:2306.00978, section 3), which scales them by the mean magnitude of the input feature. OpenVINO's NNCF multiplies
an error of the weights with one statistic of the inputs of a layer (``SensitivityMetric.MEAN_ACTIVATION_VARIANCE``,
``MEAN_ACTIVATION_MAGNITUDE``, ``HESSIAN_INPUT_ACTIVATION``); there the first two take the inverse of the error, and
embeddings get the lowest rank. Here every input feature counts by itself, and x is a row of zeros with a single one
where the layer is an embedding, so that its rows count as often as the data looks them up.

It is blind to what the rest of the network does with the error: it adds up output errors of different layers.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import NonFiniteOutput
from ..evaluators import QuantizedModel
from ..evaluators.float_run import first_tensor
from ..evaluators.quantizers import Layout
from ..evaluators.reconstruction import Blocks
from ..evaluators.reconstruction.rows import Rows, call_rows
from ..formats import Format, TensorFormat
from .layer_calls import LayerCall, activation_columns, pieces, visit
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace, Site
    from ..task import Task

_CHUNK = 1 << 22  # elements added up in float32


class ActivationAware:
    """Weight error weighted with the second moment of the inputs, and input error weighted with that of the weights.

    Args:
        samples: calibration samples that run forward.
        batch: samples run at a time.
    """

    name = "activation_aware"
    summary = "weight error x mean squared input, feature by feature (AWQ, NNCF); forward passes only"
    additive = True
    gradients = 0
    source = "Lin et al. 2023 (AWQ), arXiv:2306.00978, section 3; OpenVINO NNCF, data-aware mixed precision"

    def __init__(self, samples: int = 32, batch: int = 8) -> None:
        self.samples = samples
        self.batch = batch

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Batches."""
        return len(pieces(task, self.samples, self.batch, self.name))

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring. The seed is not used: nothing is random.

        Raises:
            InvalidInput: fewer than one sample or one a batch.
            UnsupportedModel: the model does not accept the calibration data.
            NonFiniteOutput: an activation is NaN or infinite.
        """
        started = time.perf_counter()
        quantized = QuantizedModel(task.model, space, calibration, cache_bytes=0)
        moments = [_Moments(quantized, row) for row in range(len(space.sites))]
        batches = pieces(task, self.samples, self.batch, self.name)
        for batch in batches:
            visit(task, space, batch, lambda call: moments[call.row].add(call))
            if advance:
                advance(1)
        values = np.stack([each.errors() for each in moments])
        seconds, count = time.perf_counter() - started, sum(len(batch) for batch in batches)
        return Sensitivity(self.name, values, None, tuple(space.names), space.formats, seconds, count)


class _Moments:
    """Sums of squares of what one weight is multiplied with, and of the errors of rounding it."""

    def __init__(self, quantized: QuantizedModel, row: int) -> None:
        self.quantized = quantized
        self.site: Site = quantized.space.sites[row]
        self.row = row
        self.parameter = quantized.model.get_parameter(self.site.parameter)  # layers know their weight by identity
        self.weight = self.parameter.detach()
        self.inputs: dict[Blocks, Tensor] = {}
        self.errors_of: dict[TensorFormat, dict[Blocks, Tensor]] = {}
        self.looked_up = torch.zeros(self.site.weight_shape[0], dtype=torch.float64, device=self.weight.device)
        self.seen = 0
        self.columns = {module: activation_columns(quantized, row, module) for module in self.site.modules}

    def add(self, call: LayerCall) -> None:
        """Add one call."""
        if isinstance(call.layer, nn.Embedding):
            index = first_tensor(call.args, call.kwargs)
            if index is not None:
                self.looked_up += torch.bincount(index.flatten().long(), minlength=len(self.looked_up))
                self.seen += index.numel()
            return
        blocks = Blocks.of(call.layer, self.parameter)
        self.seen += self._sum(self.inputs, blocks, call, call.args, call.kwargs)
        value = call.value
        for target in self.columns[call.module] if value is not None else ():
            assert value is not None
            error = self.quantized.rule(call.module, target)[1](value) - value
            self._sum(self.errors_of.setdefault(target, {}), blocks, call, *call.entering(error))

    def _sum(self, sums: dict[Blocks, Tensor], blocks: Blocks, call: LayerCall, args: Any, kwargs: Any) -> int:
        """Add the squares of the rows of one call; how many rows there were."""
        found = call_rows(call.layer, self.parameter, args, kwargs, call.output)
        if blocks not in sums:
            width = blocks.split(self._matrix(self.weight)).shape[2]
            sums[blocks] = torch.zeros(blocks.count, width, dtype=torch.float64, device=self.weight.device)
        for rows in found:
            sums[blocks][rows.first : rows.first + rows.blocks] += sums_of_squares(rows).reshape(rows.blocks, -1)
        return len(found[0])

    def errors(self) -> np.ndarray:
        """The scores of the site [formats]."""
        space = self.quantized.space
        values = np.full(len(space.formats), np.nan)
        signal = self._matrix(self.weight).double().square()
        for column, name in enumerate(space.formats):
            if not self.site.offers(name):
                continue
            target = Format.parse(name)
            rounded = self.quantized.weight(self.site, target.weight)
            noise = self._matrix(rounded.float() - self.weight.float()).double().square()
            total = self._weighted(noise, self.inputs) + float((noise.sum(1) @ self.looked_up) if self._table else 0.0)
            if target.activation is not None:
                total += self._weighted(signal, self.errors_of.get(target.activation, {}))
            values[column] = total / max(1, self.seen)
        if not np.isfinite(values[[self.site.offers(name) for name in space.formats]]).all():
            raise NonFiniteOutput(f"proxy activation_aware: what enters {self.site.name} is NaN or infinite")
        return values

    @property
    def _table(self) -> bool:
        return bool(self.looked_up.any())

    def _weighted(self, squares: Tensor, sums: dict[Blocks, Tensor]) -> float:
        """Squares [channels, elements] times the sums of squares that they meet."""
        return sum(float((blocks.split(squares) * moment[:, None]).sum()) for blocks, moment in sums.items())

    def _matrix(self, weight: Tensor) -> Tensor:
        target = Format.parse(self.site.formats[0]).weight
        return Layout(tuple(weight.shape), self.site.channel_axis, target).matrix(weight)


def sums_of_squares(rows: Rows) -> Tensor:
    """Squares of the rows of a call, added up over all positions: float64 [elements]."""
    windows, total = rows.windows, torch.zeros(rows.elements, dtype=torch.float64, device=rows.windows.device)
    step = max(1, _CHUNK * windows.shape[0] // max(1, windows.numel()))
    for part in torch.split(windows, step):
        # the norm reads overlapping patches where they lie; squaring them first would copy each element many times
        norms = torch.linalg.vector_norm(part.float(), dim=tuple(range(rows.axes)))
        total += norms.double().square().reshape(-1)
    return total
