r"""Statistics taken again after compression: of batch normalizations, or of biases where they are folded.

Running statistics of batch normalizations are moved by what compression changed on the calibration data
(``evaluators.batch_norm``: PreciseBN, arXiv:2105.07576). Where a network has none, the same is done for the mean alone:
in the order of execution every layer's bias is shifted,

.. math:: b' = b + E[y] - E[\hat y],

with y the output of the layer in the original network and :math:`\hat y` in the compressed one, whose earlier layers
are corrected already (Nagel et al. 2019, arXiv:1906.04721, section 4.2, applied to compression).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ....evaluators import batch_norm_statistics, run_float
from ....task import Batch

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def joined(batches: Sequence[Batch]) -> list[Batch]:
    """All batches as one where their shapes allow it, so that one pass sees all the data."""
    first = batches[0]
    alike = all(
        {name: tensor.shape[1:] for name, tensor in each.tensors.items()}
        == {name: tensor.shape[1:] for name, tensor in first.tensors.items()}
        for each in batches
    )
    if not alike:
        return list(batches)
    if isinstance(first.inputs, dict):
        return [Batch({name: torch.cat([each.tensors[name] for each in batches]) for name in first.inputs})]
    count = len(first.inputs)
    return [Batch(tuple(torch.cat([each.tensors[str(place)] for each in batches]) for place in range(count)))]


def output_means(model: nn.Module, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Mean output of every linear layer and convolution with a bias: path -> float64 [out]."""
    sums: dict[str, tuple[int, Tensor]] = {}
    with ExitStack() as stack, torch.no_grad():
        for path, layer in _biased(model).items():
            stack.callback(layer.register_forward_hook(_gather(path, sums)).remove)
        for batch in batches:
            run_float(model, batch, "calibration")
    return {path: total / count for path, (count, total) in sums.items()}


def match_means(model: nn.Module, batches: Sequence[Batch], wanted: Mapping[str, Tensor]) -> None:
    """Shift biases in place until the mean outputs are the wanted ones.

    Args:
        model: the compressed network.
        batches: calibration data; one batch is exact, with several later layers see earlier ones half corrected.
        wanted: path -> mean output of the original [out]; other layers stay.
    """
    layers = {path: layer for path, layer in _biased(model).items() if path in wanted}
    with torch.no_grad():
        for batch in batches:
            with ExitStack() as stack:
                for path, layer in layers.items():
                    shift = _shift(wanted[path], len(batches))
                    stack.callback(layer.register_forward_hook(shift).remove)
                run_float(model, batch, "calibration")


def renormalize(model: nn.Module, batches: Sequence[Batch], reference: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Move the running statistics of batch normalizations in place.

    Args:
        model: the compressed network.
        batches: calibration data.
        reference: statistics of the original network on it, cut to the channels that the compressed one has.
    """
    for path, (mean, variance) in batch_norm_statistics(model, batches, reference).items():
        norm = model.get_submodule(path)
        norm.get_buffer("running_mean").copy_(mean)
        norm.get_buffer("running_var").copy_(variance)


def _biased(model: nn.Module) -> dict[str, nn.Module]:
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, _LAYERS) and module.bias is not None
    }


def _channel_mean(layer: nn.Module, output: Tensor) -> tuple[int, Tensor]:
    """Values a channel and their mean, float64 [out]."""
    axis = output.ndim - 1 if isinstance(layer, nn.Linear) else 1
    others = [each for each in range(output.ndim) if each != axis]
    return output.numel() // output.shape[axis], output.mean(others).double()


def _gather(path: str, sums: dict[str, tuple[int, Tensor]]) -> Callable[[nn.Module, Any, Tensor], None]:
    def gather(layer: nn.Module, _: Any, output: Tensor) -> None:
        count, mean = _channel_mean(layer, output)
        before, total = sums.get(path, (0, torch.zeros(())))
        sums[path] = before + count, total + count * mean

    return gather


def _shift(wanted: Tensor, batches: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def shift(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        change = (wanted - _channel_mean(layer, output)[1]).to(output.dtype) / batches
        layer.get_parameter("bias").add_(change)
        return output + (change if isinstance(layer, nn.Linear) else change.view(-1, *[1] * (output.ndim - 2)))

    return shift
