"""The protocol of cost models and their registry: metric name -> function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol

from ..space import SearchSpace
from .prices import Joint, PriceTable
from .rows import MeasuredTable

if TYPE_CHECKING:
    from .measured import Runner
    from .network import Network

#: Packages add a metric by an entry point of this group: name = metric, object = cost model.
ENTRY_POINTS = "bitfront.cost_models"


@dataclass(frozen=True)
class Question:
    """What is asked beside the space.

    Attributes:
        device: ``"cpu"`` or a name from ``devices()``.
        batch: samples per forward pass.
        runtime: whose tables price a named GPU (see ``price``); ``None`` leaves the choice to bitfront.
        tables: measurements that are known already.
        seconds: time that may be spent on new measurements.
        threads: intra-op threads of the runtime.
        runner: what times kernels; ``None`` means onnxruntime on this machine.
        network: what was measured of the model as a whole, for latency on the CPU.
        advance: called with the number of steps done, of ``planned(...)`` in all.
    """

    device: str = "cpu"
    batch: int = 1
    tables: Sequence[MeasuredTable] = ()
    seconds: float = 40.0
    threads: int = 1
    runner: Runner | None = None
    advance: Callable[[int], None] | None = None
    runtime: str | None = None
    network: Network | None = None


class CostModel(Protocol):
    """Prices every (site, format) of a space in one metric."""

    def __call__(self, space: SearchSpace, question: Question) -> PriceTable:
        """The table of this metric.

        Raises:
            InvalidInput: the question cannot be answered as it was put.
            NotMeasured: a format has no kernel or no measurement on the device.
        """
        ...


def joint_price(metric: str, space: SearchSpace, batch: int) -> Joint | None:
    """The exact price of whole configurations for a metric of this package that is no sum over sites.

    Raises:
        InvalidInput: the space was made without tracing the tensors of the forward pass.
    """
    from . import peak_memory, traffic
    from .activation_copies import Stored

    if metric == "peak_activation_mb":
        return peak_memory.PeakMemory(Stored.of(space, batch))
    return traffic.Traffic.of(space, batch) if metric == "traffic_mb" else None


def cost_models() -> dict[str, CostModel]:
    """Every known metric with its cost model: the ones here, then those that installed packages add."""
    from . import bits, bops, energy, latency, macs, peak_memory, size, traffic

    known: dict[str, CostModel] = {
        "size_mb": size.size_mb,
        "avg_bits": bits.avg_bits,
        "effective_bits": bits.effective_bits,
        "macs": macs.macs,
        "bops": bops.bops,
        "latency_ms": latency.latency_ms,
        "peak_activation_mb": peak_memory.peak_activation_mb,
        "weight_traffic_mb": traffic.weight_traffic_mb,
        "traffic_mb": traffic.traffic_mb,
        "energy_mj": energy.energy_mj,
    }
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name not in known:
            known[entry.name] = entry.load()
    return known
