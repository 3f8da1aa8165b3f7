r"""What enters the layers: statistics of the input element that every weight is multiplied with; forward passes only.

With x the rows that the weight matrix of a site is multiplied with (tokens, patches of a convolution, rows with a
single one for an embedding), the weights of column i meet

.. math:: \mathrm{activation}_i = \sqrt{E[x_i^2]}, \qquad \mathrm{activation\_mean}_i = E[x_i]

over all tokens or positions and all modules that share the weight. ``activation_error`` is the mean squared error of
rounding one element of the input, 0 where a format leaves it alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ...evaluators.float_run import first_tensor
from ...evaluators.reconstruction import Blocks
from ...evaluators.reconstruction.rows import call_rows
from ..activation_aware import ActivationAware, sums_of_squares
from ..layer_calls import LayerCall, activation_columns, pieces, visit
from .collect_context import NAME, Context, joined
from .collect_draw import Block

_BATCH = 8  # samples run at a time


def collect_inputs(context: Context, wanted: frozenset[str]) -> dict[str, np.ndarray]:
    """``activation``, ``activation_mean`` and ``activation_error``; see the module docstring."""
    aligned = bool(wanted & {"activation", "activation_mean"})
    moments = [_Moments(context, row) for row in range(len(context.space.sites))]
    errors = np.zeros((len(context.space.sites), len(context.space.formats)))
    elements = np.zeros(len(context.space.sites))

    def add_error(call: LayerCall) -> None:
        value = call.value
        if value is None:
            return
        elements[call.row] += value.numel()
        for target, columns in activation_columns(context.quantized, call.row, call.module).items():
            rounded = context.quantized.rule(call.module, target)[1](value)
            errors[call.row, columns] += float((rounded - value).double().square().sum())

    def seen(call: LayerCall) -> None:
        if aligned:
            moments[call.row].add(call)
        if "activation_error" in wanted:
            add_error(call)

    for batch in pieces(context.task, context.samples, _BATCH, NAME):
        visit(context.task, context.space, batch, seen)
        context.forward += len(batch)
        context.step(len(batch))
    found = {"activation_error": errors / np.maximum(elements, 1)[:, None]}
    if aligned:
        pairs = [each.drawn() for each in moments]
        found["activation"] = joined([root for root, _ in pairs])
        found["activation_mean"] = joined([mean for _, mean in pairs])
    return found


def collect_output_errors(context: Context, wanted: frozenset[str]) -> dict[str, np.ndarray]:
    """``output_error``: the scores of the proxy ``activation_aware``."""
    proxy = ActivationAware(context.samples, _BATCH)
    scores = proxy.score(context.task, context.space, context.calibration, seed=context.seed, advance=None)
    context.forward += scores.forward_passes
    context.step(scores.forward_passes)
    return {"output_error": np.where(context.space.allowed, scores.values, 0.0)}


class _Moments:
    """Sums and sums of squares of what one weight is multiplied with."""

    def __init__(self, context: Context, row: int) -> None:
        self.block: Block = context.blocks[row]
        self.parameter = context.task.model.get_parameter(self.block.site.parameter)
        channels, _ = self.block.matrix_shape
        self.looked_up = torch.zeros(channels, dtype=torch.float64, device=self.parameter.device)
        self.sums: dict[Blocks, tuple[Tensor, Tensor]] = {}
        self.seen = 0

    def add(self, call: LayerCall) -> None:
        """Add one call."""
        if isinstance(call.layer, nn.Embedding):
            index = first_tensor(call.args, call.kwargs)
            if index is not None:
                self.looked_up += torch.bincount(index.flatten().long(), minlength=len(self.looked_up))
                self.seen += index.numel()
            return
        blocks = Blocks.of(call.layer, self.parameter)
        found = call_rows(call.layer, self.parameter, call.args, call.kwargs, call.output)
        if blocks not in self.sums:
            width = blocks.split(self.block.matrix(self.parameter.detach())).shape[2]
            zeros = torch.zeros(blocks.count, width, dtype=torch.float64, device=self.parameter.device)
            self.sums[blocks] = zeros, zeros.clone()
        first, second = self.sums[blocks]
        for rows in found:
            part = slice(rows.first, rows.first + rows.blocks)
            total = rows.windows.sum(dim=tuple(range(rows.axes)), dtype=torch.float64)
            first[part] += total.reshape(rows.blocks, -1)
            second[part] += sums_of_squares(rows).reshape(rows.blocks, -1)
        self.seen += len(found[0])

    def drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """Root mean square and mean of the input element that each drawn weight meets."""
        shape = self.block.matrix_shape
        counts = self.looked_up[:, None].expand(shape)
        first, second = (
            self.block.of_matrix(
                counts + sum(_spread(blocks, pair[power], shape) for blocks, pair in self.sums.items())
            )
            for power in (0, 1)
        )
        many = max(1, self.seen)
        return (second / many).sqrt().cpu().numpy(), (first / many).cpu().numpy()


def _spread(blocks: Blocks, sums: Tensor, shape: tuple[int, int]) -> Tensor:
    """Sums [blocks, elements of a block], one for each weight of the matrix [channels, elements]."""
    channels = shape[0] if blocks.across else shape[0] // blocks.count
    return blocks.join(sums[:, None].expand(-1, channels, -1))
