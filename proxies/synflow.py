r"""SynFlow: the flow through a layer of the network with all signs removed, logarithmic, times bits.

.. math::
    I_l = \sum_{i \in W_l} | w_i | \log \Bigl( 1 + \frac{\partial R}{\partial | w_i |} \Bigr), \qquad
    R = \sum_j y_j(|\theta|; 1)

with y the outputs of the network whose parameters are replaced with their magnitudes, for an input of ones;
``bit_weighted`` makes the table of formats from I. Tanaka et al. 2020, SynFlow, arXiv:2006.05467, algorithm 1. Without
the logarithm the sum over a layer is the same for all layers of a chain without biases (their conservation laws), so
nothing would be ranked; and sums of deep networks overflow. The logarithm is that of LogSynflow (Cavagnero et al. 2023,
FreeREA, arXiv:2207.05135). Multiplied with bits SynFlow is a baseline of Dong et al. 2023, EMQ, arXiv:2307.10554.

Normalization layers are skipped, as in Abdelfattah et al. 2021 (arXiv:2101.08134): they would undo the flow. Inputs
that are indices or masks cannot be ones; they are those of the first calibration sample. No other data is used.
Everything is computed in float64: the sums grow by the size of every layer.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import NonFiniteOutput
from ..evaluators import output_tensor
from ..evaluators.float_run import first_tensor, on_device
from ..tracing import without_attention_fast_path
from .bit_weighted import bit_weighted
from .recording import not_differentiable
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Batch, Task


class SynFlow:
    """Logarithmic synaptic flow of each site, times bits."""

    name = "synflow"
    summary = "zero-cost: synaptic flow of each layer (logarithmic), times bits; one pass, no data"
    additive = False
    gradients = 1
    source = "Tanaka et al. 2020 (SynFlow), arXiv:2006.05467; logarithm: arXiv:2207.05135; times bits: arXiv:2307.10554"

    def steps(self, task: Task, space: SearchSpace) -> int:
        """One forward and one backward pass."""
        return 1

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring. The seed is not used: nothing is random.

        Raises:
            UnsupportedModel: the model does not run in float64, or cannot be differentiated.
            NonFiniteOutput: the flow overflows.
        """
        started = time.perf_counter()
        flows = flow(task.model, task.calibration[0], [site.parameter for site in space.sites])
        importance = np.zeros(len(space.sites))
        for row, (site, gradient) in enumerate(zip(space.sites, flows, strict=True)):
            if not bool(torch.isfinite(gradient).all()):
                raise NonFiniteOutput(f"proxy synflow: the flow at site {site.name} overflows; choose another proxy")
            weight = task.model.get_parameter(site.parameter).detach().double().abs()
            # some operations (a softmax) can turn the flow round; the logarithm is for magnitudes
            importance[row] = float((weight * gradient.abs().log1p()).sum())
        values = bit_weighted(space, importance, self.name)
        if advance:
            advance(1)
        seconds = time.perf_counter() - started
        return Sensitivity(self.name, values, None, tuple(space.names), space.formats, seconds, 1, 1, additive=False)


def flow(model: nn.Module, batch: Batch, parameters: list[str]) -> list[Tensor]:
    """Derivatives of R with respect to the magnitudes of some parameters; zeros where R does not depend on one.

    Args:
        model: in evaluation mode.
        batch: its first sample gives the shapes, and what cannot be ones.
        parameters: names.

    Raises:
        UnsupportedModel: the model does not run in float64, or cannot be differentiated.
    """
    state: dict[str, Tensor] = {name: _positive(each) for name, each in model.named_parameters()}
    state |= {name: each.double() if each.is_floating_point() else each for name, each in model.named_buffers()}
    wanted = [state[name].requires_grad_(True) for name in parameters]
    batch = on_device(batch.piece(0, 1), model)
    inputs = {
        name: torch.ones_like(each, dtype=torch.float64) if each.is_floating_point() else each
        for name, each in batch.tensors.items()
    }
    args, kwargs = ((), inputs) if isinstance(batch.inputs, dict) else (tuple(inputs.values()), {})
    with ExitStack() as stack:
        for module in model.modules():
            if _normalizes(module):
                stack.callback(module.register_forward_hook(_skip, with_kwargs=True).remove)
        stack.enter_context(without_attention_fast_path())
        stack.enter_context(torch.enable_grad())
        try:
            total = output_tensor(functional_call(model, state, args, kwargs)).sum()
            found = torch.autograd.grad(total, wanted, allow_unused=True)
        except RuntimeError as cause:
            raise not_differentiable(f"with its weights' magnitudes in float64: {cause}") from cause
    return [
        torch.zeros_like(each) if gradient is None else gradient for each, gradient in zip(wanted, found, strict=True)
    ]


def _positive(parameter: Tensor) -> Tensor:
    return parameter.detach().double().abs()


def _normalizes(module: nn.Module) -> bool:
    """Whether a module is a normalization: those of torch, and what others call so (``LlamaRMSNorm``)."""
    return not list(module.children()) and "norm" in type(module).__name__.lower()


def _skip(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    value = first_tensor(args, kwargs)
    return value if isinstance(output, Tensor) and value is not None and value.shape == output.shape else output
