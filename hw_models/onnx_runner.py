"""Kernels timed in onnxruntime on this machine's CPU."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .kernels import Kernel
from .onnx_session import Buffers, LoadedKernel, Profile, empty_model, load, require
from .rows import KernelRow
from .timing import MIN_SAMPLES, Advance, Candidate, Evicting, Timing, interleaved, stopwatch

#: Kernels that are held in memory together (weights and activations, bytes); more are timed group after group.
GROUP_BYTES = 512_000_000
#: Steps of a progress bar per kernel: one to load it, one per sample.
STEPS = 1 + MIN_SAMPLES


@cache
def processor() -> str:
    """Model name of this machine's CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@dataclass(frozen=True)
class OnnxRuntimeRunner:
    """Times kernels in onnxruntime on this machine.

    Attributes:
        threads: intra-op threads.
        cold: whether every kernel finds the second-level cache without its weights, as inside a large model; otherwise
            the caches are as the other kernels leave them.
        again: whether unstable rows are timed once more at once.
    """

    threads: int = 1
    cold: bool = False
    again: bool = True

    @property
    def runtime(self) -> tuple[str, str]:
        """Name and version of the runtime."""
        return "onnxruntime", str(require().__version__)

    def digest(self, kernel: Kernel) -> str:
        """The key under which this runner stores a kernel's row."""
        return kernel.digest("cpu", processor(), *self.runtime, self.threads)

    def measure(self, kernels: Sequence[Kernel], seconds: float, advance: Advance | None = None) -> list[KernelRow]:
        """Time kernels, interleaved; unstable ones once more.

        Args:
            kernels: what to time.
            seconds: time to spend on sampling, over all kernels.
            advance: called with the steps done, ``STEPS`` per kernel in all.

        Returns:
            One row per kernel, in order.
        """
        rows: list[KernelRow] = []
        for group in _groups(kernels):
            rows += self._measure_group(group, seconds * len(group) / len(kernels), advance)
        return rows

    def _measure_group(self, group: Sequence[Kernel], seconds: float, advance: Advance | None) -> list[KernelRow]:
        results, overhead = self._time(group, seconds, advance, self.cold)
        shaky = [index for index, (_, timing) in enumerate(results) if not timing.stable]
        if shaky and self.again:
            again, _ = self._time([group[index] for index in shaky], seconds * len(shaky) / len(group), evicting=True)
            for index, result in zip(shaky, again, strict=True):
                if result[1].spread < results[index][1].spread:
                    results[index] = result
        return [self._row(kernel, *result, overhead) for kernel, result in zip(group, results, strict=True)]

    def _time(
        self, kernels: Sequence[Kernel], seconds: float, advance: Advance | None = None, evicting: bool = False
    ) -> tuple[list[tuple[Profile, Timing]], float]:
        """Profile and timing of each kernel, and the seconds of an empty call.

        A kernel between conversions is timed by the runtime's profiler, which tells them apart; any other by the
        clock around the call, less the empty call.
        """
        loaded: list[LoadedKernel] = []
        buffers = Buffers(max(map(_activations, kernels)))
        for kernel in kernels:
            loaded.append(load(kernel, threads=self.threads, profiled=True, buffers=buffers))
            loaded[-1].run()
            if advance:
                advance(1)
        profiles = {index: loaded[index].profile(kernel) for index, kernel in enumerate(kernels) if not kernel.converts}
        empty = empty_model(self.threads)
        candidates: list[Candidate] = [Evicting(item) for item in loaded] if evicting else [*loaded]
        steps = _of_kernels(advance, len(kernels))
        timings = interleaved([*candidates, empty], seconds, steps, watch=stopwatch(self.threads))
        overhead = timings.pop().median
        results = []
        for index, (kernel, timing) in enumerate(zip(kernels, timings, strict=True)):
            if kernel.converts:
                profile = loaded[index].profile(kernel)
                timing = Timing(1e-3 * profile.kernel_ms[-len(timing.samples) :], 1)
            else:
                # what is left is never less than a tenth of what was timed
                net = np.maximum(timing.samples - overhead, 0.1 * timing.samples)
                profile, timing = profiles[index], Timing(net, timing.repeats)
            results.append((profile, timing))
        return results, overhead

    def _row(self, kernel: Kernel, profile: Profile, timing: Timing, overhead: float) -> KernelRow:
        name, version = self.runtime
        return KernelRow(
            digest=self.digest(kernel),
            device="cpu",
            hardware=processor(),
            runtime=name,
            runtime_version=version,
            threads=self.threads,
            **kernel_columns(kernel),
            executed="+".join(profile.executed),
            conversion_ms=float(np.median(profile.conversion_ms)),
            overhead_ms=1e3 * overhead,
            date=datetime.now(UTC).date().isoformat(),
            batch=kernel.input_shape[0] if kernel.op.startswith("Conv") else 0,
            cache="cold" if self.cold else "",
            **timing.columns,
        )


def product_sizes(kernel: Kernel) -> tuple[int, int, int]:
    """m, n, k of a matrix product ``[m, k] x [k, n]``; zeros for other kernels."""
    if kernel.op not in ("Gemm", "MatMul", "MatMulNBits"):
        return 0, 0, 0
    return int(np.prod(kernel.input_shape[:-1])), kernel.weight_shape[kernel.channel_axis], kernel.input_shape[-1]


def kernel_columns(kernel: Kernel) -> dict[str, Any]:
    """The columns of a row that say which kernel it is of."""
    m, n, k = product_sizes(kernel)
    return {
        "op": kernel.op,
        "weight_format": kernel.weight_format,
        "activation_format": kernel.activation_format,
        "shape": kernel.shape,
        "attributes": kernel.parameters,
        "m": m,
        "n": n,
        "k": k,
    }


def _of_kernels(advance: Advance | None, kernels: int) -> Callable[[int], None] | None:
    """Progress of the kernels only: the empty model that is timed beside them takes no step."""
    if advance is None:
        return None
    return lambda samples: advance(samples // (kernels + 1) * kernels)


def _groups(kernels: Sequence[Kernel]) -> list[list[Kernel]]:
    """Kernels in order, cut where the next one would not fit in memory beside the group."""
    groups: list[list[Kernel]] = []
    used = 0
    for kernel in kernels:
        size = 8 * int(np.prod(kernel.weight_shape)) + 4 * _activations(kernel)
        if not groups or used + size > GROUP_BYTES:
            groups.append([])
            used = 0
        groups[-1].append(kernel)
        used += size
    return groups


def _activations(kernel: Kernel) -> int:
    """An upper estimate of the elements of input and output."""
    inputs = int(np.prod(kernel.input_shape))
    if not kernel.op.startswith("Conv"):
        features = 1 if kernel.op == "Gather" else kernel.input_shape[-1]
        return max(inputs, inputs // features * max(kernel.weight_shape))
    pixels = inputs // kernel.input_shape[1]
    if kernel.op == "ConvTranspose":
        pixels *= int(np.prod(dict(kernel.attributes)["strides"]))
    return max(inputs, pixels * max(kernel.weight_shape[:2]))
