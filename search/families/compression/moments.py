r"""First and second moments of what layers read: :math:`m = E[x]` and :math:`S = E[x x^\top]` over calibration data.

For a convolution, :math:`x` is a patch of the padded input [in channels x kernel], so that the layer is
:math:`y = W x + b` with its weight as a matrix [out, in x kernel].
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import NonFiniteOutput
from ....evaluators.float_run import run_float
from ....task import Batch


@dataclass(frozen=True)
class Moments:
    """Of the inputs of one layer.

    Attributes:
        mean: float64 [d].
        second: uncentred second moment, float64 [d, d].
    """

    mean: Tensor
    second: Tensor

    def of(self, index: Tensor) -> Moments:
        """The moments of some inputs alone."""
        return Moments(self.mean[index], self.second[index][:, index])

    @property
    def covariance(self) -> Tensor:
        """``second - mean meanᵀ`` [d, d]."""
        return self.second - torch.outer(self.mean, self.mean)


def input_moments(model: nn.Module, batches: Sequence[Batch], paths: Collection[str]) -> dict[str, Moments]:
    """Gather the moments in one pass over the data.

    Args:
        model: is not changed.
        batches: calibration data.
        paths: of ``nn.Linear`` layers and ``nn.Conv2d`` with padding of zeros and without groups.

    Returns:
        Path -> moments over all samples and positions, for the layers that ran.

    Raises:
        NonFiniteOutput: a layer reads NaN or infinity.
    """
    sums: dict[str, tuple[int, Tensor, Tensor]] = {}
    with ExitStack() as stack, torch.no_grad():
        for path in paths:
            stack.callback(model.get_submodule(path).register_forward_pre_hook(_gather(path, sums)).remove)
        for batch in batches:
            run_float(model, batch, "calibration")
    for path, (_, mean, second) in sums.items():
        if not bool(torch.isfinite(second).all() and torch.isfinite(mean).all()):
            raise NonFiniteOutput(f"the input of {path} holds NaN or infinity on the calibration data")
    return {path: Moments(mean / count, second / count) for path, (count, mean, second) in sums.items()}


def patches(layer: nn.Module, value: Tensor) -> Tensor:
    """The inputs of a layer as rows [n, d]."""
    if not isinstance(layer, nn.Conv2d):
        return value.flatten(0, -2)
    if layer.kernel_size == (1, 1) and layer.padding == (0, 0):
        rows, columns = layer.stride
        return value[:, :, ::rows, ::columns].movedim(1, -1).flatten(0, -2)
    if layer.padding == "same":
        value, padding = nn.functional.pad(value, layer._reversed_padding_repeated_twice), (0, 0)
    else:
        padding = (0, 0) if isinstance(layer.padding, str) else (layer.padding[0], layer.padding[1])
    unfolded = nn.functional.unfold(value, layer.kernel_size, layer.dilation, padding, layer.stride)
    return unfolded.movedim(1, -1).flatten(0, -2)


def is_matrix(layer: nn.Module) -> bool:
    """Whether a layer is exactly a matrix applied to its (unfolded) input."""
    if type(layer) is nn.Conv2d:
        return layer.groups == 1 and layer.padding_mode == "zeros"
    return type(layer) is nn.Linear


def _gather(path: str, sums: dict[str, tuple[int, Tensor, Tensor]]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def gather(layer: nn.Module, args: tuple[Any, ...]) -> None:
        rows = patches(layer, args[0]).double()
        count, mean, second = sums.get(path, (0, torch.zeros(()), torch.zeros(())))
        sums[path] = count + len(rows), mean + rows.sum(0), second + rows.T @ rows

    return gather
