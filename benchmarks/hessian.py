"""Per-site Hessian traces: time to a given error, overhead over bare products, peak memory; PyHessian and curvlinops.

    pip install bitfront[benchmarks,zoo]      # the rivals are optional
    python benchmarks/hessian.py [MODEL ...] [--samples N] [--seconds S] [--json FILE]

About 5 minutes on one idle core; char_gpt takes 3 more and runs only where it is named. Everything on the same
calibration samples, in the same process, one torch thread, CPU seconds.

Time to an error: until the median over the sites of the relative standard error is 20, 10, 5 %, from the float model
on, forward passes included. Ours is ``proxies.site_traces.estimate`` with that as its stopping rule, run for each error
by itself. PyHessian and curvlinops estimate whole traces; their products with random signs are split by site, as a user
of HAWQ does. They run for S seconds each; the rest of their time is extrapolated, error ~ 1 / root of products (marked
~), and their errors are taken relative to our traces, for means of few products are too far off. Only the weights of
sites are differentiated, by all.

Deviation: root mean square over the sites of (ours - theirs) / joint standard error, about 1 if both are right.
Overhead: seconds of one probe of ``HutchinsonProbes`` over one bare ``torch.autograd.grad`` on the same graph.
Memory: peak resident memory above that of the loaded model, in a fresh process each.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bitfront as bf
import numpy as np
import torch
from bitfront import zoo
from bitfront.evaluators import objective
from bitfront.proxies.hutchinson_probes import HutchinsonProbes
from bitfront.proxies.layer_calls import pieces
from bitfront.proxies.site_traces import Setting, estimate
from bitfront.proxies.stopping import relative_errors
from torch import Tensor, nn

ERRORS = (0.2, 0.1, 0.05)
MODELS = {"digits_resnet20": "loss", "minilm_l6": "relative_error", "char_gpt": "loss"}


@dataclass
class Case:
    """A model on one micro-batch."""

    task: bf.Task
    space: bf.SearchSpace
    batch: Any

    @staticmethod
    def load(name: str, samples: int) -> Case:
        """A zoo model on its first calibration samples."""
        torch.set_num_threads(1)
        entry = zoo.load(name)
        task = bf.Task(entry.model, calibration=entry.calibration, validation=entry.validation, holdout=entry.holdout,
                       loss=entry.loss, quality=MODELS[name], name=name)  # fmt: skip
        space = bf.SearchSpace.from_model(entry.model, task.calibration[0].piece(0, 2), formats=["w4", "w8"])
        joined = _joined(task.calibration, samples)
        task.calibration = [joined]
        return Case(task, space, joined)

    def plain(self) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor], tuple[Any, Tensor], list[str]]:
        """A copy of the model that differentiates the sites' weights alone, its loss, (inputs, targets), site names."""
        model = copy.deepcopy(self.task.model)
        wanted = {site.parameter: site.name for site in self.space.sites}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in wanted)
        inputs = self.batch.inputs if isinstance(self.batch.inputs, dict) else self.batch.inputs[0]
        with torch.no_grad():
            targets = self.batch.targets if self.task.quality == "loss" else self.batch(model)
        order = [wanted[name] for name, parameter in model.named_parameters() if parameter.requires_grad]

        def loss(output: Tensor, wanted: Tensor) -> Tensor:
            own = self.task.quality != "loss"
            return objective(self.task, output, wanted if own else output.detach(), None if own else wanted)

        return _Dict(model) if isinstance(inputs, dict) else model, loss, (inputs, targets), order


