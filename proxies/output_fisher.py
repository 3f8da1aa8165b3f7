r"""Fisher-weighted output error: what a format does to the output of the layer, weighted with squared gradients there.

.. math::
    s[l, f] = \frac1{2 N} \sum_n T_n \sum_j \Bigl( \frac{\partial \ell_n}{\partial y_j} \Bigr)^2
              (y_{f,j} - y_j)^2, \qquad y_f = \operatorname{layer}(Q_f(a_l); Q_f(W_l))

with l_n the mean loss over the T_n positions of sample n and y the outputs of the modules of site l on the float
model's own activations a_l. It is the second-order Taylor term of the loss in y with the diagonal Fisher in place of
the Hessian. NVIDIA Model Optimizer, ``auto_quantize(method="gradient")``, whose score is the sum without the factors;
the layer-output expansion follows Li et al. 2021, BRECQ, arXiv:2102.05426, eq. 10.

Against the weight-wise Fisher proxies it sees how the errors of the weights of one output add up on real activations,
correlations included; it neglects those between outputs. Each (site, format) costs one more run of its layer a sample.
Corrected biases of the calibration are part of the format.

Labels: those of the data where the objective is a loss against them; for ``kl``, ``relative_error`` and ``cosine``,
whose gradient vanishes at the float weights, the expectation is over labels of the model, estimated with random signs
(``likelihood``). ``labels`` forces one or the other.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import NonFiniteOutput
from ..evaluators import QuantizedModel
from ..evaluators.float_run import first_tensor
from ..evaluators.quantized_model import rounding_hook
from .gradient_errors import ERROR_BYTES, Setting, blocks, check_reached, mean_and_error, passes
from .likelihood import Labels, labels_of, score
from .recording import Recorder, single_samples
from .sample_loop import over_passes
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task
    from .recording import Call, Pass


class OutputFisher:
    """Squared error of the layer's output times its squared gradient.

    Args:
        samples: calibration samples used; each is one forward and one backward pass, and every layer in every format.
        labels: ``"data"``, ``"model"``, or ``"auto"``: the data's where the objective uses them.
    """

    name = "output_fisher"
    summary = "ModelOpt's gradient score: squared gradient x squared error of the layer's output"
    additive = True
    gradients = 1
    source = "NVIDIA Model Optimizer, auto_quantize(method='gradient'); Li et al. 2021, arXiv:2102.05426, eq. 10"

    def __init__(self, samples: int = 32, labels: Labels = "auto") -> None:
        self.samples = samples
        self.labels = labels

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Samples, for every block of sites."""
        return passes(task, space, self.samples)

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring.

        Raises:
            InvalidInput: labels of the data are asked for and there are none, or labels of the model where the task
                has a loss of its own that is not the cross-entropy of the outputs.
            UnsupportedModel: the model cannot be differentiated.
            NonFiniteOutput: a gradient or a quantized layer's output is not finite.
        """
        started = time.perf_counter()
        setting = Setting(self.name, labels_of(task, self.labels, self.name), self.samples)
        batches = single_samples(task, self.samples)
        each = np.where(space.allowed, 0.0, np.nan)[None].repeat(len(batches), 0)
        reached: set[int] = set()
        for rows in blocks(space):
            part = replace(space, sites=[space.sites[row] for row in rows], ties=[])
            generator, mine = torch.Generator().manual_seed(seed), each[:, rows.start : rows.stop]
            block = _Block(task, QuantizedModel(task.model, part, calibration, ERROR_BYTES), setting, generator, mine)
            over_passes(task, block.recorder, batches, self.name, setting.source, block.add, advance)
            reached.update(rows.start + row for row in block.reached)
        check_reached(task, QuantizedModel(task.model, space, calibration, cache_bytes=0), reached, batches[0])
        values, error = mean_and_error(each)
        if not np.isfinite(values[space.allowed]).all():
            row = int(np.argwhere(~np.isfinite(values) & space.allowed)[0][0])
            raise NonFiniteOutput(f"proxy output_fisher: gradient or output at site {space.sites[row].name} not finite")
        seconds, count = time.perf_counter() - started, passes(task, space, self.samples)
        return Sensitivity(self.name, values, error, tuple(space.names), space.formats, seconds, count, count)


class _Block:
    """Some sites, whose quantized weights fit into memory together."""

    def __init__(
        self,
        task: Task,
        quantized: QuantizedModel,
        setting: Setting,
        generator: torch.Generator,
        values: np.ndarray,
    ) -> None:
        self.task = task
        self.quantized = quantized
        self.setting = setting
        self.generator = generator
        self.values = values  # [samples, sites, formats], filled by ``add``
        self.space = quantized.space
        modules = [module for site in self.space.sites for module in site.modules]
        self.recorder = Recorder(task.model, self.space, modules, outputs=True)
        self.reached: set[int] = set()

    def add(self, position: int, run: Pass) -> None:
        """Add the contributions of one sample."""
        calls = [call for call in run.calls if call.output is not None]
        drawn = score(self.task, run.output, run.targets, self.setting.source, self.generator)
        wanted = [call.output for call in calls if call.output is not None]
        gradients = run.gradients(wanted, drawn.seed)
        with torch.no_grad():
            for call, gradient in zip(calls, gradients, strict=True):
                if gradient is None or call.output is None:
                    continue
                self.reached.add(call.row)
                weight = (gradient.float() * drawn.root).square()
                half = call.output.dtype != torch.float32
                reference = self._output(call, None) if half else call.output
                for column, name in enumerate(self.space.formats):
                    if self.space.sites[call.row].offers(name):
                        error = self._output(call, name) - reference
                        size = float((weight * error.square()).double().sum())
                        self.values[position, call.row, column] += 0.5 * size

    def _output(self, call: Call, name: str | None) -> Tensor:
        """What the module gives in a format (``None``: its own) on the inputs of the call, computed in float32.

        In half precision the rounding of the outputs would drown the error of all but the coarsest formats.
        """
        changes = self.quantized.changes({} if name is None else {self.space.sites[call.row].name: name})
        module = self.task.model.get_submodule(call.module)
        args = tuple(_single(each) for each in call.args)
        kwargs = {key: _single(each) for key, each in call.kwargs.items()}
        if call.module in changes.rounding:
            rounding = self.quantized.rule(call.module, changes.rounding[call.module])[1]
            args, kwargs = rounding_hook(rounding)(module, args, kwargs)
        with ExitStack() as stack:
            for parameter, (site, target) in changes.weights.items():
                _exchange(stack, self.task.model.get_parameter(parameter), self.quantized.weight(site, target))
            for parameter, shift in changes.biases.items():
                _exchange(stack, self.task.model.get_parameter(parameter), self.quantized.bias(parameter, shift))
            for own in module.parameters():
                _exchange(stack, own, _single(own.data))
            output = module.forward(*args, **kwargs)
        found = output if isinstance(output, Tensor) else first_tensor(tuple(output), {})
        assert found is not None  # the recorded call returned a tensor
        return found


def _single(value: Any) -> Any:
    """A floating-point tensor as float32; everything else as it is."""
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def _exchange(stack: ExitStack, parameter: nn.Parameter, tensor: Tensor) -> None:
    stack.callback(setattr, parameter, "data", parameter.data)
    parameter.data = tensor
