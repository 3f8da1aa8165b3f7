"""The surrogate: what quality is expected of a configuration that was not measured."""

from .power_law import PowerLaw, spearman

__all__ = ["PowerLaw", "spearman"]
