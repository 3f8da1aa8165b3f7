"""``bitfront front JOB.yaml --budget``: a new budget from what the store holds, without loading the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..store import Store
from .job import read_job
from .job_key import job_key

if TYPE_CHECKING:
    from ..search import Progress
    from ..search.resolve import Answer


def answer_job(
    job_file: Path,
    budgets: Mapping[str, float],
    *,
    store: str | None = None,
    measure: bool = False,
    progress: Progress | None = None,
) -> Answer:
    """The answer to a budget for a job that was run before, finished or not.

    Args:
        job_file: the job; its constraints hold too, unless a budget on the same price replaces them.
        budgets: price -> largest value.
        store: URL of the store.
        measure: whether the exact optimum is measured, on validation and held-out data, if it was not before. Only
            this loads the model.
        progress: who watches the measurement.

    Raises:
        InvalidInput: the store holds nothing of this job, or the job searches architectures too.
        InfeasibleBudget: no configuration meets the budget.
        BitfrontError: the measurement failed.
    """
    from ..search.resolve import resolve

    job, folder = read_job(job_file)
    if job.space.architecture is not None:
        from .joint_front import no_new_budget

        raise no_new_budget(str(job_file))
    knowledge = Store(store)
    key = job_key(job, folder, knowledge)
    found = resolve(knowledge, key, budgets, job.constraints)
    if not measure or found.settled:
        return found
    from .measure_job import measure_configuration

    measure_configuration(job, folder, found.resolved.configuration, knowledge, progress)
    return resolve(knowledge, key, budgets, job.constraints)


def parse_budgets(given: list[str]) -> dict[str, float]:
    """Budgets as written on the command line, ``PRICE=MAX``.

    Raises:
        InvalidInput: one is not written so.
    """
    limits = {}
    for item in given:
        name, _, value = item.partition("=")
        try:
            limits[name] = float(value)
        except ValueError:
            raise InvalidInput(f"--budget {item!r}: {value!r} is not a number; write PRICE=MAX") from None
    return limits


def told(answer: Answer, job_file: Path, budgets: list[str]) -> list[str]:
    """The answer in lines for a terminal."""
    found = answer.resolved
    limits = ", ".join(f"{name} <= {limit:g}" for name, limit in answer.budgets.items()) or "no budget"
    lines = [f"budget    {limits}; {answer.points} configurations measured; answered in {answer.seconds:.2f} s"]
    if answer.choice is None:
        lines.append("measured  no measured configuration meets it")
    else:
        point = answer.choice.point
        lines.append(f"measured  {point.id}: {answer.metric} {_interval(point.holdout or point.validation)}; "
                     f"{_prices(point.prices)}")  # fmt: skip
        lines.append(f"          {answer.choice.reason}")
        lines += [f"          a tie with {answer.choice.rival.id}"] if answer.choice.tie and answer.choice.rival else []
    lines.append(f"optimum   {found.configuration.digest} of {answer.proxy}: {_prices(found.prices)}")
    if found.measured is not None:
        lines.append(f"          MEASURED {answer.metric} {_interval(found.measured)}")
        return lines
    if found.predicted is not None:
        foretold = f"{found.predicted:.4g} [{found.low:.4g}, {found.high:.4g}]"
        trust = "unknown" if answer.trust is None else f"{answer.trust:.2f}"
        lines.append(f"          PREDICTED {answer.metric} {foretold}, not measured (rank correlation {trust})")
    else:
        lines.append(f"          not measured, and too little is for a prediction of {answer.metric}")
    asked = " ".join(f"--budget {item}" for item in budgets)
    lines.append(f"to measure it: bitfront front {job_file} {asked} --measure".replace("  ", " "))
    return lines


def _interval(found: Any) -> str:
    return f"{found.value:.4g} [{found.low:.4g}, {found.high:.4g}] ({found.split})"


def _prices(prices: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {price.value:.4g}" + ("" if price.source == "exact" else f" ({price.source})")
        for name, price in prices.items()
    )
