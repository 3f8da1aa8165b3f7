"""Evolution with its judgement: formulas are chosen on some configurations of some networks and judged on others.

The configurations of every network are cut into two halves alike in size. Formulas evolve on the first halves, one is
chosen there, and the hand-made proxy that it is compared with is chosen there too. Both are judged on the second
halves, and with ``leave_one_out`` on all configurations of a network of which the evolution saw nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InvalidInput
from ...proxies.formulas import Formula, Unusable, scores
from .bench_data import BenchData, FloatArray
from .evolve import Evolution, evolve
from .record import Record
from .scoring import fitness_of
from .settings import EvolutionSettings
from .validation import DRAWS, Judgement, best_rival, judge

EVOLVED = "evolved"
"""Name of the evolved formula among the judged candidates."""

SIZE = "size"
"""Name of the baseline that ranks by size alone: the larger, the better."""


@dataclass(frozen=True)
class HeldOut:
    """An evolution and what its formula is worth on what did not choose it.

    Attributes:
        evolution: on the first halves.
        chosen: its formula.
        rival: the hand-made proxy that ranks the same configurations best; ``None`` if no proxy scored all networks.
        peer: the best of the hand-made ones that are not ``costly``.
        seen: judged on the other configurations of the networks of the evolution.
        unseen: judged on the network that was left out; ``None`` if none was.
        unusable: network -> why the formula gives no numbers there; it is judged as knowing nothing.
    """

    evolution: Evolution
    chosen: Record
    rival: str | None
    peer: str | None
    seen: Judgement
    unseen: Judgement | None
    unusable: dict[str, str]

    @property
    def beaten(self) -> bool:
        """Whether the formula is better than the hand-made rival, the whole interval of the difference above 0.

        Where a network was left out, there as well.
        """
        if self.rival is None:
            return False
        judgements = [self.seen] + ([self.unseen] if self.unseen else [])
        return all(each.comparisons[self.rival].beaten for each in judgements)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        fitness = self.chosen.fitness
        return {
            "expression": self.chosen.expression,
            "orientation": fitness.orientation if fitness else 1,
            "size": self.chosen.size,
            "fitness": self.chosen.value,
            "rival": self.rival,
            "peer": self.peer,
            "beaten": self.beaten,
            "networks": list(self.evolution.networks),
            "seen": self.seen.to_dict(),
            "unseen": self.unseen.to_dict() if self.unseen else None,
            "unusable": self.unusable,
            "tried": self.evolution.tried,
            "scored": self.evolution.scored,
            "computed": self.evolution.computed,
            "per_minute": self.evolution.per_minute,
            "seconds": self.evolution.seconds,
        }


def evolve_held_out(
    benches: Sequence[BenchData],
    *,
    left_out: BenchData | None = None,
    released: Mapping[str, tuple[str, int]] | None = None,
    costly: Collection[str] = (),
    share: float = 0.5,
    draws: int = DRAWS,
    settings: EvolutionSettings | None = None,
    **limits: Any,
) -> HeldOut:
    """Evolve on the first halves of some networks, judge on the second halves and on a network that was left out.

    Args:
        benches: networks whose first halves choose.
        left_out: a network that only judges.
        released: other formulas that are judged beside, name -> (expression, orientation), such as EMQ's.
        costly: hand-made proxies that cost more than any formula: those that run a perturbed model for every (site,
            format). The best of the others is the ``peer``.
        share: of the configurations that chooses.
        draws: bootstrap resamples.
        settings: of the evolution.
        **limits: ``seconds``, ``formulas``, ``store``, ``workers``, ``progress`` of :func:`evolve`.

    Returns:
        The formula and its judgements.

    Raises:
        InvalidInput: see ``evolve``; a share that leaves no half; a network that is left out and not left out.
    """
    chosen_settings = settings or EvolutionSettings()
    if left_out is not None and left_out.name in [bench.name for bench in benches]:
        raise InvalidInput(f"network {left_out.name} is left out and among those that choose; leave it out of one")
    halves = [bench.halves(chosen_settings.seed, share) for bench in benches]
    first, second = [half[0] for half in halves], [half[1] for half in halves]
    evolution = evolve(first, settings=chosen_settings, **limits)
    chosen = evolution.chosen
    fitness, among = fitness_of(first, chosen_settings), first[0].rivals if left_out is None else left_out.rivals
    rival = best_rival(first, fitness, among)
    peer = best_rival(first, fitness, [name for name in among if name not in costly])
    assert chosen.fitness is not None  # what is archived has one
    formulas = {**(released or {}), EVOLVED: (chosen.expression, chosen.fitness.orientation)}
    unusable: dict[str, str] = {}

    def judged(held: Sequence[BenchData]) -> Judgement:
        return judge(EVOLVED, _predictions(formulas, held, unusable), held, draws=draws, seed=chosen_settings.seed)

    return HeldOut(
        evolution, chosen, rival, peer, judged(second), judged([left_out]) if left_out is not None else None, unusable
    )


def leave_one_out(benches: Sequence[BenchData], **arguments: Any) -> Iterator[HeldOut]:
    """Every network left out once, in order.

    Args:
        benches: at least two networks.
        **arguments: of :func:`evolve_held_out`.

    Raises:
        InvalidInput: there is only one network.
    """
    if len(benches) < 2:
        raise InvalidInput(f"{len(benches)} network; one can only be left out of at least two")
    for bench in benches:
        yield evolve_held_out([each for each in benches if each is not bench], left_out=bench, **arguments)


def _predictions(
    formulas: Mapping[str, tuple[str, int]], benches: Sequence[BenchData], unusable: dict[str, str]
) -> dict[str, list[FloatArray]]:
    """Of the formulas, the size, and every rival that scored all networks; a released formula needs its inputs."""
    found: dict[str, list[FloatArray]] = {}
    for name, (expression, orientation) in formulas.items():
        formula = Formula.parse(expression)
        if name == EVOLVED or all(set(formula.inputs) <= set(bench.statistics.names) for bench in benches):
            found[name] = [_predicted(name, formula, orientation, bench, unusable) for bench in benches]
    for name in benches[0].rivals:
        if name not in found and all(name in bench.rivals for bench in benches):
            found[name] = [bench.rivals[name] for bench in benches]
    return found | {SIZE: [-bench.sizes for bench in benches]}


def _predicted(name: str, formula: Formula, orientation: int, bench: BenchData, unusable: dict[str, str]) -> FloatArray:
    """Zeros, which rank nothing, where the formula gives no numbers."""
    try:
        return orientation * bench.predict(scores(formula, bench.statistics))
    except Unusable as cause:
        unusable[bench.name if name == EVOLVED else f"{name}: {bench.name}"] = cause.reason
        return np.zeros(len(bench))
