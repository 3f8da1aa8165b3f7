r"""A bandit that shares evaluations between proposers by what came of the last ones.

Discounted UCB (A. Garivier and E. Moulines, On upper-confidence bound policies for switching bandit problems, ALT 2011,
section 3; L. Kocsis and C. Szepesvári, 2006): rewards lose weight with every round, because a proposer that found much
at the beginning need not go on so. With the discounted number of evaluations of arm i and their mean reward

.. math:: N_t(i) = \sum_{s < t} \gamma^{t - s} n_s(i), \qquad
          \bar X_t(i) = \frac{1}{N_t(i)} \sum_{s < t} \gamma^{t - s} \sum_{e \in s, i} r_e

the next evaluation goes to the largest :math:`\bar X_t(i) + \sqrt{\xi \log \max(1, \sum_j N_t(j)) / N_t(i)}` (the
paper's factor 2 B is part of :math:`\xi` here). A round asks for many at once: evaluations that were shared out count
in N at once, their rewards when they are known. An arm without any evaluation comes first. Ties go to the arm named
first; nothing is random.

Rewards are ranks within a round: improvements shrink by orders of magnitude as a search goes on, so an absolute
improvement says more of the round than of the proposer. No improvement is 0, the largest is 1, equal ones share the
mean of their ranks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Arm:
    """What is known of one proposer, for reports.

    Attributes:
        name: of the proposer.
        evaluations: rewarded so far.
        improved: how many of them improved on what was known.
        credit: discounted mean reward, in [0, 1]; ``None`` before the first.
        shares: evaluations that each round gave it.
    """

    name: str
    evaluations: int
    improved: int
    credit: float | None
    shares: tuple[int, ...]


class Bandit:
    r"""Discounted UCB over proposers, in rounds.

    Args:
        arms: names, in the order that decides ties.
        discount: weight :math:`\gamma` of a round relative to the one after it.
        exploration: :math:`\xi`; larger spreads evaluations more evenly.
    """

    def __init__(self, arms: Sequence[str], discount: float = 0.7, exploration: float = 0.15) -> None:
        if not arms or len(set(arms)) < len(arms):
            raise InvalidInput(f"arms {list(arms)}; give at least one name, each once")
        if not 0 < discount <= 1 or not exploration >= 0:
            raise InvalidInput(f"discount={discount}, exploration={exploration}; expected 0 < discount <= 1, 0 or more")
        self.arms = tuple(arms)
        self.discount, self.exploration = discount, exploration
        self._pulls = dict.fromkeys(self.arms, 0.0)
        self._rewards = dict.fromkeys(self.arms, 0.0)
        self._evaluations = dict.fromkeys(self.arms, 0)
        self._improved = dict.fromkeys(self.arms, 0)
        self._shares: list[dict[str, int]] = []

    def shares(self, count: int, without: Collection[str] = ()) -> dict[str, int]:
        """How many of the next evaluations each arm gets.

        Args:
            count: evaluations of the round.
            without: arms that have nothing more to offer.

        Returns:
            By name, in the order of the arms; the sum is ``count`` unless no arm is left. Asking does not change the
            bandit: report what was really measured with ``reward``.
        """
        left = [name for name in self.arms if name not in without]
        given = dict.fromkeys(self.arms, 0)
        for _ in range(count if left else 0):
            given[max(left, key=lambda name: self._index(name, given))] += 1
        return given

    def reward(self, improvements: Mapping[str, Sequence[float]]) -> None:
        """End a round: what each evaluation improved, by arm (see ``Archive.add``).

        Args:
            improvements: 0 or more, one number for each evaluation, failed ones (0) included.

        Raises:
            InvalidInput: an unknown arm, or a negative or NaN improvement.
        """
        flat = np.array([each for name in self.arms for each in improvements.get(name, ())], dtype=np.float64)
        unknown = sorted(set(improvements) - set(self.arms))
        if unknown or not (flat >= 0).all():
            raise InvalidInput(
                f"improvements of {unknown or 'some arm'}: expected numbers of 0 or more of {', '.join(self.arms)}"
            )
        rewards = iter(ranked(flat).tolist())
        for name in self.arms:
            gained = [next(rewards) for _ in improvements.get(name, ())]
            self._pulls[name] = self.discount * self._pulls[name] + len(gained)
            self._rewards[name] = self.discount * self._rewards[name] + sum(gained)
            self._evaluations[name] += len(gained)
            self._improved[name] += sum(each > 0 for each in gained)
        self._shares.append({name: len(improvements.get(name, ())) for name in self.arms})

    def report(self) -> list[Arm]:
        """Shares and credits so far."""
        return [
            Arm(
                name,
                self._evaluations[name],
                self._improved[name],
                self._rewards[name] / self._pulls[name] if self._pulls[name] else None,
                tuple(each[name] for each in self._shares),
            )
            for name in self.arms
        ]

    def _index(self, name: str, given: Mapping[str, int]) -> float:
        pulls = self._pulls[name] + given[name]
        if not pulls:
            return math.inf
        mean = self._rewards[name] / self._pulls[name] if self._pulls[name] else 0.0
        total = sum(self._pulls.values()) + sum(given.values())
        return mean + math.sqrt(self.exploration * math.log(max(1.0, total)) / pulls)


def ranked(improvements: FloatArray) -> FloatArray:
    """Rewards in [0, 1]: 0 for no improvement, else the rank among all of the round (ties by mean) over their number.

    >>> ranked(np.array([0.0, 3.0, 1e-5, 0.0])).tolist()
    [0.0, 1.0, 0.75, 0.0]
    """
    if not len(improvements):
        return np.zeros(0)
    below = (improvements[:, None] > improvements).sum(axis=1)
    equal = (improvements[:, None] == improvements).sum(axis=1)
    ranks: FloatArray = (below + (equal + 1) / 2) / len(improvements)
    return np.where(improvements > 0, ranks, 0.0)
