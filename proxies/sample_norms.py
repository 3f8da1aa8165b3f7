r"""Squared norms of the weight gradients of single samples, from one backward pass over a batch.

A layer that multiplies with its weight has, per sample, the gradient :math:`G = \sum_t z_t a_t^\top` over positions t:
a_t what enters there, z_t the gradient at what leaves. Its squared norm is taken as whichever is cheaper of

.. math::
    \lVert G \rVert_F^2 = \Bigl\lVert \sum_t z_t a_t^\top \Bigr\rVert_F^2
                        = \sum_{t,t'} (a_t \cdot a_{t'}) (z_t \cdot z_{t'})

(the second: Goodfellow 2015, arXiv:1510.01799; Li et al. 2022, arXiv:2110.05679, section 4). The weight gradient itself
is not needed, so that the backward pass costs half. Squares of single samples do not hold the products between
samples, which have mean zero and are most of the noise of the square of a sum.

Which sites can be treated so is found out by trying: ``Norms.check`` compares with the weight gradient that autograd
gives for one sample, and sees whether that sample is alone in its row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from ..space import Site
    from .recording import Call, Pass

_PIECE = 1 << 24  # elements that one intermediate may have
_KEPT = 1 << 26  # elements of inputs brought into matrix form that are kept for further probes
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)

Pair = tuple[Tensor, Tensor]


class Norms:
    """Squared norms of one recorded forward pass; keeps the inputs that it has brought into matrix form.

    Args:
        model: the model.
        run: the forward pass, with the outputs of modules recorded.
    """

    def __init__(self, model: nn.Module, run: Pass) -> None:
        self.model = model
        self.samples = len(run.output)
        self._kept: dict[tuple[int, int], Tensor] = {}
        self._room = _KEPT

    def of(self, calls: Sequence[Call], gradients: Sequence[Tensor | None]) -> Tensor | None:
        """Squared norm of each sample's weight gradient.

        Args:
            calls: all calls of the modules of one site.
            gradients: at what left them.

        Returns:
            [samples]; ``None`` for a layer that is no linear map, 1-d or 2-d convolution, or embedding.
        """
        given = [(call, gradient) for call, gradient in zip(calls, gradients, strict=True) if gradient is not None]
        if not given:
            return torch.zeros(self.samples)
        kinds = {type(self.model.get_submodule(call.module)) for call, _ in given}
        if len(kinds) > 1 or any(len(gradient) != self.samples for _, gradient in given):
            return None
        if issubclass(next(iter(kinds)), nn.Embedding):
            return self._embedding(given)
        widest = max(gradient[0].numel() * self._inputs_per_output(call) for call, gradient in given)
        step = max(1, _PIECE // max(widest, 1))
        found = []
        for start in range(0, self.samples, step):
            piece = slice(start, min(start + step, self.samples))
            pairs = [pair for call, gradient in given if (pair := self._matrices(call, gradient, piece)) is not None]
            if len(pairs) < len(given) or any(left.shape[:-1] != right.shape[:-1] for left, right in pairs):
                return None
            left, right = (torch.cat(each, 2) if len(each) > 1 else each[0] for each in zip(*pairs, strict=True))
            found.append(_squares(left, right))
        return torch.cat(found)

    def _inputs_per_output(self, call: Call) -> int:
        """How much larger than the output the unfolded input of a convolution is."""
        module = self.model.get_submodule(call.module)
        if isinstance(module, _CONVOLUTIONS):
            return max(1, module.in_channels * math.prod(module.kernel_size) // module.out_channels)
        return 1

    def _matrices(self, call: Call, gradient: Tensor, piece: slice) -> Pair | None:
        """What entered [samples, groups, positions, inputs], and the gradient [samples, groups, positions, outputs]."""
        module = self.model.get_submodule(call.module)
        if call.value is None or len(call.value) != self.samples:
            return None
        value, gradient = call.value.detach()[piece], gradient[piece]
        gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        samples = len(value)
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
            left = value.reshape(samples, 1, -1, value.shape[-1])
            return left.to(gradient.dtype), gradient.reshape(samples, 1, -1, gradient.shape[-1])
        if isinstance(module, _CONVOLUTIONS) and value.ndim == len(module.kernel_size) + 2:
            if isinstance(module.padding, str) or module.padding_mode != "zeros":
                return None
            left = self._unfolded((id(call), piece.start), module, value)
            right = gradient.reshape(samples, module.groups, gradient.shape[1] // module.groups, -1).mT
            return left.to(gradient.dtype), right
        return None

    def _unfolded(self, key: tuple[int, int], module: nn.Conv1d | nn.Conv2d, value: Tensor) -> Tensor:
        """The patches that a convolution multiplies with its weight: [samples, groups, positions, inputs x kernel]."""
        if key in self._kept:
            return self._kept[key]
        plane = value if value.ndim == 4 else value[:, :, None]
        line = value.ndim == 3
        patches = functional.unfold(
            plane,
            (1, *module.kernel_size) if line else module.kernel_size,
            (1, *module.dilation) if line else module.dilation,
            (0, *_numbers(module.padding)) if line else _numbers(module.padding),
            (1, *module.stride) if line else module.stride,
        )
        unfolded = patches.reshape(len(value), module.groups, -1, patches.shape[-1]).mT
        if unfolded.numel() <= self._room:
            self._room -= unfolded.numel()
            self._kept[key] = unfolded
        return unfolded

    def _embedding(self, given: list[tuple[Call, Tensor]]) -> Tensor | None:
        """Rows of equal index add up before they are squared."""
        rows, gradients = [], []
        for call, gradient in given:
            module = self.model.get_submodule(call.module)
            assert isinstance(module, nn.Embedding)
            index = next((each for each in (*call.args, *call.kwargs.values()) if isinstance(each, Tensor)), None)
            if index is None or len(index) != self.samples or module.scale_grad_by_freq:
                return None
            index = index.reshape(self.samples, -1)
            gradient = gradient.reshape(self.samples, index.shape[1], -1)
            gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
            if module.padding_idx is not None:
                gradient = gradient * (index != module.padding_idx)[..., None]
            rows.append(index)
            gradients.append(gradient)
        index, gradient = torch.cat(rows, 1), torch.cat(gradients, 1)
        same = index[:, :, None] == index[:, None, :]
        return ((gradient @ gradient.mT) * same).sum((1, 2))


def separable(model: nn.Module, run: Pass, sites: Sequence[Site], generator: torch.Generator) -> set[int]:
    """Rows of the sites whose samples can be told apart.

    Runs one backward pass that starts at the first sample alone.

    Args:
        model: the model.
        run: of at least 2 samples (1 where there is no larger batch); its graph is kept.
        sites: the rows.
        generator: of the random gradient at the first sample's outputs.
    """
    norms = Norms(model, run)
    seed = torch.zeros_like(run.output)
    seed[0] = torch.randn(run.output[0].shape, generator=generator).to(run.output)
    calls = [call for call in run.calls if call.output is not None]
    outputs = [call.output for call in calls if call.output is not None]
    found = run.gradients([*run.weights, *outputs], seed, again=True)
    weights, gradients = found[: len(run.weights)], found[len(run.weights) :]
    rows: set[int] = set()
    for row in range(len(sites)):
        mine = [(call, each) for call, each in zip(calls, gradients, strict=True) if call.row == row]
        weight = weights[row]
        if weight is None or not mine or any(each is not None and bool(each[1:].any()) for _, each in mine):
            continue
        squares = norms.of([call for call, _ in mine], [each for _, each in mine])
        wanted = float(weight.double().square().sum())
        half = torch.finfo(weight.dtype).bits < 32
        if squares is not None and wanted > 0 and abs(float(squares[0]) - wanted) <= (0.05 if half else 1e-3) * wanted:
            rows.add(row)
    return rows


def _numbers(padding: str | tuple[int, ...]) -> tuple[int, ...]:
    assert not isinstance(padding, str)  # checked by the caller
    return padding


def _squares(left: Tensor, right: Tensor) -> Tensor:
    """Sum over groups of the squared norms of left^T right: [samples]."""
    samples, groups, positions, inputs = left.shape
    outputs = right.shape[-1]
    by_position = positions * (inputs + outputs) < inputs * outputs
    largest = groups * max(positions**2 if by_position else inputs * outputs, positions * max(inputs, outputs))
    step = max(1, _PIECE // max(largest, 1))
    found = []
    for start in range(0, samples, step):
        a, z = left[start : start + step], right[start : start + step]
        if by_position:
            found.append(((a @ a.mT) * (z @ z.mT)).sum((1, 2, 3)))
        else:
            found.append((z.mT @ a).square().sum((1, 2, 3)))
    return torch.cat(found)
