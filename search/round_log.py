"""The record of the rounds of a search: what each measured, the front after it, and what was foreseen before it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .archive import Archive
from .mixture import Mixture
from .surrogate import Fitted, front_gap


@dataclass
class RoundLog:
    """Lines of plain data, oldest first.

    Attributes:
        lines: of every round its name, the number of candidates proposed and measured in it, and after it the number
            of evaluations, the hypervolume of the measured front, the best quality within the constraints, the gap to
            the predicted front, and the kind of surrogate that chose the round.
    """

    lines: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, name: str, proposed: int, archive: Archive, fitted: Fitted | None = None, mixture: Mixture | None = None
    ) -> None:
        """One line for a round that has ended.

        Args:
            name: of the round.
            proposed: how many candidates were asked for.
            archive: what is measured by now.
            fitted: the surrogate that the round was chosen with.
            mixture: knows the front that it foretold.
        """
        best, before = archive.best(), self.lines[-1]["evaluations"] if self.lines else 0
        self.lines.append(
            {
                "round": name,
                "proposed": proposed,
                "measured": len(archive.evaluated) - before,
                "evaluations": len(archive.evaluated),
                "hypervolume": archive.hypervolume(),
                "best": best.quality if best else None,
                "gap": gap(archive, fitted, mixture) if fitted and mixture else None,
                "model": fitted.kind if fitted else None,
            }
        )

    def history(self) -> list[tuple[int, float, float]]:
        """After each round (evaluations, hypervolume, best quality within the constraints)."""
        return [
            (line["evaluations"], line["hypervolume"], math.inf if line["best"] is None else line["best"])
            for line in self.lines
        ]

    def told(self) -> str:
        """The last line for people."""
        line = self.lines[-1]
        best = "none within the constraints" if line["best"] is None else f"{line['best']:.4g}"
        parts = [f"hypervolume {line['hypervolume']:.3f}", f"best {best}"]
        if line["gap"] is not None:
            parts.append(f"gap {100 * line['gap']:.1f} %")
        return ", ".join(parts)


def gap(archive: Archive, fitted: Fitted, mixture: Mixture) -> float | None:
    """Share of the predicted front's hypervolume that is not measured yet, in the first price objective.

    The predicted front is the exact one of the refitted table, thinned evenly. 0 or less: the measurements keep what
    was promised.
    """
    front = mixture.predicted_front()
    known = [found for found in archive.evaluated if found.feasible]
    if not len(front) or not known:
        return None
    return front_gap(
        fitted.latent,
        fitted.predict(front).mean,
        archive.problem.totals(front, archive.problem.price_objectives[0])[:, None],
        np.array([found.quality for found in known]),
        np.array([found.costs[:1] for found in known]),
    ).relative
