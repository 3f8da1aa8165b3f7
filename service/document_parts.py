"""What all parts of the typed ``front.json`` are made of: numbers that may be missing, and intervals."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from .labels import number

Real = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number; ``null`` (JSON has no NaN) reads as NaN."""


class Part(BaseModel):
    """A part of the document: frozen; keys of later versions are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Interval(Part):
    """A number and its interval; without one, ``low`` and ``high`` are the number itself."""

    value: Real
    low: Real = math.nan
    high: Real = math.nan

    @property
    def below(self) -> float:
        """Length of the lower error bar, at least 0."""
        return max(0.0, self.value - self.low) if math.isfinite(self.low) else 0.0

    @property
    def above(self) -> float:
        """Length of the upper error bar, at least 0."""
        return max(0.0, self.high - self.value) if math.isfinite(self.high) else 0.0

    def text(self, unit: str = "") -> str:
        """Such as ``0.0123 [0.011, 0.0135] nats``; the interval is left out where it has no width."""
        if not math.isfinite(self.value):
            return "not finite"
        interval = f" [{number(self.low)}, {number(self.high)}]" if self.below or self.above else ""
        return f"{number(self.value)}{interval}" + (f" {unit}" if unit else "")
