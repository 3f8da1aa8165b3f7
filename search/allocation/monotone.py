"""Optional repair of noisy scores: more bits should not lose more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ...errors import InvalidInput
from .problem import BoolArray, FloatArray, as_table


@dataclass(frozen=True)
class Repair:
    """One score that was changed.

    Args:
        site: Its site.
        choice: Its choice.
        before: The score that was given.
        after: The score that is used instead.
    """

    site: int
    choice: int
    before: float
    after: float


def monotone_repair(
    loss: ArrayLike, order: ArrayLike, *, allowed: ArrayLike | None = None
) -> tuple[FloatArray, Sequence[Repair]]:
    """The nearest losses (least squares) that do not rise with `order`, site by site.

    Isotonic regression by pooling adjacent violators (R. E. Barlow et al., Statistical inference under order
    restrictions, 1972, as in `scipy.optimize.isotonic_regression`); choices of equal order keep their own places in a
    stable order.

    Args:
        loss: Shape [sites, choices].
        order: What should reduce the loss (bits, cost), shape [sites, choices] or [choices].
        allowed: Boolean [sites, choices]; other entries stay as they are.

    Returns:
        The repaired losses and every change, largest first.

    Raises:
        InvalidInput: If the shapes disagree or an offered entry is not finite.
    """
    from scipy.optimize import isotonic_regression

    shape = np.shape(loss)
    mask: BoolArray = np.ones(shape, dtype=np.bool_) if allowed is None else np.asarray(allowed, dtype=np.bool_)
    if mask.shape != shape:
        raise InvalidInput(f"allowed has shape {mask.shape}, expected {shape} as the losses")
    table = as_table(loss, "loss", mask)
    if np.shape(order) not in (shape, shape[1:]):
        raise InvalidInput(f"order has shape {np.shape(order)}, expected {shape} or {shape[1:]}")
    ranks = as_table(np.broadcast_to(np.asarray(order, dtype=np.float64), shape), "order", mask)
    repaired = np.array(loss, dtype=np.float64)
    changes = []
    for site in range(shape[0]):
        offered = np.flatnonzero(mask[site])
        offered = offered[np.argsort(ranks[site, offered], kind="stable")]
        smooth = isotonic_regression(table[site, offered], increasing=False).x
        for choice, after in zip(offered.tolist(), smooth.tolist(), strict=True):
            before = float(table[site, choice])
            if abs(after - before) > 1e-12 * float(np.abs(table[site, offered]).max()):
                repaired[site, choice] = after
                changes.append(Repair(site, choice, before, after))
    return repaired, tuple(sorted(changes, key=lambda change: -abs(change.after - change.before)))
