"""Reconstruction: codes that keep the output of a layer, not only its weights."""

from .layers import reconstructed

__all__ = ["reconstructed"]
