"""Progressive shrinking: which sub-networks are trained when (Cai et al., arXiv:1908.09791, section 3.3).

The resolution is elastic from the first step on. The kernel sizes, then the depths, then the expansions open one after
the other from the largest value down; what is open stays open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ....architecture import ArchitectureSpace, Kind
from ....errors import InvalidInput
from .shape import ElasticShape

ORDER: tuple[Kind, ...] = ("kernel", "depth", "expansion")


@dataclass(frozen=True)
class Phase:
    """One phase of the training.

    Attributes:
        name: for progress and errors.
        steps: optimizer steps.
        learning_rate: peak of the phase's one-cycle schedule.
        open: how many of the largest values of each kind sub-networks may take, kinds as in ``ORDER``; kinds that are
            not named are wholly open.
        samples: random sub-networks a step, beside the largest and the smallest.
    """

    name: str
    steps: int
    learning_rate: float
    open: tuple[tuple[Kind, int], ...]
    samples: int = 2

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.learning_rate > 0 or self.samples < 0 or any(count < 1 for _, count in self.open):
            raise InvalidInput(
                f"phase {self.name!r} needs steps >= 1, learning_rate > 0, samples >= 0 and one open value or more of "
                f"each kind, got {self}"
            )

    def opened(self, kind: Kind) -> int:
        """How many of the largest values of a kind are open (a large number for all)."""
        return dict(self.open).get(kind, 1 << 30)


def progressive_shrinking(
    shape: ElasticShape,
    *,
    largest_steps: int,
    steps: int,
    largest_rate: float,
    rate: float,
    largest_samples: int = 1,
    samples: int = 2,
) -> tuple[Phase, ...]:
    """The phases of a shape: the largest network, then one phase for each value that opens.

    Args:
        shape: of the supernet.
        largest_steps: of the first phase, in which only the resolution is elastic.
        steps: of each later phase.
        largest_rate: peak learning rate of the first phase.
        rate: of the later ones.
        largest_samples: random sub-networks a step of the first phase.
        samples: of the later ones.
    """
    counts = {
        "kernel": max(len(stage.kernels) for stage in shape.stages),
        "depth": max(len(stage.depths) for stage in shape.stages),
        "expansion": max(len(stage.expansions) for stage in shape.stages),
    }
    open_now: dict[Kind, int] = dict.fromkeys(ORDER, 1)
    phases = [Phase("largest", largest_steps, largest_rate, tuple(open_now.items()), largest_samples)]
    for kind in ORDER:
        for count in range(2, counts[kind] + 1):
            open_now[kind] = count
            phases.append(Phase(f"{kind} {count}", steps, rate, tuple(open_now.items()), samples))
    return tuple(phases)


def opened_space(space: ArchitectureSpace, phase: Phase) -> ArchitectureSpace:
    """The part of a space that is open in a phase."""
    values = {each.name: each.values[-phase.opened(each.kind) :] for each in space.dimensions}
    dimensions = []
    for each in space.dimensions:
        when = tuple(
            (parent, tuple(value for value in allowed if value in values[parent])) for parent, allowed in each.when
        )
        dimensions.append(replace(each, values=values[each.name], when=when))
    return ArchitectureSpace(tuple(dimensions), space.ties)
