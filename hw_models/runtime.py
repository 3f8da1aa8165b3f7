"""Kernels run and timed in onnxruntime on this machine's CPU."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from .cpu_kernels import LayerData, build, layer_data
from .kernels import Kernel
from .rows import KernelRow
from .timing import MIN_SAMPLES, Timing, interleaved

#: Kernels that are held in memory together (weights and activations, bytes); more are timed group after group.
GROUP_BYTES = 512_000_000
#: Steps of a progress bar per kernel: one to load it, one per sample.
STEPS = 1 + MIN_SAMPLES


def require() -> Any:
    """The onnxruntime module.

    Raises:
        InvalidInput: onnx or onnxruntime is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        raise InvalidInput(
            "latency_ms on the CPU is measured with onnxruntime, which is not installed: pip install 'bitfront[onnx]'"
        ) from None
    return onnxruntime


@cache
def processor() -> str:
    """Model name of this machine's CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@dataclass
class LoadedKernel:
    """A kernel in a session of its own, with input and output bound to fixed buffers.

    Attributes:
        kernel: what it is.
        executed: operators of the optimized graph in order.
        session: the onnxruntime session.
        binding: its input and output buffers.
    """

    kernel: Kernel
    executed: tuple[str, ...]
    session: Any
    binding: Any

    def run(self) -> None:
        """One run, without copies in or out."""
        self.session.run_with_iobinding(self.binding)

    def output(self) -> NDArray[np.float32]:
        """The output of the last run."""
        result: NDArray[np.float32] = self.binding.copy_outputs_to_cpu()[0]
        return result


def load(kernel: Kernel, data: LayerData | None = None, threads: int = 1) -> LoadedKernel:
    """Build a kernel's model and load it with all graph optimizations.

    Args:
        kernel: what to load.
        data: weights and input; random ones if ``None``.
        threads: intra-op threads.

    Returns:
        The kernel, ready to run.
    """
    data = layer_data(kernel) if data is None else data
    session, executed = _session(build(kernel, data), threads)
    return LoadedKernel(kernel, executed, session, _bound(session, data.x))


def _session(model: bytes, threads: int) -> tuple[Any, tuple[str, ...]]:
    """A session, and the operators of its optimized graph."""
    import onnx

    ort = require()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        optimized = onnx.load(options.optimized_model_filepath, load_external_data=False)
    return session, tuple(node.op_type for node in optimized.graph.node)


def _bound(session: Any, x: NDArray[Any]) -> Any:
    """Bind the input to a buffer and the output to another that the first run allocates."""
    ort = require()
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(x))
    binding.bind_output("y")
    session.run_with_iobinding(binding)
    binding.bind_ortvalue_output("y", binding.get_outputs()[0])
    return binding


def empty_call(threads: int = 1) -> Callable[[], None]:
    """A run of a model that does next to nothing: what a call of the runtime costs by itself."""
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "empty", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session, _ = _session(model.SerializeToString(), threads)
    binding = _bound(session, np.zeros(1, np.float32))
    return lambda: session.run_with_iobinding(binding)


@dataclass(frozen=True)
class OnnxRuntimeRunner:
    """Times kernels in onnxruntime on this machine.

    Attributes:
        threads: intra-op threads.
    """

    threads: int = 1

    @property
    def hardware(self) -> str:
        """Model name of the processor."""
        return processor()

    @property
    def runtime(self) -> tuple[str, str]:
        """Name and version of the runtime."""
        return "onnxruntime", str(require().__version__)

    def digest(self, kernel: Kernel) -> str:
        """The key under which this runner stores a kernel's row."""
        return kernel.digest("cpu", self.hardware, *self.runtime, self.threads)

    def measure(
        self, kernels: Sequence[Kernel], seconds: float, advance: Callable[[int], None] | None = None
    ) -> list[KernelRow]:
        """Time kernels, interleaved; unstable ones once more.

        Args:
            kernels: what to time.
            seconds: time to spend on sampling, over all kernels.
            advance: called with the steps done, ``STEPS`` per kernel in all.

        Returns:
            One row per kernel, in order.
        """
        rows: dict[Kernel, KernelRow] = {}
        for group in _groups(kernels):
            loaded = []
            for kernel in group:
                loaded.append(load(kernel, threads=self.threads))
                if advance:
                    advance(1)
            empty = empty_call(self.threads)
            share = seconds * len(group) / len(kernels)
            timings = interleaved([empty, *(item.run for item in loaded)], share, _skip_one(advance, len(group)))
            overhead = timings[0].median
            shaky = [index for index, timing in enumerate(timings[1:]) if not timing.stable]
            if shaky:
                again = interleaved([loaded[index].run for index in shaky], share * len(shaky) / len(group))
                for index, timing in zip(shaky, again, strict=True):
                    if timing.stable or timing.spread < timings[index + 1].spread:
                        timings[index + 1] = timing
            for item, timing in zip(loaded, timings[1:], strict=True):
                rows[item.kernel] = self._row(item, timing, overhead)
        return [rows[kernel] for kernel in kernels]

    def _row(self, item: LoadedKernel, timing: Timing, overhead: float) -> KernelRow:
        kernel = item.kernel
        # a kernel cannot take less than nothing: keep a tenth of what was timed
        net = 1e3 * np.maximum(timing.samples - overhead, 0.1 * timing.samples)
        name, version = self.runtime
        return KernelRow(
            digest=self.digest(kernel),
            device="cpu",
            hardware=self.hardware,
            runtime=name,
            runtime_version=version,
            threads=self.threads,
            op=kernel.op,
            weight_format=kernel.weight_format,
            activation_format=kernel.activation_format,
            shape=kernel.shape,
            attributes=kernel.parameters,
            executed="+".join(item.executed),
            min_ms=float(net.min()),
            median_ms=float(np.median(net)),
            p90_ms=float(np.quantile(net, 0.9)),
            p99_ms=float(np.quantile(net, 0.99)),
            mean_ms=float(net.mean()),
            std_ms=float(net.std(ddof=1)) if len(net) > 1 else 0.0,
            sigma_ms=1e3 * timing.sigma,
            samples=len(net),
            repeats=timing.repeats,
            overhead_ms=1e3 * overhead,
            stable=timing.stable,
            date=datetime.now(UTC).date().isoformat(),
        )


def _skip_one(advance: Callable[[int], None] | None, kernels: int) -> Callable[[int], None] | None:
    """Progress of the kernels only: the empty call that is timed beside them takes no step."""
    if advance is None:
        return None
    return lambda count: advance(min(count - 1, kernels) if count <= kernels + 1 else count * kernels // (kernels + 1))


def _groups(kernels: Sequence[Kernel]) -> list[list[Kernel]]:
    """Kernels in order, cut where the next one would not fit in memory beside the group."""
    groups: list[list[Kernel]] = []
    used = 0
    for kernel in kernels:
        size = 8 * int(np.prod(kernel.weight_shape)) + 16 * int(np.prod(kernel.input_shape))
        if not groups or used + size > GROUP_BYTES:
            groups.append([])
            used = 0
        groups[-1].append(kernel)
        used += size
    return groups
