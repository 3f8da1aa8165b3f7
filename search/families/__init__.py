"""Families of architectures that ship: structured compression, an elastic supernet, NAS-Bench-201 cells."""

from __future__ import annotations

from .registry import MakeFamily, called, families, make_family

__all__ = ["MakeFamily", "called", "families", "make_family"]
