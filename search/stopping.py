"""When a search ends before its evaluations are spent: nothing improves any more, or a target is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import InvalidInput
from .archive import Archive

_STEP = 1e-3  # relative growth of the hypervolume that counts as an improvement


@dataclass(frozen=True)
class StopRule:
    """What ends a search early.

    Attributes:
        no_improvement: so many evaluations in a row in which the hypervolume grows by less than 0.1 % and the best
            quality within the constraints stays; ``None``: never.
        target: largest values, ``quality`` and prices, that one measured configuration has to meet together, its
            constraints met; empty: no target.
    """

    no_improvement: int | None = None
    target: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.no_improvement is not None and self.no_improvement < 1:
            raise InvalidInput(f"stop: no_improvement={self.no_improvement}; it must be at least 1, or None")

    def reason(self, archive: Archive, history: list[tuple[int, float, float]]) -> str | None:
        """Why the search ends now; ``None`` if it goes on.

        Args:
            archive: what was measured.
            history: after each round (evaluations, hypervolume, best quality within the constraints), oldest first.
        """
        reached = self._reached(archive)
        if reached:
            return reached
        if self.no_improvement is None or not history:
            return None
        now, volume, best = history[-1]
        for evaluations, earlier, quality in history[:-1][::-1]:
            if volume > earlier * (1 + _STEP) or best < quality:
                return None
            if now - evaluations >= self.no_improvement:
                return f"no improvement of the hypervolume in the last {now - evaluations} evaluations"
        return None

    def _reached(self, archive: Archive) -> str | None:
        if not self.target:
            return None
        for found in archive.evaluated:
            prices = archive.problem.prices.of(found.configuration)
            values = {"quality": found.quality, **{name: prices[name].value for name in self.target if name in prices}}
            if found.feasible and all(values[name] <= limit for name, limit in self.target.items()):
                told = ", ".join(f"{name} {values[name]:.4g} <= {limit:g}" for name, limit in self.target.items())
                return f"target reached: {told}"
        return None
