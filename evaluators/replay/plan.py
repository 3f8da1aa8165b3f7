"""Which intermediate values to keep while candidates run one after the other, so that the next ones start from them.

Candidates are sorted by what they change, in order of execution. Neighbours then agree on the first operations for as
long as possible, and the whole sequence walks a prefix tree depth first: each distinct prefix is computed once if the
values at every branching can be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .program import Program


@dataclass(frozen=True)
class Costs:
    """What is known of each position of a program.

    Attributes:
        seconds: time from the beginning to the position.
        bytes: size of the values alive there.
        cuts: whether they may be kept.
    """

    seconds: list[float]
    bytes: list[int]
    cuts: list[bool]

    @staticmethod
    def of(program: Program) -> Costs:
        """The costs of a program; every operation counts alike as long as none was timed."""
        each = program.seconds or [1.0] * len(program.operations)
        total = [0.0]
        for seconds in each:
            total.append(total[-1] + seconds)
        return Costs(total, program.bytes, program.cuts)

    def below(self, position: int) -> int:
        """The last position, up to the given one, whose values may be kept; 0 if there is none."""
        return next((each for each in range(position, 0, -1) if self.cuts[each]), 0)


def wanted_cuts(shared: Sequence[int], start: int) -> dict[int, int]:
    """Positions at which a run should keep its values, for the runs after it.

    Args:
        shared: for each later candidate in order, up to which position it agrees with the one before it.
        start: where this run begins; what lies before was kept by earlier runs.

    Returns:
        Position -> how many later candidates begin there.
    """
    found: dict[int, int] = {}
    agreed = None
    for position in shared:
        agreed = position if agreed is None else min(agreed, position)
        if agreed <= start:
            break
        if position == agreed:
            found[position] = found.get(position, 0) + 1
    return found


def affordable_cuts(wanted: dict[int, int], costs: Costs, start: int, budget: int) -> list[int]:
    """The positions at which values are really kept.

    All wanted ones if they fit. Else each is moved to the smallest values within a tenth of the time that it saves, and
    those are kept that save most time per byte.

    Args:
        wanted: as ``wanted_cuts`` gives them.
        costs: of the program.
        start: where this run begins.
        budget: bytes.

    Returns:
        Positions in order, all behind ``start``.
    """
    exact = {costs.below(position): uses for position, uses in sorted(wanted.items())}
    exact = {position: uses for position, uses in exact.items() if position > start}
    if sum(costs.bytes[position] for position in exact) <= budget:
        return sorted(exact)

    def saved(position: int) -> float:
        return costs.seconds[position] - costs.seconds[start]

    smaller: dict[int, int] = {}
    for position, uses in exact.items():
        near = [each for each in range(start + 1, position + 1) if costs.cuts[each]]
        near = [each for each in near if saved(each) >= 0.9 * saved(position)] or [position]
        best = min(near, key=lambda each: (costs.bytes[each], -each))
        smaller[best] = smaller.get(best, 0) + uses
    found = []
    for position in sorted(smaller, key=lambda each: -smaller[each] * saved(each) / max(1, costs.bytes[each])):
        if costs.bytes[position] <= budget:
            budget -= costs.bytes[position]
            found.append(position)
    return sorted(found)
