"""An NVIDIA GPU: its events, graphs, cache, clocks and name."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from ...errors import InvalidInput
from ..devices import device_named
from .event_timing import WARM_UP, State

#: Reasons of NVML for a lower clock that are no steady state: slowdown of the hardware, heat, power brake.
_SLOWED = 0x8 | 0x20 | 0x40 | 0x80
_FLUSH = 2


class CudaEvent:
    """A mark in the current stream."""

    def __init__(self) -> None:
        self.inner: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def record(self) -> None:
        """Put the mark into the queue."""
        self.inner.record()

    def elapsed_ms(self, later: Any) -> float:
        """Milliseconds between two marks that have been passed."""
        return float(self.inner.elapsed_time(later.inner))


class CudaAccelerator:
    """The current CUDA device.

    Attributes:
        hardware: the name that the driver gives.
        capability: compute capability.
        driver: version of the driver; empty without nvidia-ml-py.
        watched: whether clocks can be read.

    Raises:
        InvalidInput: there is no CUDA device.
    """

    def __init__(self) -> None:
        require_cuda()
        self._index = torch.cuda.current_device()
        properties: Any = torch.cuda.get_device_properties(self._index)
        self.hardware = str(properties.name)
        self.capability = (int(properties.major), int(properties.minor))
        cache = int(properties.L2_cache_size)
        self._memory = torch.ones(_FLUSH * max(cache, 1 << 20) // 4, device="cuda")
        self._sink = torch.zeros((), device="cuda")
        self._nvml, self._handle, self.driver = _management(str(properties.uuid))
        self.watched = self._nvml is not None

    @property
    def free_bytes(self) -> int:
        """Memory that nobody uses."""
        return int(torch.cuda.mem_get_info(self._index)[0])

    def event(self) -> CudaEvent:
        """A new mark."""
        return CudaEvent()

    def synchronize(self) -> None:
        """Wait until the queue is empty."""
        torch.cuda.synchronize(self._index)

    def flush(self) -> None:
        """Queue the reading of memory twice as large as the second-level cache."""
        torch.sum(self._memory, dim=0, out=self._sink)

    def capture(self, call: Callable[[], object]) -> Callable[[], None]:
        """Warm a call up on a side stream, capture it as a graph, and return its replay."""
        side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    def state(self) -> State:
        """Clocks and power now."""
        if self._nvml is None:
            return State()
        return read_state(self._nvml, self._handle)


def require_cuda() -> None:
    """Refuse where there is no CUDA device.

    Raises:
        InvalidInput: torch sees none.
    """
    if not torch.cuda.is_available():
        built = "this torch is built without CUDA" if torch.version.cuda is None else "torch sees no GPU here"
        raise InvalidInput(f"--device cuda: {built}; run on a machine with an NVIDIA GPU, or give --device cpu")


def device_name(hardware: str) -> str:
    """The name in ``devices()`` of a GPU as the driver calls it; one made of its words where it is not listed."""
    try:
        return device_named(hardware)
    except InvalidInput:
        words = re.sub(r"[^a-z0-9]+", "-", hardware.lower()).strip("-")
        return words if words.startswith("nvidia") else f"nvidia-{words}"


def read_state(nvml: Any, handle: Any) -> State:
    """Clocks (MHz), power (W) and slowdown of a device, from NVML (the module ``pynvml``)."""
    return State(
        float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
        nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        bool(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) & _SLOWED),
    )


def _management(uuid: str) -> tuple[Any, Any, str]:
    """NVML, the handle of the device and the driver; nothing where nvidia-ml-py is missing or may not read clocks.

    ``CudaBackend.where`` says when clocks are not watched.
    """
    try:
        nvml: Any = import_module("pynvml")
    except ImportError:
        return None, None, ""
    try:
        nvml.nvmlInit()
        driver = str(nvml.nvmlSystemGetDriverVersion())
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        read_state(nvml, handle)
    except nvml.NVMLError:
        return None, None, ""
    return nvml, handle, driver
