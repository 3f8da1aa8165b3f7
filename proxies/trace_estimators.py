r"""Unbiased estimates of per-site Hessian traces from one random probe, for all sites at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..evaluators import objective, output_tensor
from ..formats import Format

if TYPE_CHECKING:
    from ..space import SearchSpace
    from ..task import Batch, Task


class Variables:
    """What is differentiated: the weights of all sites, and the activations that enter those whose formats round them.

    Args:
        model: the float model.
        space: sites and formats.
    """

    def __init__(self, model: nn.Module, space: SearchSpace) -> None:
        self.model = model
        self.weights = [model.get_parameter(site.parameter) for site in space.sites]
        self.modules = [
            (row, module)
            for row, site in enumerate(space.sites)
            if any(Format.parse(name).activation is not None for name in site.formats)
            for module in site.modules
        ]
        self.sites = len(space.sites)
        self._inputs: list[tuple[int, Tensor]] = []

    @contextmanager
    def recorded(self, batch: Batch) -> Iterator[tuple[Tensor, list[Tensor], list[int]]]:
        """Run forward with gradients on.

        Yields:
            The output, the variables (weights first, then activations), and for each activation its site's row.
        """
        self._inputs = []
        flags = [(parameter, parameter.requires_grad) for parameter in self.model.parameters()]
        with ExitStack() as stack:
            for parameter, flag in flags:
                stack.callback(parameter.requires_grad_, flag)
                parameter.requires_grad_(False)
            for weight in self.weights:
                weight.requires_grad_(True)
            for row, name in self.modules:
                handle = self.model.get_submodule(name).register_forward_pre_hook(self._record(row))
                stack.callback(handle.remove)
            # fused attention kernels cannot be differentiated twice
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(torch.enable_grad())
            output = output_tensor(batch(self.model))
            yield output, [*self.weights, *(tensor for _, tensor in self._inputs)], [row for row, _ in self._inputs]
        self._inputs = []

    def _record(self, row: int) -> Any:
        def record(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
                return None
            value = args[0] if args[0].requires_grad else args[0].detach().requires_grad_(True)
            self._inputs.append((row, value))
            return (value, *args[1:])

        return record

    def collect(self, values: list[Tensor], rows: list[int], samples: int) -> np.ndarray:
        """Sum scalar estimates by site: [2, sites], row 0 weights (mean over samples), row 1 activations (per sample).

        A weight is shared by all samples and its estimate is of the mean loss. An activation belongs to one sample;
        the objective is a mean over ``samples``, so its per-sample Hessian is ``samples`` times what was
        differentiated, and the mean over samples of the per-sample traces is the plain sum.
        """
        totals = np.zeros((2, self.sites))
        for position, value in enumerate(values):
            if position < self.sites:
                totals[0, position] += float(value)
            else:
                totals[1, rows[position - self.sites]] += float(value)
        return totals


def hutchinson_probes(task: Task, batch: Batch, variables: Variables, generator: torch.Generator) -> np.ndarray:
    r"""One Hutchinson probe: :math:`v_l^\top (H v)_l` with v of random signs, by double differentiation.

    Args:
        task: its objective is differentiated twice.
        batch: data.
        variables: weights and activations.
        generator: source of the signs.

    Returns:
        [2, sites]: estimates of the traces over weights and over activations.
    """
    with variables.recorded(batch) as (output, inputs, rows):
        loss = objective(task, output, output.detach(), batch.targets)
        gradients = torch.autograd.grad(loss, inputs, create_graph=True, allow_unused=True)
        signs = [_signs(tensor, generator) for tensor in inputs]
        pairs = [(gradient, sign) for gradient, sign in zip(gradients, signs, strict=True) if gradient is not None]
        product = sum((gradient * sign).sum() for gradient, sign in pairs)
        if not isinstance(product, Tensor) or not product.requires_grad:
            return np.zeros((2, variables.sites))
        seconds = torch.autograd.grad(product, inputs, allow_unused=True)
        values = [
            (sign * second).sum() if second is not None else torch.zeros(())
            for sign, second in zip(signs, seconds, strict=True)
        ]
    return variables.collect(values, rows, len(batch))


def gauss_newton_probes(task: Task, batch: Batch, variables: Variables, generator: torch.Generator) -> np.ndarray:
    r"""One probe of the Gauss-Newton root: :math:`\lVert (J^\top B u)_l \rVert^2` with u of random signs.

    B B^T is the Hessian of the objective with respect to the outputs at the float outputs:

    - KL divergence, p the softmax: diag(p) - p p^T, with root B u = sqrt(p) u - p (sqrt(p) . u), over the number of
      positions;
    - relative error: (1 / sum of squares) I.

    Signs are drawn per sample and position, so cross terms between samples have mean zero too.

    Returns:
        [2, sites]: estimates of the traces over weights and over activations.
    """
    with variables.recorded(batch) as (output, inputs, rows):
        with torch.no_grad():
            u = _signs(output, generator)
            if task.quality == "relative_error" or output.shape[-1] < 2:
                root = u / output.square().sum().clamp(min=1e-30).sqrt()
            else:
                p = functional.softmax(output.float(), -1)
                mixed = p.sqrt() * u
                positions = output.numel() // output.shape[-1]
                root = (mixed - p * mixed.sum(-1, keepdim=True)) / positions**0.5
        gradients = torch.autograd.grad(output, inputs, grad_outputs=root.to(output.dtype), allow_unused=True)
        values = [
            gradient.double().square().sum() if gradient is not None else torch.zeros(()) for gradient in gradients
        ]
    return variables.collect(values, rows, len(batch))


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Random signs of a tensor's shape and type."""
    draws = torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8)
    return draws.mul_(2).sub_(1).to(like.dtype)
