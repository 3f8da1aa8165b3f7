"""From the rounds of a joint search to its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ...architecture import Genome
from ...errors import InvalidInput
from ...space import Configuration
from ...task import SPLITS
from ..pareto import non_dominated
from ..stage import Ledger
from .joint_point import JointPoint
from .nested import Nested
from .result import JointResult


def summarized(search: Nested, ledger: Ledger, job: dict[str, Any], record: dict[str, Any]) -> JointResult:
    """The result of what was measured.

    Raises:
        InvalidInput: no genome could be measured.
    """
    genomes, base = search.genomes, Genome(search.largest)
    measured, law = genomes.measured(), search.law
    if law is None or not measured or any(genomes.of(base, split) is None for split in SPLITS[1:]):
        reason = next(iter(genomes.failures.values()), "nothing was measured")
        raise InvalidInput(f"no genome could be evaluated: {reason}")
    first = search.asked.prices[0]
    prices = {each: search.assessed[each.choices].price(each.configuration) for each in measured}
    measured.sort(key=lambda each: (prices[each][first].value, each.digest))
    qualities = {each: found.value for each in measured if (found := genomes.of(each)) is not None}
    table = np.array([[qualities[each], *(prices[each][n].value for n in search.asked.prices)] for each in measured])
    uniforms = search.assessed[search.largest].problem.space.uniforms()
    baseline = {configuration: name for name, configuration in reversed(uniforms.items())}
    names = _named(measured, search, baseline)
    points = []
    for each, name, on_front in zip(measured, names, non_dominated(table), strict=True):
        of, validation = search.assessed[each.choices], genomes.of(each)
        assert validation is not None
        score = of.score(each.configuration)
        foretold = law.predict(each.choices, score)
        net = genomes.of(Genome(each.choices)) if Genome(each.choices) in genomes.origins else None
        points.append(
            JointPoint(
                name,
                each,
                genomes.origins[each],
                baseline.get(each.configuration) if each.choices == search.largest else None,
                score,
                law.floats[each.choices] if net is None else net.value,
                (foretold, *law.interval(each.choices, score)),
                validation,
                genomes.of(each, "holdout"),
                prices[each],
                bool(on_front),
                of.meets(each.configuration),
            )
        )
    usable, front = search.merged()
    return JointResult(
        points,
        {split: found for split in SPLITS[1:] if (found := genomes.of(base, split)) is not None},
        search.subnets,
        search.assessed,
        [
            (usable[member].genome(row), float(values[0]), tuple(float(value) for value in values[1:]))
            for member, row, values in zip(front.member, front.row, front.values, strict=True)
        ],
        law,
        search.refused,
        genomes.failures,
        search.asked.objectives,
        search.asked.constraints,
        points[0].validation.metric,
        {"rounds": search.log, "ended": search.ended, "architectures": len(search.assessed), **asdict(search.asked)},
        {},
        _notes(search),
        job,
        ledger,
        record,
    )


def _named(measured: Sequence[Genome], search: Nested, baseline: Mapping[Configuration, str]) -> list[str]:
    """Short ids: ``uniform-w4`` for the baselines, ``p01``, ``p02``, … for the others in their order."""
    width, count, found = len(str(len(measured))), 0, []
    for each in measured:
        if each.choices == search.largest and each.configuration in baseline:
            found.append(f"uniform-{baseline[each.configuration]}")
        else:
            count += 1
            found.append(f"p{count:0{width}d}")
    return found


def _notes(search: Nested) -> list[str]:
    """What is to be told beside the points."""
    asked = search.asked
    found = [f"architecture {choices.digest} was left out: {reason}" for choices, reason in search.refused.items()]
    if len(asked.prices) > 1:
        found.append(
            f"an architecture's front is the union of its exact fronts against {' and '.join(asked.prices)}, each "
            "alone; a point between them that is on none is not proposed"
        )
    return found
