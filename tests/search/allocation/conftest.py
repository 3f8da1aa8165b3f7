"""A naive reference: every configuration is tried."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

Pairs = dict[tuple[int, int], np.ndarray]


@dataclass
class Enumeration:
    """All configurations with their values."""

    choice: np.ndarray
    loss: np.ndarray
    cost: dict[str, np.ndarray]

    def best(self, budgets: dict[str, float], tolerance: float = 1e-9) -> float | None:
        fits = self.fits(budgets, tolerance)
        return float(self.loss[fits].min()) if fits.any() else None

    def fits(self, budgets: dict[str, float], tolerance: float = 1e-9) -> np.ndarray:
        kept = np.ones(len(self.loss), dtype=bool)
        for name, budget in budgets.items():
            kept &= self.cost[name] <= budget + tolerance
        return kept


@pytest.fixture(scope="session")
def enumerate_all() -> Callable[..., Enumeration]:
    def enumeration(
        loss: np.ndarray,
        costs: dict[str, np.ndarray],
        ties: list[list[int]] | None = None,
        allowed: np.ndarray | None = None,
        pins: dict[int, int] | None = None,
        pair_loss: Pairs | None = None,
        pair_costs: dict[str, Pairs] | None = None,
    ) -> Enumeration:
        sites, choices = loss.shape
        found = np.array(list(itertools.product(range(choices), repeat=sites)))
        every = np.arange(sites)
        kept = np.ones(len(found), dtype=bool)
        for tie in ties or []:
            kept &= (found[:, tie] == found[:, tie[:1]]).all(axis=1)
        for site, choice in (pins or {}).items():
            kept &= found[:, site] == choice
        if allowed is not None:
            kept &= allowed[every, found].all(axis=1)
        found = found[kept]

        def total(table: np.ndarray, pairs: Pairs) -> np.ndarray:
            values = table[..., every, found].sum(axis=-1)
            values = values.max(axis=0) if values.ndim == 2 else values
            return values + sum(pair[found[:, a], found[:, b]] for (a, b), pair in pairs.items())

        return Enumeration(
            found,
            total(loss, pair_loss or {}),
            {name: total(cost, (pair_costs or {}).get(name, {})) for name, cost in costs.items()},
        )

    return enumeration
