"""What a caller may ask of structured compression, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ....errors import InvalidInput

Importance = Literal["magnitude", "l1", "activation", "taylor"]
Recovery = Literal["reconstruct", "statistics"]


@dataclass(frozen=True)
class Settings:
    """The arguments of ``compress`` without the model and the data.

    Attributes:
        skip: offer blocks to be skipped.
        width: kept shares of channels, each in (0, 1].
        rank: kept shares of the full rank, each in (0, 1].
        include: globs of module paths: only blocks, groups (by their first layer) and layers that match one.
        exclude: globs of module paths that must stay as they are.
        importance: how channels are ranked.
        round_to: channel counts and ranks are multiples of it, where a layer has as many.
        recover: how a built network is repaired with calibration data.
    """

    skip: bool
    width: tuple[float, ...]
    rank: tuple[float, ...]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    importance: Importance
    round_to: int
    recover: tuple[Recovery, ...]

    def __post_init__(self) -> None:
        for name, shares in (("width", self.width), ("rank", self.rank)):
            if any(isinstance(each, bool) or not 0 < each <= 1 for each in shares):
                raise InvalidInput(f"{name}={shares}: shares lie above 0 and up to 1; () offers none")
        if self.importance not in get_args(Importance):
            raise InvalidInput(f"importance={self.importance!r}; choose {', '.join(get_args(Importance))}")
        if self.round_to < 1:
            raise InvalidInput(f"round_to={self.round_to}: give 1 or more")
        unknown = set(self.recover) - set(get_args(Recovery))
        if unknown:
            raise InvalidInput(f"recover={self.recover}; choose from {', '.join(get_args(Recovery))}, or ()")


def rounded(share: float, count: int, step: int) -> int:
    """A share of a count, at least one step, in multiples of ``step`` (of 1 where the count is below two steps).

    >>> rounded(0.5, 100, 8), rounded(0.75, 16, 8), rounded(0.5, 10, 8), rounded(1.0, 100, 8)
    (48, 16, 5, 100)
    """
    if share >= 1:
        return count
    step = step if count >= 2 * step else 1
    return min(count, max(step, int(share * count / step + 0.5) * step))
