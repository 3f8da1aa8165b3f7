"""The surrogate: what quality is expected of a configuration that was not measured, and what to measure next."""

from .conformal import Coverage
from .fitted import Fitted, Prediction
from .gap import FrontGap, front_gap
from .improvement import choose_batch, expected_hypervolume_improvement
from .latent import Latent
from .monotone import MonotoneMap
from .power_law import PowerLaw
from .surrogate import Surrogate

__all__ = [
    "Coverage",
    "Fitted",
    "FrontGap",
    "Latent",
    "MonotoneMap",
    "PowerLaw",
    "Prediction",
    "Surrogate",
    "choose_batch",
    "expected_hypervolume_improvement",
    "front_gap",
]
