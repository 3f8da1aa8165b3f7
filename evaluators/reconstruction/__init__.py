"""Reconstruction: codes that keep the output of a layer, not only its weights."""

from .adaquant import AdaQuant
from .adaround import AdaRound
from .gptq import Gptq
from .layers import METHODS, reconstructed
from .moments import Moment, second_moments
from .problem import LayerProblem, Reconstruction
from .rows import Blocks

__all__ = [
    "METHODS",
    "AdaQuant",
    "AdaRound",
    "Blocks",
    "Gptq",
    "LayerProblem",
    "Moment",
    "Reconstruction",
    "reconstructed",
    "second_moments",
]
