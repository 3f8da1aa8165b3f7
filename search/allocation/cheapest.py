"""The reverse question: the cheapest configuration whose predicted loss stays within a bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from ...errors import InvalidInput
from .allocate import allocate
from .problem import PairTables
from .result import Allocation


def cheapest(
    cost: ArrayLike,
    losses: ArrayLike | Mapping[str, ArrayLike],
    limits: float | Mapping[str, float],
    ties: Iterable[Iterable[int]] | None = None,
    *,
    costs: Mapping[str, ArrayLike] | None = None,
    budgets: Mapping[str, float] | None = None,
    tie_break: Sequence[str] | None = None,
    pair_loss: PairTables | None = None,
    **options: Any,
) -> Allocation:
    """Minimises one summed cost subject to `loss_t(x) <= limit_t` for every loss term (and other budgets).

    Args:
        cost: What to minimise, shape [sites, choices].
        losses: One loss table [sites, choices], then called "loss", or several by name.
        limits: The largest loss allowed, or one by name.
        ties: Groups of sites that take the same choice.
        costs: Other costs by name.
        budgets: Their budgets.
        tie_break: Names to make small among equally cheap configurations; by default the loss terms.
        pair_loss: Two sites to a table that is added to the (only) loss.
        options: As for `allocate`: allowed, pins, time_limit, gap, ...

    Returns:
        The allocation; `objective` is the cost, `costs` holds the losses and the other costs.

    Raises:
        InvalidInput: If the arguments do not fit together.
        InfeasibleBudget: If the limits cannot be met.
    """
    terms = dict(losses) if isinstance(losses, Mapping) else {"loss": losses}
    bounds = dict(limits) if isinstance(limits, Mapping) else dict.fromkeys(terms, float(limits))
    if not isinstance(limits, Mapping) and len(terms) > 1:
        raise InvalidInput(f"one limit for {len(terms)} loss terms; give a mapping with the names {sorted(terms)}")
    if set(bounds) - set(terms) or set(terms) & set(costs or {}):
        raise InvalidInput(f"limits {sorted(bounds)} must name loss terms {sorted(terms)}, which must not be costs too")
    if pair_loss and len(terms) > 1:
        raise InvalidInput("pair_loss needs a single loss term")
    return allocate(
        cost,
        {**terms, **(costs or {})},
        {**bounds, **(budgets or {})},
        ties,
        tie_break=tuple(terms) if tie_break is None else tie_break,
        pair_costs={next(iter(terms)): pair_loss} if pair_loss else None,
        **options,
    )
