"""Exact allocation against CBC (the textbook model of HAWQ, ModelOpt and MCT), plain HiGHS, SciPy and greedy.

    python benchmarks/allocation.py --out out/allocation.json            # about 20 minutes on 2 cores
    python benchmarks/allocation.py --instances 5 --only fronts growth   # a part
    python benchmarks/allocation.py --plot docs/img                      # draws the JSON (needs matplotlib)

Instances: sizes and sensitivities are log-normal, losses s 4^-b n with 10 % noise, the first cost is n b (bits), the
others a latency that is not proportional to it. Every budget binds: random prices define a configuration, its costs
less 0.01 % are the budgets. All rivals run in the same process (CBC as PuLP's subprocess) on the same instances, one
after the other.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bitfront.search.allocation import allocate, exact_front, hull_front

Instance = tuple[np.ndarray, dict[str, np.ndarray], dict[str, float]]
Answer = tuple[np.ndarray | None, float]
"""Choice (None: nothing found) and seconds."""


def instance(sites: int, choices: int, seed: int, budgets: int) -> Instance:
    rng = np.random.default_rng([sites, choices, seed])
    bits = np.sort(rng.choice(np.arange(2, 17), choices, replace=False)).astype(float)
    size, sensitivity = rng.lognormal(0, 1.2, (sites, 1)), rng.lognormal(0, 1.5, (sites, 1))
    loss = sensitivity * 4.0**-bits * size * np.exp(0.1 * rng.standard_normal((sites, choices)))
    costs = {"bits": size * bits}
    for extra in range(budgets - 1):
        speed = rng.lognormal(0, 0.5, (sites, 1)) * size**0.8
        costs[f"latency{extra}"] = speed * (0.15 + bits / 16) * np.exp(0.1 * rng.standard_normal((sites, choices)))
    middle = int(np.clip(np.searchsorted(bits, rng.uniform(3, 8)), 1, choices - 1))
    gain = np.median(loss[:, middle - 1] - loss[:, middle])
    prices = [gain / np.median(c[:, middle] - c[:, middle - 1]) * rng.uniform(0.5, 1.5) for c in costs.values()]
    choice = (loss + sum(p * c for p, c in zip(prices, costs.values(), strict=True))).argmin(axis=1)
    limits = {name: float(cost[np.arange(sites), choice].sum()) * 0.9999 for name, cost in costs.items()}
    return loss, costs, limits


def ours(loss: np.ndarray, costs: dict[str, np.ndarray], budgets: dict[str, float]) -> Answer:
    found = allocate(loss, costs, budgets)
    if found.status != "optimal":
        raise SystemExit(f"not proven: {found}")
    return found.choice, found.seconds


def cbc(loss: np.ndarray, costs: dict[str, np.ndarray], budgets: dict[str, float], limit: float) -> Answer:
    import pulp

    begin = time.perf_counter()
    sites, choices = loss.shape
    model = pulp.LpProblem("allocation", pulp.LpMinimize)
    x = [[pulp.LpVariable(f"x_{i}_{j}", cat="Binary") for j in range(choices)] for i in range(sites)]
    model += pulp.lpSum(loss[i, j] * x[i][j] for i in range(sites) for j in range(choices))
    for i in range(sites):
        model += pulp.lpSum(x[i]) == 1
    for name, budget in budgets.items():
        model += pulp.lpSum(costs[name][i, j] * x[i][j] for i in range(sites) for j in range(choices)) <= budget
    model.solve(pulp.PULP_CBC_CMD(msg=0, timeLimit=limit, threads=1))
    values = np.array([[x[i][j].value() or 0.0 for j in range(choices)] for i in range(sites)])
    return (values.argmax(axis=1) if values.any() else None), time.perf_counter() - begin


def scipy_milp(loss: np.ndarray, costs: dict[str, np.ndarray], budgets: dict[str, float], limit: float) -> Answer:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, kron, vstack

    begin = time.perf_counter()
    sites, choices = loss.shape
    one = kron(csr_array(np.eye(sites)), np.ones((1, choices)))
    rows = csr_array(np.stack([costs[name].ravel() for name in budgets]))
    lower = np.concatenate([np.ones(sites), np.full(len(budgets), -np.inf)])
    upper = np.concatenate([np.ones(sites), list(budgets.values())])
    found = milp(
        loss.ravel(),
        integrality=np.ones(loss.size),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(vstack([one, rows]), lower, upper),
        options={"mip_rel_gap": 0.0, "time_limit": limit},
    )
    seconds = time.perf_counter() - begin
    return (None if found.x is None else found.x.reshape(loss.shape).argmax(axis=1)), seconds


def highs(loss: np.ndarray, costs: dict[str, np.ndarray], budgets: dict[str, float], limit: float) -> Answer:
    import highspy

    begin = time.perf_counter()
    sites, choices = loss.shape
    count, used = loss.size, list(budgets)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = count, sites + len(used)
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = loss.ravel(), np.zeros(count), np.ones(count)
    lp.row_lower_ = np.concatenate([np.ones(sites), np.full(len(used), -highspy.kHighsInf)])
    lp.row_upper_ = np.concatenate([np.ones(sites), list(budgets.values())])
    lp.integrality_ = [highspy.HighsVarType.kInteger] * count
    index = np.empty((count, 1 + len(used)), dtype=np.int32)
    index[:, 0] = np.repeat(np.arange(sites), choices)
    index[:, 1:] = sites + np.arange(len(used))
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = np.arange(count + 1, dtype=np.int32) * (1 + len(used))
    lp.a_matrix_.index_ = index.ravel()
    lp.a_matrix_.value_ = np.column_stack([np.ones(count), *(costs[name].ravel() for name in used)]).ravel()
    solver = highspy.Highs()
    for option, value in (("output_flag", False), ("threads", 1), ("mip_rel_gap", 0.0), ("time_limit", limit)):
        solver.setOptionValue(option, value)
    solver.passModel(lp)
    solver.run()
    values = np.array(solver.getSolution().col_value)
    choice = values.reshape(loss.shape).argmax(axis=1) if solver.getInfo().primal_solution_status == 2 else None
    return choice, time.perf_counter() - begin


def greedy(loss: np.ndarray, costs: dict[str, np.ndarray], budgets: dict[str, float], _: float) -> Answer:
    """From the cheapest on, the step with the largest gain per (summed, normalised) cost that still fits."""
    begin = time.perf_counter()
    every = np.arange(len(loss))
    total = sum(cost / budgets[name] for name, cost in costs.items())
    choice = total.argmin(axis=1)
    while True:
        gain, rise = loss[every, choice][:, None] - loss, total - total[every, choice][:, None]
        fits = gain > 0
        for name, cost in costs.items():
            spent = cost[every, choice]
            fits &= spent.sum() - spent[:, None] + cost <= budgets[name]
        if not fits.any():
            feasible = all(costs[name][every, choice].sum() <= budgets[name] for name in budgets)
            return (choice if feasible else None), time.perf_counter() - begin
        rate = np.where(fits, gain / np.maximum(rise, 1e-12), -np.inf)
        site, to = divmod(int(rate.argmax()), loss.shape[1])
        choice[site] = to


RIVALS: dict[str, Callable[..., Answer]] = {"cbc": cbc, "highs": highs, "scipy": scipy_milp, "greedy": greedy}


def compare(instances: int, large: int, limit: float) -> list[dict]:
    rows = []
    for budgets in (1, 2):
        for sites, choices in ((20, 2), (50, 4), (200, 8), (1000, 12), (5000, 12)):
            seconds: dict[str, list[float]] = {}
            excess: dict[str, list[float]] = {}
            for seed in range(instances):
                loss, costs, limits = instance(sites, choices, seed, budgets)
                every = np.arange(sites)
                best, took = ours(loss, costs, limits)
                seconds.setdefault("bitfront", []).append(took)
                optimum = loss[every, best].sum()
                for name, solve in RIVALS.items():
                    if seed >= (instances if sites <= 200 else large) or (name == "greedy" and sites > 1000):
                        continue
                    choice, took = solve(loss, costs, limits, limit)
                    seconds.setdefault(name, []).append(took)
                    if choice is None:
                        excess.setdefault(name, []).append(float("nan"))
                        continue
                    over = max(costs[c][every, choice].sum() / limits[c] - 1 for c in limits)
                    value = loss[every, choice].sum() / optimum - 1
                    excess.setdefault(name, []).append(float("nan") if over > 1e-6 else float(value))
            row = {"sites": sites, "choices": choices, "budgets": budgets}
            for name, values in seconds.items():
                row[name] = {
                    "median_seconds": statistics.median(values),
                    "max_seconds": max(values),
                    "instances": len(values),
                }
                if name != "bitfront":
                    gaps = np.array(excess[name])
                    row[name]["ratio"] = statistics.median(
                        v / o for v, o in zip(values, seconds["bitfront"], strict=False)
                    )
                    row[name]["not_optimal"] = int((~(gaps <= 1e-9)).sum())
                    row[name]["worst_excess"] = float(np.nanmax(gaps, initial=0.0))
            rows.append(row)
            print(f"{sites} x {choices}, {budgets} budget(s)")
            for name in ["bitfront", *RIVALS]:
                if name in row:
                    print("   ", name, {k: float(f"{v:.4g}") for k, v in row[name].items()}, flush=True)
    return rows


def timed(call: Callable[[], object]) -> tuple[object, float]:
    begin = time.perf_counter()
    result = call()
    return result, time.perf_counter() - begin


def fronts(instances: int) -> list[dict]:
    cases = {
        "exact front, 52 x 2": (52, 2, lambda loss, cost: exact_front(loss, cost)),
        "exact front, 52 x 4": (52, 4, lambda loss, cost: exact_front(loss, cost)),
        "0.1 % certificate (pareto), 1000 x 12": (1000, 12, lambda loss, cost: exact_front(loss, cost, tolerance=1e-3)),
        "0.1 % certificate (range), 1000 x 12": (
            1000, 12, lambda loss, cost: exact_front(loss, cost, tolerance=1e-3, certificate="range"),
        ),
        "1 % certificate (loss), 1000 x 12": (
            1000, 12, lambda loss, cost: exact_front(loss, cost, tolerance=1e-2, certificate="loss"),
        ),
        "0.1 % certificate (loss), 1000 x 12": (
            1000, 12, lambda loss, cost: exact_front(loss, cost, tolerance=1e-3, certificate="loss"),
        ),
        "hull preview, 1000 x 12": (1000, 12, lambda loss, cost: hull_front(loss, cost)),
    }  # fmt: skip
    rows = []
    for name, (sites, choices, call) in cases.items():
        found = []
        for seed in range(instances):
            loss, costs, _ = instance(sites, choices, seed, 1)
            front, seconds = timed(lambda call=call, loss=loss, cost=costs["bits"]: call(loss, cost))
            found.append((seconds, len(front), front.attrs.get("tolerance", 0.0)))
        seconds, points, proven = zip(*found, strict=True)
        row = {
            "case": name,
            "median_seconds": statistics.median(seconds),
            "max_seconds": max(seconds),
            "median_points": statistics.median(points),
            "worst_tolerance": max(proven),
        }
        rows.append(row)
        print(row, flush=True)
    return rows


def growth(instances: int) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for budgets in (1, 2):
        sites = [20, 50, 100, 200, 500, 1000, 2000, 5000] + ([10000, 20000] if budgets == 1 else [])
        medians = [
            statistics.median(ours(*instance(n, 8, seed, budgets))[1] for seed in range(instances)) for n in sites
        ]
        found[f"bitfront, {budgets} budget(s)"] = {"sites": sites, "seconds": medians}
    for budgets in (1, 2):
        sites = [20, 50, 100, 200, 500, 1000]
        medians = [
            statistics.median(cbc(*instance(n, 8, seed, budgets), 60.0)[1] for seed in range(min(instances, 5)))
            for n in sites
        ]
        found[f"CBC, {budgets} budget(s)"] = {"sites": sites, "seconds": medians}
    for name, line in found.items():
        far = [i for i, n in enumerate(line["sites"]) if n >= 100]
        x, y = np.log([line["sites"][i] for i in far]), np.log([line["seconds"][i] for i in far])
        line["exponent"] = float(np.polyfit(x, y, 1)[0])
        print(name, "exponent", round(line["exponent"], 2), [float(f"{s:.3g}") for s in line["seconds"]], flush=True)
    return found


def draw(lines: dict[str, dict], folder: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for (name, line), style in zip(lines.items(), ("o-", "s-", "o--", "s--"), strict=True):
        colour = "#1f77b4" if name.startswith("bitfront") else "#999999"
        label = (
            f"{name.replace('1 budget(s)', '1 budget').replace('(s)', 's')}: time ~ sites$^{{{line['exponent']:.2f}}}$"
        )
        axes.loglog(line["sites"], line["seconds"], style, color=colour, label=label, markersize=5)
    axes.set(xlabel="sites (8 choices each)", ylabel="median seconds to the proven optimum")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "allocation_growth.png", dpi=130)
    loss, costs, _ = instance(30, 3, 4, 1)
    front, hull = exact_front(loss, costs["bits"]), hull_front(loss, costs["bits"])
    part = front[(front["loss"] < hull["loss"].iloc[22]) & (front["cost"] < hull["cost"].iloc[40])]
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    axes.plot(part["cost"], part["loss"], ".", color="#1f77b4", markersize=4, label=f"exact front: {len(front)} points")
    line = np.linspace(part["cost"].min(), part["cost"].max(), 400)  # a chord is curved on a logarithmic axis
    axes.plot(line, np.interp(line, hull["cost"], hull["loss"]), color="#d62728", linewidth=1)
    near = hull[(hull["cost"] >= part["cost"].min()) & (hull["cost"] <= part["cost"].max())]
    label = f"vertices of its convex hull: {len(hull)}"
    axes.plot(near["cost"], near["loss"], "o", color="#d62728", markersize=6, fillstyle="none", label=label)
    title = f"a part of the front of 30 sites x 3 choices ({len(part)} points)"
    axes.set(xlabel="cost", ylabel="loss", yscale="log", title=title)
    axes.grid(True, alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(folder / "allocation_front.png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=20)
    parser.add_argument("--large", type=int, default=3, help="instances of 1,000 sites and more for the rivals")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a rival may take")
    parser.add_argument("--only", nargs="*", default=["compare", "fronts", "growth"])
    parser.add_argument("--out", type=Path, default=Path("out/allocation.json"))
    parser.add_argument("--plot", type=Path, help="folder for pictures of what --out holds; runs nothing")
    arguments = parser.parse_args()
    known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    if arguments.plot:
        draw(known["growth"], arguments.plot)
        return
    if "fronts" in arguments.only:
        known["fronts"] = fronts(arguments.instances)
    if "compare" in arguments.only:
        known["compare"] = compare(arguments.instances, arguments.large, arguments.limit)
    if "growth" in arguments.only:
        known["growth"] = growth(arguments.instances)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(known, indent=1))


if __name__ == "__main__":
    main()