class _Dict(nn.Module):
    """Takes its keyword arguments as one dict."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.model(**inputs)


class _Loss(nn.Module):
    """A loss as curvlinops wants it."""

    reduction = "mean"

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, output: Tensor, targets: Tensor) -> Tensor:
        return self.loss(output, targets)


def _joined(batches: list[Any], samples: int) -> Any:
    if isinstance(batches[0].inputs, dict):
        inputs: Any = {key: torch.cat([each.inputs[key] for each in batches])[:samples] for key in batches[0].inputs}
    else:
        inputs = (torch.cat([each.inputs[0] for each in batches])[:samples],)
    labels = [each.targets for each in batches]
    return bf.task.Batch(inputs, None if labels[0] is None else torch.cat(labels)[:samples])


def ours(
    case: Case, error: float, estimator: str = "auto", probes: int = 100_000, limit: float = 1e9
) -> dict[str, Any]:
    """Traces until the median relative standard error is reached, or for ``limit`` CPU seconds."""
    started = time.process_time()

    def open_sites(values: np.ndarray, errors: np.ndarray) -> np.ndarray:
        reached = np.median(relative_errors(values[0], errors[0])) <= error
        return np.full(values.shape[1], not reached and time.process_time() - started < limit)

    setting = Setting(estimator, probes, error, False, 0)  # type: ignore[arg-type]
    batches = pieces(case.task, 10_000, 10_000, "benchmark")
    found = estimate(case.task, case.space, batches, (), setting, open_sites)
    seconds = time.process_time() - started
    reached = float(np.median(relative_errors(found.values[0], found.errors[0])))
    return {"seconds": seconds, "reached": reached, "values": found.values[0], "errors": found.errors[0],
            "backward": found.backward / len(case.batch)}  # fmt: skip


def rival(setup: float, product: Callable[[], np.ndarray], limit: float, traces: np.ndarray | None) -> dict[str, Any]:
    """Products for ``limit`` seconds; each gives one estimate of every site. Errors are relative to ``traces``."""
    draws, started = [], time.process_time()
    while len(draws) < 5 or time.process_time() - started < limit:
        draws.append(product())
    seconds = (time.process_time() - started) / len(draws)
    values, errors = np.mean(draws, 0), np.std(draws, 0, ddof=1) / np.sqrt(len(draws))
    relative = float(np.median(errors / np.abs(values if traces is None else traces)))
    needed = {error: len(draws) * (relative / error) ** 2 for error in ERRORS}
    times = {error: setup + max(count, 2) * seconds for error, count in needed.items()}
    return {"product": seconds, "draws": len(draws), "reached": relative, "values": values, "errors": errors,
            "needed": needed, "times": times}  # fmt: skip


def pyhessian(case: Case, limit: float, traces: np.ndarray | None = None) -> dict[str, Any]:
    """PyHessian's Hutchinson, its products split by site; one batch, so that it keeps its gradient graph."""
    from pyhessian import hessian
    from pyhessian.utils import hessian_vector_product

    model, loss, data, order = case.plain()
    started = time.process_time()
    engine = hessian(model, loss, data=data, cuda=False)
    setup = time.process_time() - started

    def product() -> np.ndarray:
        v = [torch.randint_like(each, high=2) for each in engine.params]  # as hessian.trace draws them
        for each in v:
            each[each == 0] = -1
        products = hessian_vector_product(engine.gradsH, engine.params, v)
        by_site = {name: float((a * b).sum()) for name, a, b in zip(order, v, products, strict=True)}
        return np.array([by_site[name] for name in case.space.names])

    return rival(setup, product, limit, traces)


def curvlinops(case: Case, limit: float, traces: np.ndarray | None = None) -> dict[str, Any]:
    """The Hessian operator of curvlinops, its products split by site."""
    from curvlinops import HessianLinearOperator

    model, loss, data, order = case.plain()
    parameters = [each for each in model.parameters() if each.requires_grad]
    size = (lambda inputs: len(next(iter(inputs.values())))) if isinstance(data[0], dict) else None
    started = time.process_time()
    matrix = HessianLinearOperator(
        model, _Loss(loss), parameters, [data], check_deterministic=False, batch_size_fn=size
    )
    setup = time.process_time() - started

    def product() -> np.ndarray:
        v = [torch.randint_like(each, high=2).mul_(2).sub_(1) for each in parameters]
        products = matrix @ v
        by_site = {name: float((a * b).sum()) for name, a, b in zip(order, v, products, strict=True)}
        return np.array([by_site[name] for name in case.space.names])

    return rival(setup, product, limit, traces)


def overhead(case: Case, rounds: int) -> float:
    """Seconds of one of our Hutchinson probes over one bare product on a like graph; medians, interleaved."""
    probes = HutchinsonProbes(case.task, case.space, [case.batch], (), 0)
    model, loss, (inputs, targets), _ = case.plain()
    parameters = [each for each in model.parameters() if each.requires_grad]
    gradients = torch.autograd.grad(loss(model(inputs), targets), parameters, create_graph=True)
    mine, bare = [], []
    with probes.graph(0) as graph:
        for index in range(rounds + 1):
            started = time.process_time()
            probes.draw(graph, 0, index, 1, probes.applies)
            mine.append(time.process_time() - started)
            v = [torch.randint(0, 2, each.shape, dtype=torch.int8).mul_(2).sub_(1).float() for each in parameters]
            started = time.process_time()
            torch.autograd.grad(gradients, parameters, v, retain_graph=True)
            bare.append(time.process_time() - started)
    return statistics.median(mine[1:]) / statistics.median(bare[1:])


