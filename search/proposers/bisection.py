r"""Bisection along a sensitivity order: how far precision can go down until the quality breaks.

C. Schaefer et al., Augmenting Hessians with inter-layer dependencies for mixed-precision post-training quantization,
arXiv:2306.04879, section 3: layers are ordered by sensitivity, and a bisection finds how many of them can take the
lower precision within a target of quality, one bit-width after the other. Here the steps of all widths are one order,
so that one bisection serves: from the finest configuration the next step is always the one (a group to its next
coarser format) that raises the additive loss least,

.. math:: \Delta_g = \ell_g(f') - \ell_g(f) + \sum_{h \ne g} \bigl(\ell_{gh}(f', x_h) - \ell_{gh}(f, x_h)\bigr)

with the pairwise (inter-layer) terms where a surrogate has any. The configurations along the way are a path; quality
is assumed to worsen along it. With a target the measured points bracket the last one that keeps it, and the bracket
is divided into equal parts, one for each proposal. Without a target every interval between measured points is a
bracket: the one across which the log quality changes most is halved first, so that the path becomes a front.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..allocation.problem import build
from ..groups import IntArray
from ..problem import Problem
from .limits import FloatArray
from .repair import BoolArray
from .scale import signed_log
from .tables import Pairs, TableProposer


class Bisection(TableProposer):
    """Bisection on the path from fine to coarse; only what meets the constraints is proposed.

    Args:
        problem: the problem; its first proxy gives the order until ``use`` gives another table.
        seed: not used; nothing is random here.
        target: the worst quality allowed, in the units of the metric; ``None``: the whole path is refined.
    """

    name = "bisection"

    def __init__(self, problem: Problem, seed: int = 0, target: float | None = None) -> None:
        super().__init__(problem, seed)
        self.target = target
        self._path: IntArray | None = None

    def use(self, table: FloatArray, pairs: Pairs | None = None) -> None:
        """Order the steps by this table from now on."""
        super().use(table, pairs)
        self._path = None

    def candidates(self) -> Iterator[tuple[IntArray, str]]:
        """Points of the path until the bracket is closed, or none is left."""
        path = self._feasible_path()
        quality = {each.choice.tobytes(): signed_log(each.quality) for each in self.told}
        known = [quality.get(choice.tobytes()) for choice in self.groups.expand(path)]
        values = np.array([np.nan if each is None else each for each in known])
        asked = np.array([not self.unseen(genes) for genes in path], dtype=bool)
        while (at := self._next(values, asked)) is not None:
            asked[at] = True
            yield path[at], f"{self.name}:{self.first()}"

    def _next(self, values: FloatArray, asked: BoolArray) -> int | None:
        """The place on the path to try next: values [points], NaN where unknown; asked [points]."""
        if not len(asked):
            return None
        return self._in_bracket(values, asked) if self.target is not None else _in_steepest(values, asked)

    def _in_bracket(self, values: FloatArray, asked: BoolArray) -> int | None:
        """The place in the bracket of the target that is farthest from its ends and from what was asked for."""
        assert self.target is not None
        places = np.arange(len(values))
        beyond = places[values > signed_log(self.target)]
        high = int(beyond[0]) if len(beyond) else len(values)
        keeps = places[(values <= signed_log(self.target)) & (places < high)]
        low = int(keeps[-1]) if len(keeps) else -1
        fixed = np.array([low, *places[asked & (places > low) & (places < high)], high])
        widest = int(np.argmax(np.diff(fixed)))
        middle = int(fixed[widest] + fixed[widest + 1]) // 2
        return middle if fixed[widest + 1] - fixed[widest] > 1 else None

    def _feasible_path(self) -> IntArray:
        """The part of the path that meets the constraints: genes [points, groups], fine to coarse."""
        if self._path is None:
            path = sensitivity_path(self.source.loss(self.first()), self.problem, self.pairs)
            self._path = self.groups.contract(path[self.problem.meets(path)])
        return self._path


def sensitivity_path(loss: FloatArray, problem: Problem, pairs: Pairs) -> IntArray:
    """From the finest to the coarsest configuration, always by the step that raises the loss least.

    Args:
        loss: [sites, formats].
        problem: for ties and what is offered.
        pairs: two sites to [formats, formats].

    Returns:
        Choices [points, sites], one step of one tie group after the other.
    """
    space = problem.space
    program = build(loss, {}, {}, space.tie_indices, allowed=space.allowed, pair_loss=pairs)
    every = np.arange(len(program.loss))
    columns = np.arange(program.loss.shape[1])
    at = np.where(program.allowed, columns, -1).max(axis=1)
    path = [at.copy()]
    while True:
        coarser = np.where(program.allowed & (columns < at[:, None]), columns, -1).max(axis=1)
        rise = program.loss[every, coarser] - program.loss[every, at]
        for pair in program.pairs:
            one, other = pair.first, pair.second
            rise[one] += pair.loss[coarser[one], at[other]] - pair.loss[at[one], at[other]]
            rise[other] += pair.loss[at[one], coarser[other]] - pair.loss[at[one], at[other]]
        rise[coarser < 0] = np.inf
        group = int(np.argmin(rise))
        if not np.isfinite(rise[group]):
            found: IntArray = np.asarray(program.expand(np.stack(path)), dtype=np.int64)
            return found
        at[group] = coarser[group]
        path.append(at.copy())


def _in_steepest(values: FloatArray, asked: BoolArray) -> int | None:
    """The ends of the path, then the middle of the interval across which the value changes most."""
    last = len(values) - 1
    for end in (0, last):
        if not asked[end]:
            return end
    fixed = np.flatnonzero(asked)
    known = np.flatnonzero(np.isfinite(values))
    heights = np.interp(fixed, known, values[known]) if len(known) else np.zeros(len(fixed))
    steps, widths = np.abs(np.diff(heights)), np.diff(fixed)
    open_ = np.flatnonzero(widths > 1)
    if not len(open_):
        return None
    best = max(open_.tolist(), key=lambda at: (steps[at], widths[at], -at))
    return int(fixed[best] + fixed[best + 1]) // 2
