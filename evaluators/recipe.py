"""Recipe: how a model is calibrated before it is measured."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields

from ..errors import InvalidInput

WEIGHTS = ("mse", "minmax", "gptq", "adaround", "adaquant")
ACTIVATIONS = ("minmax", "moving_average", "percentile", "mse", "entropy")
EQUALIZATIONS = ("none", "cross_layer", "smoothquant")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How scales, codes and ranges are chosen; the same for every candidate of a search.

    Attributes:
        weights: how weights are rounded. ``mse``: to nearest, scales of least squared error. ``minmax``: to nearest,
            scales that clip nothing. ``gptq``, ``adaround``, ``adaquant``: reconstruct the layer's output on the
            calibration data, starting from the scales of ``mse``.
        activations: the observer that chooses static ranges.
        equalization: function-preserving change of the float model before anything is rounded.
        bias_correction: whether the mean shift that rounding causes in a layer's output is taken back by its bias.
        batch_norm: whether the statistics of batch normalization are estimated again for every configuration.

    Raises:
        InvalidInput: a name is unknown; the message gives the nearest.
    """

    weights: str = "mse"
    activations: str = "mse"
    equalization: str = "none"
    bias_correction: bool = False
    batch_norm: bool = False

    def __post_init__(self) -> None:
        for key, known in (("weights", WEIGHTS), ("activations", ACTIVATIONS), ("equalization", EQUALIZATIONS)):
            value = getattr(self, key)
            if value not in known:
                near = difflib.get_close_matches(str(value), known, n=1) or known
                raise InvalidInput(f"unknown {key} {value!r} in the recipe; choose {' or '.join(near)}")

    @property
    def reconstructs(self) -> bool:
        """Whether codes are chosen by reconstruction, not by rounding to nearest."""
        return self.weights in ("gptq", "adaround", "adaquant")

    def __str__(self) -> str:
        return ", ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))
