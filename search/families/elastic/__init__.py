"""An elastic convolutional supernet in the spirit of Once-for-All (Cai et al., ICLR 2020, arXiv:1908.09791)."""

from __future__ import annotations

from .family import ElasticFamily, elastic_family, load_weights, save_weights
from .importance import sort_channels
from .network import ElasticNet
from .phases import Phase, progressive_shrinking
from .plain import SubNetwork
from .presets import batches_of
from .recipe import ElasticRecipe
from .shape import ElasticShape, ElasticStage
from .statistics import recalibrated, resized
from .training import train

__all__ = [
    "ElasticFamily",
    "ElasticNet",
    "ElasticRecipe",
    "ElasticShape",
    "ElasticStage",
    "Phase",
    "SubNetwork",
    "batches_of",
    "elastic_family",
    "load_weights",
    "progressive_shrinking",
    "recalibrated",
    "resized",
    "save_weights",
    "sort_channels",
    "train",
]
