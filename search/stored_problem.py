"""The stage *propose*: the exact fronts of a problem are solved once and kept by content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from ..store import Store
from .problem import Problem
from .stage import Ledger, key_of, outcome

_FRONT = "front-1"


@dataclass(frozen=True)
class StoredProblem(Problem):
    """A problem whose exact fronts come from the store where scores, prices, ties and constraints are the same.

    Attributes:
        store: where fronts are kept.
        ledger: is told which were solved and which reused.
        kept: proxies whose fronts are kept; those of a surrogate, which changes with every round, are not.
    """

    store: Store = field(kw_only=True, repr=False, compare=False)
    ledger: Ledger = field(kw_only=True, repr=False, compare=False)
    kept: frozenset[str] = field(kw_only=True)

    def front(self, proxy: str, metric: str) -> np.ndarray:
        """See ``Problem.front``."""
        if proxy not in self.kept:
            return super().front(proxy, metric)
        if (proxy, metric) not in self._fronts:
            solve = super().front
            self._fronts[proxy, metric] = outcome(
                "propose",
                f"exact front of {proxy} and {metric}",
                self._key(proxy, metric),
                self.store,
                self.ledger,
                compute=lambda: solve(proxy, metric),
                encode=lambda front: {"front": front},
                decode=lambda arrays, seconds: arrays["front"],
            )
        return self._fronts[proxy, metric]

    def _key(self, proxy: str, metric: str) -> str:
        """Everything that the front depends on; the base of a price shifts it and counts only through constraints."""
        priced = dict.fromkeys([metric, *self.constraints])
        pairs = self.sensitivities[proxy].pairs or {}
        return key_of(
            _FRONT,
            self.space.digest,
            _hash(self.loss(proxy)),
            [[name, _hash(self.cost(name)), self.prices[name].base] for name in priced],
            self.constraints,
            metric,
            [[*sites, _hash(np.asarray(pairs[sites]))] for sites in sorted(pairs)],
        )


def _hash(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f8").tobytes()).hexdigest()
