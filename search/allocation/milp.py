"""The integer program as HiGHS reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .problem import FloatArray, IntArray, Problem


@dataclass(frozen=True)
class MilpAnswer:
    """What HiGHS says of a program, in the caller's units of loss.

    Args:
        picked: Choice per group, or None without a feasible one.
        bound: Proven lower bound of the objective (minus infinity if none).
        infeasible: HiGHS has proven that nothing is feasible.
        timed_out: The time limit stopped it.
    """

    picked: IntArray | None
    bound: float
    infeasible: bool
    timed_out: bool


def solve_milp(problem: Problem, time_limit: float | None = None, gap: float = 0.0) -> MilpAnswer:
    """min sum loss x subject to one choice per group and the rows, with normalised coefficients.

    Losses are shifted to start at 0 in every group and divided by their largest value; rows likewise: absolute
    tolerances of the solver then mean the same for every scale.

    Args:
        problem: What to solve.
        time_limit: Seconds.
        gap: Relative gap at which HiGHS may stop.

    Returns:
        The best configuration with its bound.
    """
    import highspy

    groups, at = np.nonzero(problem.allowed)
    shift = np.where(problem.allowed, problem.loss, np.inf).min(axis=1)
    loss = problem.loss[groups, at] - shift[groups]
    scale = float(loss.max()) or 1.0
    count = len(problem.loss)
    columns = len(loss)
    used = np.flatnonzero(np.isfinite(problem.limits))
    low = np.where(problem.allowed, problem.rows, np.inf).min(axis=2) if len(problem.rows) else np.zeros((0, count))
    values: list[FloatArray] = []
    limits: list[float] = []
    for row in used:
        entries = problem.rows[row][groups, at] - low[row][groups]
        room = float(problem.limits[row] - low[row].sum())
        size = float(entries.max()) or 1.0
        values.append(entries / size)
        limits.append(room / size + 1e-9)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = columns, count + len(used)
    lp.col_cost_ = loss / scale * 1e3
    lp.col_lower_, lp.col_upper_ = np.zeros(columns), np.ones(columns)
    lp.row_lower_ = np.concatenate([np.ones(count), np.full(len(used), -highspy.kHighsInf)])
    lp.row_upper_ = np.concatenate([np.ones(count), np.array(limits)])
    lp.integrality_ = [highspy.HighsVarType.kInteger] * columns
    matrix = np.concatenate([groups, *[np.full(columns, count + i) for i in range(len(used))]])
    data = np.concatenate([np.ones(columns), *values])
    order = np.lexsort((matrix, np.tile(np.arange(columns), len(used) + 1)))
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = np.arange(columns + 1, dtype=np.int32) * (len(used) + 1)
    lp.a_matrix_.index_ = matrix[order].astype(np.int32)
    lp.a_matrix_.value_ = data[order]
    solver: Any = highspy.Highs()
    options: dict[str, Any] = {
        "output_flag": False,
        "mip_rel_gap": gap,
        "mip_abs_gap": 0.0,
        "threads": 1,
        "mip_feasibility_tolerance": 1e-9,
        "primal_feasibility_tolerance": 1e-9,
        "dual_feasibility_tolerance": 1e-9,
    }
    if time_limit is not None:
        options["time_limit"] = time_limit
    for key, value in options.items():
        solver.setOptionValue(key, value)
    solver.passModel(lp)
    solver.run()
    status = solver.getModelStatus()
    if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
        return MilpAnswer(None, np.inf, True, False)
    info = solver.getInfo()
    bound = float(info.mip_dual_bound) / 1e3 * scale + float(shift.sum())
    picked = None
    if info.primal_solution_status == 2:
        x = np.zeros(problem.loss.shape)
        x[groups, at] = np.array(solver.getSolution().col_value)
        picked = x.argmax(axis=1).astype(np.int64)
    return MilpAnswer(picked, bound, False, status == highspy.HighsModelStatus.kTimeLimit)
