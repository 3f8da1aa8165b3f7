"""The integer program as HiGHS reads it: the way for pairwise terms, many rows, and whatever the label search leaves.

Pairwise terms are linearised with one variable per pair of choices, tied to the choices by

    sum_b y[a, b] = x[a],    sum_a y[a, b] = x[b],

the local polytope, whose relaxation is at least as tight as that of products bounded one by one (W. P. Adams and
H. D. Sherali, Management Science 32, 1986).

HiGHS compares with absolute tolerances, so the numbers it sees are made to suit: losses start at 0 in every group and
are divided by the best objective known; what alone is worse than that objective is dropped; then the program is solved
again until the unit no longer shrinks. So losses of 1e-15, or a range of 1e12 in one instance, are resolved.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .problem import BoolArray, FloatArray, IntArray, Pair, Problem
from .verify import meets, objective_of

_SCALE = 1e3
_ROUNDS = 12


@dataclass(frozen=True, eq=False)
class MilpAnswer:
    """What HiGHS says of a program, in the caller's units of loss.

    Args:
        picked: Choice per group, or None without a feasible one.
        bound: Proven lower bound of the objective (infinite if nothing is feasible, minus infinity if unknown).
        complete: Solved to the gap that was asked for.
    """

    picked: IntArray | None
    bound: float
    complete: bool


def solve_milp(
    problem: Problem, *, gap: float = 0.0, deadline: float = np.inf, start: IntArray | None = None
) -> MilpAnswer:
    """Min loss subject to one choice per group, the rows and the pairs.

    Args:
        problem: What to solve.
        gap: Relative gap at which HiGHS may stop.
        deadline: Value of `time.perf_counter` at which to stop.
        start: A feasible configuration to start from.

    Returns:
        The best configuration with its bound.
    """
    offered = problem.allowed
    shift = _shift(problem, offered)
    best, value = start, np.inf if start is None else objective_of(problem, start) - shift
    bound = -np.inf
    for _ in range(_ROUNDS):
        unit = value if np.isfinite(value) and value > 0 else _largest(problem, offered)
        allowed = offered & (problem.loss - _least(problem, offered)[:, None] <= unit * (1 + 1e-9))
        shrunk = replace(problem, allowed=allowed)
        answer = _Program(shrunk, unit or 1.0).solve(gap, deadline, best)
        if answer.picked is None and best is None:
            return answer
        if answer.picked is None:
            if answer.bound != np.inf:
                return MilpAnswer(best, bound, False)
            bound = value + shift  # nothing better than the start was left
            break
        bound = max(bound, answer.bound)
        found = objective_of(problem, answer.picked) - shift
        if best is None or found < value:
            best, value = answer.picked, found
        if not answer.complete or not 0 < value < unit / 8:
            break
    assert best is not None
    objective = value + shift
    return MilpAnswer(best, min(bound, objective), answer.complete)


def _least(problem: Problem, offered: BoolArray) -> FloatArray:
    least: FloatArray = np.where(offered, problem.loss, np.inf).min(axis=1)
    return least


def _pair_least(problem: Problem, pair: Pair) -> float:
    return float(pair.loss[np.ix_(problem.allowed[pair.first], problem.allowed[pair.second])].min())


def _shift(problem: Problem, offered: BoolArray) -> float:
    return float(_least(problem, offered).sum()) + sum(_pair_least(problem, pair) for pair in problem.pairs)


def _largest(problem: Problem, offered: BoolArray) -> float:
    spread = np.where(offered, problem.loss, -np.inf).max(axis=1) - _least(problem, offered)
    pairs = [float(np.ptp(pair.loss)) for pair in problem.pairs]
    return max([float(spread.max()), *pairs])


class _Program:
    """Columns: one per offered choice, then one per offered pair of choices. Rows: groups, limits, pair marginals."""

    def __init__(self, problem: Problem, unit: float) -> None:
        import highspy

        self.problem, self.unit = problem, unit
        self.groups, self.choices = np.nonzero(problem.allowed)
        self.column = np.full(problem.loss.shape, -1, dtype=np.int64)
        self.column[self.groups, self.choices] = np.arange(len(self.groups))
        self.limited = np.flatnonzero(np.isfinite(problem.limits)).tolist()
        self.scales = [self._row_unit(row) for row in self.limited]
        self.loss = [
            (problem.loss - _least(problem, problem.allowed)[:, None])[self.groups, self.choices] / unit * _SCALE
        ]
        self.entries: list[tuple[IntArray, IntArray, FloatArray]] = []
        self._additive()
        self.row_count = len(problem.loss) + len(self.limited)
        self.column_count = len(self.groups)
        for pair in problem.pairs:
            self._pair(pair)
        upper = [self._limit(row, scale) for row, scale in zip(self.limited, self.scales, strict=True)]
        marginals = np.zeros(self.row_count - len(problem.loss) - len(self.limited))
        ones = np.ones(len(problem.loss))
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = self.column_count, self.row_count
        lp.col_cost_ = np.concatenate(self.loss)
        lp.col_lower_, lp.col_upper_ = np.zeros(self.column_count), np.ones(self.column_count)
        lp.row_lower_ = np.concatenate([ones, np.full(len(upper), -highspy.kHighsInf), marginals])
        lp.row_upper_ = np.concatenate([ones, np.array(upper), marginals])
        continuous = self.column_count - len(self.groups)
        lp.integrality_ = [highspy.HighsVarType.kInteger] * len(self.groups) + [
            highspy.HighsVarType.kContinuous
        ] * continuous
        self._matrix(lp)
        self.lp = lp

    def _row_unit(self, row: int) -> float:
        return float(np.abs(self.problem.rows[row]).max()) or 1.0

    def _limit(self, row: int, scale: float) -> float:
        shift = np.where(self.problem.allowed, self.problem.rows[row], np.inf).min(axis=1).sum()
        return float((self.problem.limits[row] - shift) / scale) + 1e-9

    def _additive(self) -> None:
        columns = np.arange(len(self.groups))
        self.entries.append((self.groups, columns, np.ones(len(columns))))
        for at, (row, scale) in enumerate(zip(self.limited, self.scales, strict=True)):
            table = (
                self.problem.rows[row]
                - np.where(self.problem.allowed, self.problem.rows[row], np.inf).min(axis=1)[:, None]
            )
            place = np.full(len(columns), len(self.problem.loss) + at)
            self.entries.append((place, columns, table[self.groups, self.choices] / scale))

    def _pair(self, pair: Pair) -> None:
        a = np.flatnonzero(self.problem.allowed[pair.first])
        b = np.flatnonzero(self.problem.allowed[pair.second])
        grid_a, grid_b = (axis.ravel() for axis in np.meshgrid(np.arange(len(a)), np.arange(len(b)), indexing="ij"))
        columns = self.column_count + np.arange(len(grid_a))
        table = pair.loss[a[grid_a], b[grid_b]]
        self.loss.append((table - _pair_least(self.problem, pair)) / self.unit * _SCALE)
        for at, (row, scale) in enumerate(zip(self.limited, self.scales, strict=True)):
            if row in pair.rows:
                place = np.full(len(columns), len(self.problem.loss) + at)
                self.entries.append((place, columns, pair.rows[row][a[grid_a], b[grid_b]] / scale))
        ones = np.ones(len(columns))
        self.entries.append((self.row_count + grid_a, columns, ones))
        self.entries.append((self.row_count + len(a) + grid_b, columns, ones))
        mine = np.concatenate([self.column[pair.first, a], self.column[pair.second, b]])
        self.entries.append((self.row_count + np.arange(len(mine)), mine, -np.ones(len(mine))))
        self.row_count += len(mine)
        self.column_count += len(columns)

    def _matrix(self, lp: Any) -> None:
        import highspy

        rows, columns, values = (np.concatenate(part) for part in zip(*self.entries, strict=True))
        keep = values != 0.0
        rows, columns, values = rows[keep], columns[keep], values[keep]
        order = np.argsort(columns, kind="stable")
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_ = np.searchsorted(columns[order], np.arange(self.column_count + 1)).astype(np.int32)
        lp.a_matrix_.index_ = rows[order].astype(np.int32)
        lp.a_matrix_.value_ = values[order]

    def solve(self, gap: float, deadline: float, start: IntArray | None) -> MilpAnswer:
        """Runs HiGHS; tightens rows that its tolerance has let pass, until the configuration really meets them."""
        import highspy

        solver: Any = highspy.Highs()
        for option, setting in (
            ("output_flag", False),
            ("threads", 1),
            ("mip_rel_gap", gap),
            ("mip_abs_gap", 1e-9),
            ("mip_feasibility_tolerance", 1e-9),
            ("primal_feasibility_tolerance", 1e-9),
            ("dual_feasibility_tolerance", 1e-9),
        ):
            solver.setOptionValue(option, setting)
        solver.passModel(self.lp)
        if start is not None and self.problem.allowed[np.arange(len(start)), start].all() and not self.problem.pairs:
            self._warm_start(solver, start)
        infinite = highspy.kHighsInf
        offset = _shift(self.problem, self.problem.allowed)
        for _ in range(20):
            left = deadline - time.perf_counter()
            if left <= 0:
                return MilpAnswer(None, -np.inf, False)
            if np.isfinite(left):
                solver.setOptionValue("time_limit", solver.getRunTime() + left)
            solver.run()
            status, info = solver.getModelStatus(), solver.getInfo()
            if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
                return MilpAnswer(None, np.inf, True)
            bound = float(info.mip_dual_bound) / _SCALE * self.unit + offset
            if info.primal_solution_status != 2:
                return MilpAnswer(None, bound, False)
            chosen = np.full(self.problem.loss.shape, -1.0)
            chosen[self.groups, self.choices] = np.array(solver.getSolution().col_value)[: len(self.groups)]
            picked = chosen.argmax(axis=1).astype(np.int64)
            complete = status == highspy.HighsModelStatus.kOptimal
            if meets(self.problem, picked):
                return MilpAnswer(picked, bound, complete)
            # a configuration that only the tolerance admits: exclude it
            columns = self.column[np.arange(len(picked)), picked].astype(np.int32)
            solver.addRow(-infinite, len(columns) - 1.0, len(columns), columns, np.ones(len(columns)))
        return MilpAnswer(None, bound, False)

    def _warm_start(self, solver: Any, start: IntArray) -> None:
        import highspy

        solution = highspy.HighsSolution()
        values = np.zeros(self.column_count)
        values[self.column[np.arange(len(start)), start]] = 1.0
        solution.col_value = values.tolist()
        solver.setSolution(solution)
