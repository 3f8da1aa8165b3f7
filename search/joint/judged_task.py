r"""The task as one architecture of a family meets it: its module, the data in its resolution, the metric of all.

Metrics that need labels stay as they are. A metric that compares with the float model's own outputs (``kl``,
``relative_error``, ``cosine``) must compare every architecture with the *original* model, or a small network would be
perfect: for a sample x, with the original model :math:`f` and the quantized sub-network :math:`\hat g`, its value is

.. math:: d(f(x), \hat g(x))

So the outputs of the original model become the targets, and the metric a function of outputs and targets. It is called
``kl_to_original`` and so on: 0 only for a network that does what the original does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InvalidInput
from ...evaluators import output_tensor, run_float
from ...evaluators.metrics import cosine_distance, divergence
from ...task import SELF_REFERENCED, SPLITS, Batch, Split, Task

_RESOLUTIONS = 6  # whose resized data is kept


def kl_to_original(output: Tensor, targets: Tensor) -> Tensor:
    """KL divergence (nats) from the original model's softmax to the candidate's: float64 [samples]."""
    return divergence(output.float(), targets.float())


def relative_error_to_original(output: Tensor, targets: Tensor) -> Tensor:
    """Distance to the original model's outputs relative to their norm: float64 [samples]."""
    wanted, given = (tensor.reshape(len(output), -1).double() for tensor in (targets, output))
    found: Tensor = (given - wanted).norm(dim=1) / wanted.norm(dim=1).clamp(min=1e-30)
    return found


def cosine_to_original(output: Tensor, targets: Tensor) -> Tensor:
    """Cosine distance to the original model's outputs: float64 [samples]."""
    return cosine_distance(output.float(), targets.float())


def kl_loss(output: Tensor, targets: Tensor) -> Tensor:
    """Mean KL divergence to the original model's outputs, differentiable: []."""
    wanted = functional.log_softmax(targets, -1)
    return (wanted.exp() * (wanted - functional.log_softmax(output, -1))).sum(-1).mean()


def squared_loss(output: Tensor, targets: Tensor) -> Tensor:
    """Half the mean squared distance to the original's outputs relative to their mean square, differentiable: []."""
    return 0.5 * (output - targets).square().mean() / targets.square().mean().clamp(min=1e-30)


def cosine_loss(output: Tensor, targets: Tensor) -> Tensor:
    """Mean cosine distance to the original model's outputs, differentiable: []."""
    given, wanted = (each.reshape(len(output), -1) for each in (output, targets))
    return 1 - functional.cosine_similarity(given, wanted).mean()


_AGAINST_ORIGINAL: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "kl": (kl_to_original, kl_loss),
    "relative_error": (relative_error_to_original, squared_loss),
    "cosine": (cosine_to_original, cosine_loss),
}


class Judge:
    """Makes the tasks that judge the architectures of a family alike.

    Args:
        original: the task of the search: its data, its metric, and the model that self-referenced metrics compare with.
    """

    def __init__(self, original: Task) -> None:
        self.original = original
        self._targets: dict[Split, list[Tensor]] = {}
        self._resized: OrderedDict[int | None, dict[Split, list[Batch]]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """What travels to a worker: the task alone."""
        return {"original": self.original, "_targets": {}, "_resized": OrderedDict()}

    @property
    def compares_with_original(self) -> bool:
        """Whether the metric compares outputs with those of the original model."""
        return self.original.quality in SELF_REFERENCED

    def task(self, module: nn.Module, resolution: int | None = None, name: str = "") -> Task:
        """The task of one architecture.

        Args:
            module: its network.
            resolution: height and width in pixels that images are resized to (bilinear); ``None``: as they are.
            name: shown in reports.

        Raises:
            InvalidInput: a resolution is given and an input is no batch of images [samples, channels, height, width].
            NonFiniteOutput: the original model, where outputs are compared with it, gives NaN or infinity.
        """
        parameter = next(self.original.model.parameters(), None)
        if parameter is not None:
            module = module.to(parameter.device)
        data: dict[str, Any] = {str(split): batches for split, batches in self._data(resolution).items()}
        quality, loss = self.original.quality, self.original.loss
        if isinstance(quality, str) and quality in _AGAINST_ORIGINAL:
            quality, loss = _AGAINST_ORIGINAL[quality]
        return Task(module, **data, loss=loss, quality=quality, name=name or self.original.name)

    def _data(self, resolution: int | None) -> dict[Split, list[Batch]]:
        if resolution not in self._resized:
            self._resized[resolution] = {split: self._split(split, resolution) for split in SPLITS}
            if len(self._resized) > _RESOLUTIONS:
                self._resized.popitem(last=False)
        self._resized.move_to_end(resolution)
        return self._resized[resolution]

    def _split(self, split: Split, resolution: int | None) -> list[Batch]:
        batches = self.original.split(split)
        targets: list[Tensor | None] = [batch.targets for batch in batches]
        if self.compares_with_original:
            targets = list(self._outputs(split))
        return [Batch(resized(batch, resolution).inputs, goal) for batch, goal in zip(batches, targets, strict=True)]

    def _outputs(self, split: Split) -> list[Tensor]:
        """The original model's outputs, on the CPU where batches lie."""
        if split not in self._targets:
            with torch.no_grad():
                self._targets[split] = [
                    output_tensor(run_float(self.original.model, batch, split)).cpu()
                    for batch in self.original.split(split)
                ]
        return self._targets[split]


def resized(batch: Batch, resolution: int | None) -> Batch:
    """A batch of images in another resolution (bilinear, without antialiasing); itself where there is nothing to do.

    Raises:
        InvalidInput: an input is no batch of images [samples, channels, height, width].
    """
    if resolution is None or all(tensor.shape[-2:] == (resolution, resolution) for tensor in batch.tensors.values()):
        return batch
    for name, tensor in batch.tensors.items():
        if tensor.ndim != 4 or not tensor.is_floating_point():
            raise InvalidInput(
                f"the architecture asks for inputs of {resolution} x {resolution} pixels, input {name} has shape "
                f"{tuple(tensor.shape)} and type {tensor.dtype}; give images [samples, channels, height, width]"
            )

    def scaled(tensor: Tensor) -> Tensor:
        return functional.interpolate(tensor, (resolution, resolution), mode="bilinear", align_corners=False)

    if isinstance(batch.inputs, dict):
        return Batch({name: scaled(tensor) for name, tensor in batch.inputs.items()}, batch.targets)
    return Batch(tuple(scaled(tensor) for tensor in batch.inputs), batch.targets)