def memory(name: str, samples: int, who: str) -> float:
    """Peak MB above the loaded model."""
    case = Case.load(name, samples)
    with torch.no_grad():
        case.batch.piece(0, 1)(case.task.model)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    before = _peak()
    if who == "forward":
        with torch.no_grad():
            case.batch(case.task.model)
    else:
        {"ours": lambda: ours(case, 0.1, probes=8), "ours hutchinson": lambda: ours(case, 0.1, "hutchinson", 4),
         "PyHessian": lambda: pyhessian(case, 0.0)}[who]()  # fmt: skip
    return (_peak() - before) / 1024


def _peak() -> int:
    """Largest resident memory so far, KiB (Linux)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0])


def fresh(name: str, samples: int, who: str) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(memory, (name, samples, who))


def deviation(mine: dict[str, Any], theirs: dict[str, Any]) -> float:
    scale = np.hypot(mine["errors"], theirs["errors"])
    return float(np.sqrt(np.mean(((mine["values"] - theirs["values"]) / scale) ** 2)))


def estimators(case: Case) -> list[dict[str, Any]]:
    """The evidence for ``auto``: what each estimator reaches, and in which time."""
    rows = []
    for estimator, probes in (("auto", 4), ("auto", 100), ("hutchinson", 100), ("hutch++", 12), ("hutch++", 48),
                              ("xtrace", 12), ("xtrace", 48)):  # fmt: skip
        found = ours(case, 0.0, estimator, probes)
        rows.append({"estimator": estimator, "probes": probes} | {key: found[key] for key in ("seconds", "reached")})
        print(f"  {estimator:12s} {probes:4d} probes: {found['seconds']:7.2f} s, median error {found['reached']:.1%}")
    return rows


def bench(name: str, samples: int, limit: float) -> dict[str, Any]:
    case = Case.load(name, samples)
    print(f"\n{name}, {MODELS[name]}, {len(case.space.sites)} sites, {len(case.batch)} samples")
    ours(case, 0.5)  # warm up
    mine = {error: ours(case, error, limit=30) for error in ERRORS}
    result: dict[str, Any] = {"ours": {error: (each["seconds"], each["reached"]) for error, each in mine.items()}}
    print("  " + f"{'':12s}" + "".join(f"{f'{error:.0%}':>12s}" for error in ERRORS) + "   seconds to the median error")
    print(f"  {'ours':12s}" + "".join(f"{mine[error]['seconds']:12.2f}" for error in ERRORS)
          + f"   reached {', '.join(format(each['reached'], '.1%') for each in mine.values())}")  # fmt: skip
    for who, module, run in (("PyHessian", "pyhessian", pyhessian), ("curvlinops", "curvlinops", curvlinops)):
        if find_spec(module) is None:
            print(f"  {who:12s} not installed")
            continue
        found = run(case, limit, mine[0.05]["values"])
        ratios = {error: found["times"][error] / mine[error]["seconds"] for error in ERRORS}
        result[who] = {key: found[key] for key in ("product", "draws", "reached", "times")} | {"ratios": ratios}
        result[who]["deviation"] = deviation(mine[0.05], found)
        guessed = {error: "~" if found["needed"][error] > found["draws"] else "" for error in ERRORS}
        shown = "".join(f"{guessed[error] + format(found['times'][error], '.1f'):>12s}" for error in ERRORS)
        print(f"  {who:12s}{shown}   {found['draws']} products of {found['product']:.3f} s reached "
              f"{found['reached']:.1%}; ours {', '.join(f'{each:.0f}x' for each in ratios.values())} faster; "
              f"deviation {result[who]['deviation']:.2f}")  # fmt: skip
    result["overhead"] = overhead(case, 30 if name == "digits_resnet20" else 5)
    print(f"  one Hutchinson probe over one bare product: {result['overhead']:.2f}")
    if name == "digits_resnet20":
        result["estimators"] = estimators(case)
    rivals = ["PyHessian"] if find_spec("pyhessian") else []
    result["memory"] = {who: fresh(name, samples, who) for who in ("forward", "ours", "ours hutchinson", *rivals)}
    print("  peak MB: " + ", ".join(f"{who} {peak:.0f}" for who, peak in result["memory"].items()))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS)[:2], help=f"of {', '.join(MODELS)}")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=8.0, help="CPU seconds for each rival")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {name: bench(name, arguments.samples, arguments.seconds) for name in arguments.models}
    if arguments.json:
        content = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": platform.processor(),
                   "torch": torch.__version__, "samples": arguments.samples, "results": results}  # fmt: skip
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=2, default=float) + "\n")


if __name__ == "__main__":
    main()
