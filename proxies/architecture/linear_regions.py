r"""Linear regions: how finely a network cuts its input space (TE-NAS, second half).

.. math:: s = \log \Bigl( 1 + \frac1S \sum_{s=1}^{S} \sum_{t=1}^{T-1} d_H\bigl(c(x_{s,t}), c(x_{s,t+1})\bigr) \Bigr)

with c the on-off code of all rectified units, d_H the Hamming distance and :math:`x_{s,1}, \ldots, x_{s,T}` equally
spaced on the segment between two inputs. A piecewise linear network changes its linear map once for every unit that
switches, so the sum counts the regions that a segment crosses (Hanin and Rolnick 2019, arXiv:1901.09021, section 3),
but for units that switch twice between two points. Number of regions as a proxy: Chen, Gong and Wang 2021, TE-NAS,
arXiv:2102.11535, section 3.2.

TE-NAS counts the different codes among many random inputs instead. In a network of usual width every input has a code
of its own, so all networks tie, and TE-NAS thins networks to one channel first; a given module cannot be thinned.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import InvalidInput, UnsupportedModel
from ...task import Batch
from .activation_codes import ActivationCodes, no_rectifier
from .passes import as_initialized, outputs_of

if TYPE_CHECKING:
    from torch import nn

    from .proxy import Loss


class LinearRegions:
    """Logarithm of the number of linear regions between two inputs; one forward pass, no labels.

    Args:
        segments: S, between random pairs of samples.
        points: T, on each segment.
    """

    name = "linear_regions"
    summary = "how many linear regions lie between two samples; one forward pass"
    labels = False
    gradients = 0
    source = "Chen et al. 2021 (TE-NAS), arXiv:2102.11535, section 3.2; counted as in arXiv:1901.09021"

    def __init__(self, segments: int = 4, points: int = 16) -> None:
        self.segments = segments
        self.points = points

    def score(self, module: nn.Module, batch: Batch, loss: Loss | None, seed: int) -> float:
        """See the module docstring; the loss is not used, the seed chooses the pairs.

        Raises:
            InvalidInput: there are fewer than two samples.
            UnsupportedModel: the network has no rectified units, does not accept the batch, or takes whole numbers.
        """
        if len(batch) < 2:
            raise InvalidInput(f"proxy {self.name} compares samples; give a batch of two or more, got {len(batch)}")
        inputs = self._segments(batch, seed)
        switches = 0

        def seen(code: Tensor) -> None:
            nonlocal switches
            along = code.reshape(self.segments, self.points, -1)
            switches += int((along[:, 1:] != along[:, :-1]).sum())

        with as_initialized(module), torch.no_grad(), ActivationCodes(seen) as codes:
            outputs_of(module, inputs)
        if not codes.calls:
            raise UnsupportedModel(no_rectifier(self.name))
        return math.log1p(switches / self.segments)

    def _segments(self, batch: Batch, seed: int) -> Batch:
        """The points of all segments as one batch, segment by segment."""
        generator = torch.Generator().manual_seed(seed)
        pairs = torch.stack([torch.randperm(len(batch), generator=generator)[:2] for _ in range(self.segments)])
        found: dict[str, Tensor] = {}
        for name, tensor in batch.tensors.items():
            if not tensor.is_floating_point():
                raise UnsupportedModel(f"proxy {self.name} goes from input to input, and these are whole numbers")
            steps = torch.linspace(0, 1, self.points).to(tensor).reshape(1, -1, *[1] * (tensor.ndim - 1))
            start, end = tensor[pairs[:, 0]][:, None], tensor[pairs[:, 1]][:, None]
            found[name] = torch.lerp(start, end, steps).flatten(0, 1)
        return Batch(found if isinstance(batch.inputs, dict) else tuple(found.values()))
