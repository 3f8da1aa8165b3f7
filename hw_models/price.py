"""`price`: every metric for every (site, format)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import InvalidInput
from ..space import SearchSpace
from .cost_model import CostModel, Question, cost_models
from .devices import device as find_device
from .prices import Prices
from .rows import MeasuredTable

if TYPE_CHECKING:
    from .measured import Runner
    from .network import Network

DEFAULT_METRICS = ("size_mb", "latency_ms")
METRICS = (
    "size_mb",
    "avg_bits",
    "effective_bits",
    "macs",
    "bops",
    "latency_ms",
    "peak_activation_mb",
    "weight_traffic_mb",
    "traffic_mb",
    "energy_mj",
)


def price(
    space: SearchSpace,
    device: str = "cpu",
    batch: int = 1,
    metrics: Sequence[str] = DEFAULT_METRICS,
    tables: Sequence[MeasuredTable] | None = None,
    advance: Callable[[int], None] | None = None,
    *,
    seconds: float = 40.0,
    threads: int = 1,
    runner: Runner | None = None,
    runtime: str | None = None,
    network: Network | None = None,
) -> Prices:
    """Price every (site, format).

    Args:
        space: the sites and the formats offered.
        device: ``"cpu"`` (this machine, measured with onnxruntime) or a name from ``devices()`` (measured tables and a
            predictor fitted to them; a roofline where nothing was measured).
        batch: samples per forward pass.
        metrics: any of ``METRICS``, and what installed packages add.
        tables: measurements that are known already; only missing kernels are timed, and ``Prices.measured`` holds
            those for the caller to store.
        advance: called with the steps done, of ``planned(...)`` in all.
        seconds: time to spend on new measurements (sampling; loading comes on top). It is a target: each kernel gets
            30 samples unless that takes more than three times as long.
        threads: intra-op threads of the CPU runtime.
        runner: what times kernels; onnxruntime on this machine if ``None``.
        runtime: whose tables price a named GPU: trtllm, sglang, vllm (``bitfront devices NAME`` lists what it has), or
            ``"roofline"`` for the data sheet alone; ``None`` takes the tables if there are any.
        network: what was measured of the model as a whole on this CPU (``network.measure_network``): its real
            neighbours, its operators outside the sites, exports that the sum of the parts is fitted to. Without it
            neighbours are taken from the order of execution, and only the sites are counted.

    Returns:
        The prices.

    Raises:
        InvalidInput: unknown metric or device, a batch below 1, or onnxruntime is not installed.
        NotMeasured: a format has no kernel on the device.
    """
    question = _question(device, batch, tables, advance, seconds, threads, runner, runtime, network)
    known = cost_models()
    _check(metrics, known)
    tables_by_metric = {metric: known[metric](space, question) for metric in dict.fromkeys(metrics)}
    return Prices(space, tables_by_metric, device, batch)


def planned(
    space: SearchSpace,
    device: str = "cpu",
    batch: int = 1,
    metrics: Sequence[str] = DEFAULT_METRICS,
    tables: Sequence[MeasuredTable] | None = None,
    *,
    threads: int = 1,
    runner: Runner | None = None,
    runtime: str | None = None,
) -> int:
    """How many steps ``price`` with these arguments will report to ``advance``: 0 when nothing must be timed.

    Raises:
        InvalidInput: as ``price``.
        NotMeasured: as ``price``.
    """
    _check(metrics, cost_models())
    if "latency_ms" not in metrics:
        return 0
    from .latency import planned_steps

    return planned_steps(space, _question(device, batch, tables, None, 0.0, threads, runner, runtime))


def _question(
    device: str,
    batch: int,
    tables: Sequence[MeasuredTable] | None,
    advance: Callable[[int], None] | None,
    seconds: float,
    threads: int,
    runner: Runner | None,
    runtime: str | None,
    network: Network | None = None,
) -> Question:
    if batch < 1:
        raise InvalidInput(f"batch={batch}; it must be at least 1")
    if threads < 1:
        raise InvalidInput(f"threads={threads}; it must be at least 1")
    if device != "cpu":
        find_device(device)
    elif runtime is not None:
        raise InvalidInput(f"runtime={runtime!r} on the cpu; only GPUs have runtimes to choose from, leave it out")
    if device != "cpu" and network is not None:
        raise InvalidInput(f"network was measured on a CPU; leave it out for {device}")
    return Question(device, batch, tuple(tables or ()), seconds, threads, runner, advance, runtime, network)


def _check(metrics: Sequence[str], known: Mapping[str, CostModel]) -> None:
    names = list(known)
    if isinstance(metrics, str) or not metrics:
        raise InvalidInput(f"metrics={metrics!r}; give a list of names out of {', '.join(names)}")
    for metric in metrics:
        if metric not in names:
            near = difflib.get_close_matches(metric, names, n=2, cutoff=0.3) or names
            raise InvalidInput(f"unknown metric {metric!r}; nearest: {', '.join(near)} (known: {', '.join(names)})")
