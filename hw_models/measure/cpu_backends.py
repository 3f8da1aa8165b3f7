"""This machine's CPU, in onnxruntime and in torch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ...errors import NotMeasured
from ..kernels import Kernel
from ..onnx_runner import GROUP_BYTES, OnnxRuntimeRunner, kernel_columns, processor
from ..onnx_session import load as load_onnx
from ..rows import KernelRow
from ..timing import Advance, Candidate, Evicting, Timing, interleaved, stopwatch
from .backend import STEPS, Timed, Trial
from .catalogue import is_conversion
from .torch_kernels import TorchKernel, checked
from .torch_support import refusal

_TRIES = 5


@dataclass(frozen=True)
class OnnxRuntimeBackend:
    """onnxruntime on the CPU.

    Attributes:
        runner: what times the kernels.
    """

    runner: OnnxRuntimeRunner

    @property
    def where(self) -> str:
        """Device, hardware, runtime, threads."""
        name, version = self.runner.runtime
        return f"cpu ({processor()}), {name} {version}, {self.runner.threads} thread(s)"

    @property
    def memory_bytes(self) -> int:
        """Room for kernels that are held together."""
        return GROUP_BYTES

    def digest(self, kernel: Kernel) -> str:
        """The key of a kernel's row: that of ``price(device="cpu")``, which finds the rows by it."""
        return self.runner.digest(kernel)

    def refusal(self, kernel: Kernel) -> str | None:
        """Conversions are part of the rows of their kernels."""
        return "conversions are timed with torch: --runtime torch" if is_conversion(kernel) else None

    def trial(self, kernel: Kernel) -> Trial:
        """Load a kernel and run it a few times."""
        begin = time.perf_counter()
        loaded = load_onnx(kernel, threads=self.runner.threads)
        return _tried(Evicting(loaded) if self.runner.cold else loaded, begin)

    def measure(self, kernels: Sequence[Kernel], seconds: float, advance: Advance | None = None) -> Timed:
        """Time kernels side by side."""
        return Timed(tuple(self.runner.measure(kernels, seconds, advance)))


@dataclass(frozen=True)
class TorchCpuBackend:
    """torch on the CPU, eager; every kernel finds the second-level cache without its weights.

    Attributes:
        threads: intra-op threads.
    """

    threads: int = 1

    @property
    def where(self) -> str:
        """Device, hardware, runtime, threads."""
        return f"cpu ({processor()}), torch {self._version}, {self.threads} thread(s)"

    @property
    def memory_bytes(self) -> int:
        """Room for kernels that are held together."""
        return GROUP_BYTES

    @property
    def _version(self) -> str:
        import torch

        return str(torch.__version__)

    def digest(self, kernel: Kernel) -> str:
        """The key of a kernel's row."""
        return kernel.digest("cpu", processor(), "torch", self._version, self.threads)

    def refusal(self, kernel: Kernel) -> str | None:
        """What torch has no kernel for."""
        return refusal(kernel, "cpu")

    def trial(self, kernel: Kernel) -> Trial:
        """Load a kernel and run it a few times.

        Raises:
            NotMeasured: it cannot run, or does not compute what it should.
        """
        begin = time.perf_counter()
        return _tried(Evicting(checked(kernel, "cpu")), begin)

    def measure(self, kernels: Sequence[Kernel], seconds: float, advance: Advance | None = None) -> Timed:
        """Time kernels side by side."""
        import torch

        watch = stopwatch(self.threads)
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            loaded, refused = load_all(kernels, lambda kernel: checked(kernel, "cpu"), advance)
            timings = interleaved([Evicting(each) for each in loaded.values()], seconds, advance, watch=watch)
        finally:
            torch.set_num_threads(before)
        rows = [self._row(*item, timing) for item, timing in zip(loaded.items(), timings, strict=True)]
        return Timed(tuple(rows), refused)

    def _row(self, kernel: Kernel, loaded: TorchKernel, timing: Timing) -> KernelRow:
        return KernelRow(
            digest=self.digest(kernel),
            device="cpu",
            hardware=processor(),
            runtime="torch",
            runtime_version=self._version,
            threads=self.threads,
            **kernel_columns(kernel),
            executed=loaded.executed,
            conversion_ms=0.0,
            overhead_ms=0.0,
            date=datetime.now(UTC).date().isoformat(),
            batch=kernel.input_shape[0] if kernel.op == "Conv" else 0,
            cache="cold",
            **timing.columns,
        )


def load_all(
    kernels: Sequence[Kernel], load_one: Callable[[Kernel], TorchKernel], advance: Advance | None
) -> tuple[dict[Kernel, TorchKernel], dict[Kernel, str]]:
    """Load kernels; those that cannot run come back with the reason. A step of ``advance`` for each, all for those."""
    loaded: dict[Kernel, TorchKernel] = {}
    refused: dict[Kernel, str] = {}
    for kernel in kernels:
        try:
            loaded[kernel] = load_one(kernel)
        except NotMeasured as cause:
            refused[kernel] = str(cause)
        if advance:
            advance(STEPS if kernel in refused else 1)
    return loaded, refused


def _tried(candidate: Candidate, begin: float) -> Trial:
    loaded = time.perf_counter()
    prepared, spent = [], []
    for _ in range(_TRIES):
        start = time.perf_counter()
        candidate.prepare()
        middle = time.perf_counter()
        candidate.run()
        prepared.append(middle - start)
        spent.append(time.perf_counter() - middle)
    return Trial(loaded - begin, statistics.median(prepared), statistics.median(spent), candidate.most_repeats)
