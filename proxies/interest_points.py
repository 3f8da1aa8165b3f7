r"""Mean distance at interest points: what one quantized site does to the outputs of several layers after it.

.. math::
    s[l, f] = \frac1N \sum_n \sum_p w_p \frac{\operatorname{mean}\, (y_p - \hat y_p)^2}
              {\operatorname{mean}\, y_p^2 + 10^{-8}}

with :math:`y_p` what point p gives for sample n in float and :math:`\hat y_p` with site l in format f. Points are
layers spread evenly over the sites in their order of execution, and the model's output as the last one. Weights:
``average``, all :math:`1 / P`; ``last``, only the output counts. This is the score of Sony's Model Compression Toolkit
(normalized MSE, ``MpDistanceWeighting.AVG`` and ``LAST_LAYER``); its own choice of points goes by the graph.

Against the distance at the output alone it also counts errors that later layers happen to cancel on these samples. It
needs no labels and no logits. All outputs at the points are held for every sample.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InvalidInput, NonFiniteOutput
from ..evaluators import FakeQuantEvaluator
from ..evaluators.float_run import first_tensor, run_float
from ..evaluators.metrics import output_tensor
from .gradient_errors import mean_and_error
from .measured_sample import seeded_sample
from .measured_sites import one_by_one, sampled_task
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Batch, Split, Task

_STABLE = 1e-8  # added to the mean square of a point, as in the Model Compression Toolkit


class InterestPoints:
    """Distance at the outputs of several layers, one site quantized at a time.

    Args:
        samples: calibration samples, drawn with the seed.
        batch: how many are run at a time; ``None``: as in the data, more where inputs are small.
        points: how many outputs are compared, the model's own included.
        weighting: ``"average"`` or ``"last"``.
    """

    name = "interest_points"
    summary = "one site quantized at a time and run: mean relative squared error at the outputs of several layers"
    additive = True
    gradients = 0
    source = "Sony Model Compression Toolkit, mixed precision, normalized MSE at interest points; no paper"

    def __init__(
        self,
        samples: int = 32,
        batch: int | None = None,
        points: int = 16,
        weighting: Literal["average", "last"] = "average",
    ) -> None:
        self.samples = samples
        self.batch = batch
        self.points = points
        self.weighting = weighting

    def steps(self, task: Task, space: SearchSpace) -> int:
        """One for every (site, format) that is offered."""
        return int(space.allowed.sum())

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring. ``forward_passes`` counts a part of a pass as one.

        Raises:
            InvalidInput: a setting is out of range.
            NonFiniteOutput: a format gives NaN or infinity.
        """
        started = time.perf_counter()
        if self.points < 1 or self.weighting not in ("average", "last"):
            raise InvalidInput(
                f"interest_points needs points of at least 1 and weighting 'average' or 'last', got {self.points}, "
                f"{self.weighting!r}"
            )
        batches = seeded_sample(task.calibration, self.samples, self.batch, seed, self.name)
        modules = [] if self.weighting == "last" else interest_points(task, space, batches[0], self.points - 1)
        evaluator = _Distances(sampled_task(task, batches, "relative_error"), space, calibration, modules)
        each, runs = one_by_one(evaluator, advance)
        values, error = mean_and_error(each)
        seconds, passes = time.perf_counter() - started, (runs + 3) * len(each)
        return Sensitivity(self.name, values, error, tuple(space.names), space.formats, seconds, passes)


def interest_points(task: Task, space: SearchSpace, batch: Batch, count: int) -> list[str]:
    """Modules of sites, spread evenly over those whose output has the samples as its first dimension.

    Args:
        task: the model.
        space: sites, in the order of execution.
        batch: an example.
        count: at most so many.
    """
    usable: dict[str, bool] = {}

    def see(name: str, output: Any) -> None:
        value = _output(output)
        usable[name] = usable.get(name, True) and value is not None and len(value) == len(batch)

    names = dict.fromkeys(name for site in space.sites for name in site.modules if name)
    with _hooked(task.model, list(names), see), torch.no_grad():
        run_float(task.model, batch, "calibration")
    found = [name for name in names if usable.get(name, False)]
    picks = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    return [found[pick] for pick in np.unique(picks)]


class _Distances(FakeQuantEvaluator):
    """Judges by the distance at the points in place of the task's metric.

    Args:
        task: its calibration data is the sample.
        space: the sites.
        calibration: scales and ranges.
        modules: points besides the output.
    """

    def __init__(self, task: Task, space: SearchSpace, calibration: Calibration, modules: Sequence[str]) -> None:
        sizes: list[int] = []
        task.model = tapped(task.model, modules, sizes)
        super().__init__(task, space, calibration)
        self._sizes = []
        for batch in task.calibration:  # their lengths may differ from batch to batch
            with torch.no_grad():
                run_float(task.model, batch, "calibration")
            self._sizes.append(list(sizes))

    def judged(self, output: Tensor, split: Split, position: int) -> NDArray[np.float64]:
        """Mean over the points of the relative squared error, float64 [samples].

        Args:
            output: what the points gave, one after the other: [samples, elements].
            split: the calibration data.
            position: of the batch.

        Raises:
            NonFiniteOutput: the output is not finite.
        """
        if not bool(torch.isfinite(output).all()):
            raise NonFiniteOutput("the quantized model gives NaN or infinity")
        wanted = self.references(split)[position]
        sizes = self._sizes[position]
        parts = zip(torch.split(output, sizes, 1), torch.split(wanted, sizes, 1), strict=True)
        found = [relative_square(given, reference) for given, reference in parts]
        return torch.stack(found).mean(0).cpu().numpy()


def relative_square(given: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error over mean square, float64 [samples], of [samples, elements]."""
    error = (given.float() - wanted.float()).square().mean(1).double()
    return error / (wanted.float().square().mean(1).double() + _STABLE)


def tapped(model: nn.Module, modules: Sequence[str], sizes: list[int]) -> nn.Module:
    """The model, returning what some modules and itself give, one after the other: [samples, elements].

    It shares modules, parameters and buffers with the model.

    Args:
        model: left as it is.
        modules: paths of submodules whose output has the samples as its first dimension.
        sizes: is filled, at every call, with how many elements of a sample each of them gave.
    """
    found = copy.copy(model)
    run = model.forward

    @functools.wraps(run)
    def forward(*args: Any, **kwargs: Any) -> Tensor:
        taken: dict[str, list[Tensor]] = {name: [] for name in modules}

        def take(name: str, output: Any) -> None:
            value = _output(output)
            assert value is not None  # it was one when the points were chosen
            taken[name].append(value.flatten(1).clone())  # an in-place activation may follow

        with _hooked(model, modules, take):
            own = output_tensor(run(*args, **kwargs)).flatten(1)
        points = [*(torch.cat(each, 1) for each in taken.values()), own]
        sizes[:] = [int(each.shape[1]) for each in points]
        return torch.cat([each.to(own.dtype) for each in points], 1)

    object.__setattr__(found, "forward", forward)
    return found


def _hooked(model: nn.Module, modules: Sequence[str], seen: Callable[[str, Any], None]) -> ExitStack:
    """Calls ``seen`` with path and output of modules, for the length of a ``with`` block."""
    stack = ExitStack()
    for name in modules:

        def hook(module: nn.Module, args: Any, output: Any, name: str = name) -> None:
            seen(name, output)

        stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)
    return stack


def _output(output: Any) -> Tensor | None:
    """The floating-point tensor that a module returns, with samples and features."""
    value = output if isinstance(output, Tensor) else first_tensor(tuple(output), {})
    return value if value is not None and value.is_floating_point() and value.ndim > 1 else None
