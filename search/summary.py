"""From what was measured to a result: points with prices, predictions and flags, and the refitted surrogate."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidInput
from ..measurement import Measurement
from ..space import Configuration
from ..task import SPLITS, Split
from .choice import Point
from .pareto import non_dominated
from .problem import FLOAT, Problem
from .proxy_choice import ProxyChoice
from .result import Result
from .stage import Ledger, Ran
from .surrogate import PowerLaw

Known = Mapping[tuple[str, Split], Measurement]


def summarize(
    problem: Problem,
    origins: Mapping[Configuration, str],
    known: Known,
    *,
    failures: Mapping[Configuration, str],
    seconds: dict[str, float],
    job: dict[str, Any],
    model: str,
    metric: str,
    notes: list[str],
    choice: ProxyChoice | None = None,
    ledger: Ledger | None = None,
    search: dict[str, Any] | None = None,
    recipe: dict[str, Any] | None = None,
) -> Result:
    """The result of what was measured.

    Args:
        problem: scores, prices, objectives, constraints.
        origins: the candidates, in the order of proposal, with who proposed them; ``FLOAT`` among them is no point.
        known: measurements by (configuration digest, split).
        failures: configurations without finite output, with the reason.
        seconds: wall time by stage.
        job: as asked.
        model: name of the model.
        metric: of the quality.
        notes: what else is to be told.
        choice: what ``proxies: auto`` decided.
        ledger: what ran and what was reused.
        search: how the search went (``Loop.report``).
        recipe: how everything was quantized, and how that was chosen.

    Raises:
        InvalidInput: no candidate, or not the float model, has a measurement.
    """
    measured = [found for found in origins if found != FLOAT and (found.digest, "validation") in known]
    if not measured or any((FLOAT.digest, split) not in known for split in SPLITS[1:]):
        reason = next(iter(failures.values()), "nothing was measured")
        raise InvalidInput(f"no configuration could be evaluated: {reason}")
    record = ledger or Ledger()
    float_model: dict[str, Measurement] = {split: known[FLOAT.digest, split] for split in SPLITS[1:]}
    first = problem.price_objectives[0]
    totals = {found: problem.prices.of(found) for found in measured}
    measured.sort(key=lambda found: (totals[found][first].value, found.digest))
    values = np.array([known[found.digest, "validation"].value for found in measured])
    costs = [[totals[found][name].value for name in problem.price_objectives] for found in measured]
    proxy = next(iter(problem.sensitivities.values()))
    scores = np.array([proxy.joint(found) for found in measured])
    started = time.perf_counter()
    law = PowerLaw.fit(scores, values, offset=float_model["validation"].value)
    record.add(Ran("refit", f"power law of {proxy.proxy}", "", 1, 0, time.perf_counter() - started))
    baseline = {configuration: name for name, configuration in reversed(problem.space.uniforms().items())}
    points = [
        Point(
            id=name,
            configuration=found,
            origin=origins[found],
            baseline=baseline.get(found),
            score=float(score),
            predicted=law.predict(float(score)) if law else None,
            validation=known[found.digest, "validation"],
            holdout=known.get((found.digest, "holdout")),
            prices=totals[found],
            pareto=bool(on_front),
            feasible=bool(problem.meets(problem.space.choice(found)[None])[0]),
        )
        for name, found, score, on_front in zip(
            numbered(measured, problem.space.uniforms()),
            measured,
            scores,
            non_dominated(np.column_stack([values, np.array(costs)])),
            strict=True,
        )
    ]
    return Result(
        problem,
        points,
        float_model,
        law,
        seconds,
        dict(failures),
        job,
        model,
        metric,
        notes,
        choice,
        record,
        search=dict(search or {}),
        recipe=dict(recipe or {}),
    )


def numbered(configurations: Sequence[Configuration], uniforms: Mapping[str, Configuration]) -> Iterator[str]:
    """Short ids: ``uniform-w4`` for uniform configurations, ``p01``, ``p02``, … for the others in their order."""
    names = {configuration: f"uniform-{name}" for name, configuration in reversed(list(uniforms.items()))}
    width = len(str(len(configurations)))
    count = 0
    for configuration in configurations:
        if configuration in names:
            yield names[configuration]
        else:
            count += 1
            yield f"p{count:0{width}d}"
