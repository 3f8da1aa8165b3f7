"""Kernels of torch on an accelerator, as captured graphs or eager."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from ...errors import NotMeasured
from ..kernels import Kernel
from ..onnx_runner import kernel_columns
from ..rows import KernelRow
from ..timing import Advance, Timing
from .backend import STEPS, Timed, Trial, element_bytes
from .event_timing import Accelerator, Launch, Mode, Sampled, sample
from .torch_kernels import TorchKernel, checked, load, torch_refusal
from .torch_support import refusal

#: Calls in a graph at most, and bytes of weights from which one is enough.
_COPIES, _ENOUGH_BYTES = 8, 256_000_000
#: Share of the free memory that kernels may take together.
_MEMORY_SHARE = 0.4
_TRIES = 3


class Gpu(Accelerator, Protocol):
    """An accelerator that says what it is (``cuda.CudaAccelerator``)."""

    hardware: str
    capability: tuple[int, int]
    driver: str
    watched: bool

    @property
    def free_bytes(self) -> int:
        """Memory that nobody uses."""
        ...


@dataclass(frozen=True)
class CudaBackend:
    """torch on a GPU.

    Attributes:
        gpu: the device.
        name: its name in ``devices()``.
        mode: graph or eager.
        torch_device: where tensors are made.
    """

    gpu: Gpu
    name: str
    mode: Mode
    torch_device: str = "cuda"

    @property
    def where(self) -> str:
        """Device, hardware, runtime, driver, mode; and whether throttling would be seen."""
        driver = f"driver {self.gpu.driver}" if self.gpu.driver else "driver not known"
        watched = "" if self.gpu.watched else ", clocks not watched (pip install nvidia-ml-py)"
        return f"{self.name} ({self.gpu.hardware}), torch {self._version}, {driver}, {self.mode}{watched}"

    @property
    def memory_bytes(self) -> int:
        """Room for kernels that are held together; a kernel of ``copies`` calls counts once, hence the division."""
        return int(_MEMORY_SHARE * self.gpu.free_bytes / (_COPIES if self.mode == "graph" else 1))

    @property
    def _version(self) -> str:
        import torch

        return str(torch.__version__)

    def digest(self, kernel: Kernel) -> str:
        """The key of a kernel's row."""
        version = f"{self._version};{self.gpu.driver};{self.mode};cold"
        return kernel.digest(self.name, self.gpu.hardware, "torch", version, 1)

    def refusal(self, kernel: Kernel) -> str | None:
        """What torch has no kernel for on this GPU."""
        return refusal(kernel, "cuda", self.gpu.capability)

    def trial(self, kernel: Kernel) -> Trial:
        """Load a kernel and run it a few times.

        Raises:
            NotMeasured: it cannot run, or does not compute what it should.
        """
        begin = time.perf_counter()
        launch, _ = self._loaded(kernel)
        self.gpu.synchronize()
        loaded = time.perf_counter() - begin
        taken = sample(self.gpu, [launch], self.mode, seconds=0.0)
        each = (time.perf_counter() - begin - loaded) / (taken.rounds * 2)  # the empty pair is flushed too
        run = taken.timings[0].median * launch.repeats
        return Trial(loaded, max(each - run, 0.0), run)

    def measure(self, kernels: Sequence[Kernel], seconds: float, advance: Advance | None = None) -> Timed:
        """Time kernels side by side."""
        launches: dict[Kernel, tuple[Launch, str]] = {}
        refused: dict[Kernel, str] = {}
        for kernel in kernels:
            try:
                launches[kernel] = self._loaded(kernel)
            except NotMeasured as cause:
                refused[kernel] = str(cause)
            if advance:
                advance(STEPS if kernel in refused else 1)
        if not launches:
            return Timed((), refused)
        taken = sample(self.gpu, [launch for launch, _ in launches.values()], self.mode, seconds, advance)
        pairs = zip(launches.items(), taken.timings, strict=True)
        return Timed(tuple(self._row(kernel, made[1], timing, taken) for (kernel, made), timing in pairs), refused)

    def _loaded(self, kernel: Kernel) -> tuple[Launch, str]:
        """What is timed: an eager call, or a graph of calls on copies of the operands; and the operators in it."""
        first = checked(kernel, self.torch_device)
        if self.mode == "eager":
            return Launch(first.prepare, first.run), first.executed
        copies = [first, *(load(kernel, self.torch_device, seed) for seed in range(1, _copies(kernel)))]

        def prepare() -> None:
            for each in copies:
                each.prepare()

        prepare()
        with torch_refusal(kernel):
            replay = self.gpu.capture(_all(copies))
        return Launch(prepare, replay, len(copies)), first.executed

    def _row(self, kernel: Kernel, executed: str, timing: Timing, taken: Sampled) -> KernelRow:
        columns = timing.columns
        return KernelRow(
            digest=self.digest(kernel),
            device=self.name,
            hardware=self.gpu.hardware,
            runtime="torch",
            runtime_version=self._version,
            threads=1,
            **kernel_columns(kernel),
            executed=executed,
            conversion_ms=0.0,
            overhead_ms=1e3 * taken.overhead,
            date=datetime.now(UTC).date().isoformat(),
            batch=kernel.input_shape[0] if kernel.op == "Conv" else 0,
            mode=self.mode,
            cache="cold",
            driver=self.gpu.driver,
            clock_mhz=taken.state.clock_mhz,
            memory_clock_mhz=taken.state.memory_clock_mhz,
            power_w=taken.state.power_w,
            **{**columns, "stable": columns["stable"] and not taken.state.slowed},
        )


def _all(copies: Sequence[TorchKernel]) -> Callable[[], None]:
    def call() -> None:
        for each in copies:
            each.run()

    return call


def _copies(kernel: Kernel) -> int:
    """Calls in a graph: fewer where one takes long anyway."""
    elements = 1.0
    for size in kernel.weight_shape or kernel.input_shape:
        elements *= size
    kind = kernel.weight_format if kernel.weight_shape else kernel.activation_format
    return max(1, min(_COPIES, int(_ENOUGH_BYTES / (elements * element_bytes(kind)))))
