r"""Gradients and curvature at the drawn weights, sample by sample: one forward and one or two backward passes each.

.. math::
    \mathrm{gradient}_i = \frac1N \sum_n g_{n,i}, \qquad
    \mathrm{gradient\_magnitude}_i = \frac1N \sum_n |g_{n,i}|, \qquad
    \mathrm{fisher}_i = \frac1N \sum_n T_n g_{n,i}^2, \qquad
    \mathrm{hessian\_diagonal}_i = \frac1N \sum_n (J_n^\top s_n)_i^2

with :math:`g_n` the gradient of the mean loss over the :math:`T_n` positions of sample n. Where the objective is a loss
against labels of the data, these are the labels: the empirical Fisher. Elsewhere (``kl``, ``relative_error``,
``cosine``, whose own gradient vanishes at the float weights) labels are drawn from the model: the Fisher proper, and a
mean gradient whose expectation is zero, so that its size says how far its entries scatter. :math:`s_n` is a random root
of the curvature of the objective at the outputs (``likelihood``, source ``signs``), so ``hessian_diagonal`` is that of
the Gauss-Newton matrix, as in the proxy ``gauss_newton_diagonal``. ``fisher_trace`` adds ``fisher`` up over the whole
weight.

``output_gradient`` is the root mean square of the same back-propagated root at what leaves the layer, over samples and
positions, by output channel (by column for an embedding, whose columns are its channels; over all channels where the
rows of a weight are no channels of the module's output, as for the input projection of an attention).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ...evaluators.reconstruction.patches import Convolution, Transposed
from ..gradient_errors import check_reached
from ..likelihood import Score, Source, check_softmax, objective_has_labels, score
from ..recording import Pass, Recorder, single_samples
from .collect_context import NAME, Context, joined

_FIRST = frozenset({"gradient", "gradient_magnitude", "fisher", "fisher_trace"})
_CURVED = frozenset({"hessian_diagonal", "output_gradient"})


def collect_gradients(context: Context, wanted: frozenset[str]) -> dict[str, np.ndarray]:
    """See the module docstring.

    Raises:
        UnsupportedModel: the model cannot be differentiated.
        InvalidInput: the task has a loss of its own that is not the cross-entropy of the outputs.
    """
    task, space = context.task, context.space
    source: Source = "data" if objective_has_labels(task) else "model"
    modules = [module for site in space.sites for module in site.modules] if "output_gradient" in wanted else []
    recorder = Recorder(task.model, space, modules, outputs=True)
    generator = torch.Generator().manual_seed(context.seed)
    signs = torch.Generator().manual_seed(context.seed + 1)
    sums = _Sums(context, wanted)
    batches = single_samples(task, context.samples)
    for position, batch in enumerate(batches):
        with recorder.run(batch) as run:
            if position == 0 and (source == "model" or wanted & _CURVED):
                check_softmax(task, run.output, run.targets, NAME)
            if wanted & _FIRST:
                drawn = score(task, run.output, run.targets, source, generator)
                found = run.gradients(run.weights, drawn.seed, again=bool(wanted & _CURVED))
                sums.add_first(found, drawn)
                context.backward += 1
            if wanted & _CURVED:
                drawn = score(task, run.output, run.targets, "signs", signs)
                sums.add_curved(run, drawn)
                context.backward += 1
        context.forward += 1
        context.step()
    check_reached(task, context.quantized, sums.reached, batches[0])
    return sums.means(len(batches))


class _Sums:
    """What is added up over the samples."""

    def __init__(self, context: Context, wanted: frozenset[str]) -> None:
        self.context, self.wanted = context, wanted
        total = sum(len(block.rows) * len(block.columns) for block in context.blocks)
        names = ("gradient", "gradient_magnitude", "fisher", "hessian_diagonal")
        self.tensors = {name: np.zeros(total) for name in names if name in wanted}
        self.traces = np.zeros(len(context.blocks))
        self.outputs = [_OutputSquares(*block.matrix_shape) for block in context.blocks]
        self.reached: set[int] = set()

    def add_first(self, gradients: list[Tensor | None], drawn: Score) -> None:
        """Add the gradients of one sample."""
        self._reach(gradients)
        elements = self.context.drawn(gradients).astype(np.float64)
        for name, values in (
            ("gradient", elements * drawn.scale),
            ("gradient_magnitude", np.abs(elements) * drawn.scale),
            ("fisher", (elements * drawn.root) ** 2),
        ):
            if name in self.tensors:
                self.tensors[name] += values
        if "fisher_trace" in self.wanted:
            squares = [0.0 if each is None else float(each.double().square().sum()) for each in gradients]
            self.traces += np.array(squares) * drawn.root**2

    def add_curved(self, run: Pass, drawn: Score) -> None:
        """Add the back-propagated root of one sample."""
        calls = [call for call in run.calls if call.output is not None] if "output_gradient" in self.wanted else []
        outputs = [call.output for call in calls if call.output is not None]
        weights = run.weights if "hessian_diagonal" in self.wanted else []
        found = run.gradients([*weights, *outputs], drawn.seed)
        if weights:
            self._reach(found[: len(weights)])
            elements = self.context.drawn(found[: len(weights)]).astype(np.float64)
            self.tensors["hessian_diagonal"] += (elements * drawn.root) ** 2
        for call, gradient in zip(calls, found[len(weights) :], strict=True):
            if gradient is not None:
                self.reached.add(call.row)
                module = self.context.task.model.get_submodule(call.module)
                self.outputs[call.row].add(module, gradient, drawn.root)

    def means(self, samples: int) -> dict[str, np.ndarray]:
        """The statistics."""
        found: dict[str, np.ndarray] = {
            name: (values / samples).astype(np.float32) for name, values in self.tensors.items()
        }
        found["fisher_trace"] = self.traces / samples
        if "output_gradient" in self.wanted:
            parts = [
                block.of_matrix(each.root_mean_square()).cpu().numpy()
                for block, each in zip(self.context.blocks, self.outputs, strict=True)
            ]
            found["output_gradient"] = joined(parts)
        return found

    def _reach(self, gradients: list[Tensor | None]) -> None:
        self.reached.update(row for row, gradient in enumerate(gradients) if gradient is not None)


class _OutputSquares:
    """Squares of gradients at the outputs of one site, by row and by column of its matrix."""

    def __init__(self, channels: int, elements: int) -> None:
        self.by_row = torch.zeros(channels, 1, dtype=torch.float64)
        self.by_column = torch.zeros(1, elements, dtype=torch.float64)
        self.positions = 0.0

    def add(self, module: nn.Module, gradient: Tensor, root: float) -> None:
        """Add one call of a module in a sample."""
        axis = -1  # of the channels
        if isinstance(module, Convolution | Transposed):
            axis -= len(module.kernel_size)
        squares = (gradient.double() * root).square().movedim(axis, -1).flatten(0, -2).sum(0).cpu()
        self.positions += gradient.numel() / gradient.shape[axis]
        if isinstance(module, nn.Embedding):
            self.by_column += squares
        elif len(squares) == len(self.by_row):
            self.by_row += squares[:, None]
        else:
            self.by_row += squares.mean()

    def root_mean_square(self) -> Tensor:
        """[channels, elements]."""
        return ((self.by_row + self.by_column) / max(1.0, self.positions)).sqrt()
