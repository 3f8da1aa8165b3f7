"""One kernel in an onnxruntime session of its own: buffers, and what its profiler saw running.

Inside a model every layer works in the memory that earlier layers used, which the caches still hold. So the sessions
share one memory arena, and kernels that are timed together share their input and output buffers; with memory of their
own the sum of the bf16 kernels of efficientnet_lite0 was 29 ms where the exported model took 20 (docs/hw_models.md).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from .cpu_kernels import LayerData, build, layer_data
from .kernels import Kernel
from .timing import MAX_REPEATS

#: Operators that onnxruntime fuses an integer layer to.
INTEGER = ("QLinear", "QGemm", "MatMulInteger", "ConvInteger")
_LAYOUT = ("ReorderInput", "ReorderOutput")
_INTEGER_CONVERSIONS = (*_LAYOUT, "Transpose", "QuantizeLinear", "DequantizeLinear")
#: End of the names of the events that hold the time of a node.
EVENT_END = "_kernel_time"
_MS = 1e-3
_RESOLUTION_MS = 1e-3  # the profiler cuts off after the microsecond


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


@dataclass(frozen=True)
class Profile:
    """What one kernel's session ran.

    Attributes:
        executed: operators in order.
        kernel_ms: array [runs]: time of the operators that are no conversions.
        conversion_ms: array [runs]: time of the conversions that a neighbour in the same format makes unnecessary.
    """

    executed: tuple[str, ...]
    kernel_ms: NDArray[np.float64]
    conversion_ms: NDArray[np.float64]

    @property
    def integer(self) -> bool:
        """Whether an integer kernel ran."""
        return any(op.startswith(INTEGER) for op in self.executed)


@cache
def share_arena() -> None:
    """Register one memory arena for all sessions of this process that ask for it (the kernels' sessions only)."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    arena = state.OrtMemoryInfo("Cpu", state.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, state.OrtMemType.DEFAULT)
    state.create_and_register_allocator(arena, None)


class Buffers:
    """Memory that the kernels of a group share.

    Args:
        elements: of the largest float input or output; what is larger gets memory of its own.
    """

    def __init__(self, elements: int) -> None:
        rng = np.random.default_rng(0)
        self.source: NDArray[np.float32] = rng.standard_normal(elements, dtype=np.float32)
        self.x, self.y = np.empty_like(self.source), np.empty_like(self.source)

    def fits(self, *arrays: NDArray[Any]) -> bool:
        """Whether float arrays find room."""
        return all(array.dtype == np.float32 and array.size <= self.source.size for array in arrays)


class LoadedKernel:
    """A model in a session of its own, between fixed buffers.

    Args:
        model: serialized ONNX model, input ``x``, output ``y``.
        x: its input.
        threads: intra-op threads.
        profiled: whether operators are recorded until ``profile`` is called.
        buffers: shared memory to take input and output from; then the input's values are those of the buffers.
    """

    def __init__(
        self,
        model: bytes,
        x: NDArray[Any],
        threads: int = 1,
        profiled: bool = False,
        buffers: Buffers | None = None,
    ) -> None:
        ort = require()
        share_arena()
        self.most_repeats = 1 if profiled else MAX_REPEATS
        self._folder = tempfile.TemporaryDirectory() if profiled else None
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.use_env_allocators", "1")
        if self._folder is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(self._folder.name) / "profile")
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        y = self._session.run(None, {"x": x})[0]
        if buffers is not None and buffers.fits(x, y):
            self._fresh, self._x, self.y = (
                memory[: like.size].reshape(like.shape)
                for memory, like in ((buffers.source, x), (buffers.x, x), (buffers.y, y))
            )
        else:
            self._fresh, self._x, self.y = x, x.copy(), y.copy()
        self._binding = self._session.io_binding()
        self._binding.bind_input("x", "cpu", 0, self._x.dtype.type, self._x.shape, self._x.ctypes.data)
        self._binding.bind_output("y", "cpu", 0, np.float32, self.y.shape, self.y.ctypes.data)
        self.prepare()

    def prepare(self) -> None:
        """Write the input, as the layer before would have."""
        np.copyto(self._x, self._fresh)

    def run(self) -> None:
        """One run, without copies in or out."""
        self._session.run_with_iobinding(self._binding)

    def profile(self, kernel: Kernel) -> Profile:
        """Stop recording and say what ran since the session was made."""
        if self._folder is None:
            raise RuntimeError("the session was made without profiled=True, or its profile was taken already")
        events = json.loads(Path(self._session.end_profiling()).read_text())
        self._folder.cleanup()
        self._folder = None
        self.most_repeats = MAX_REPEATS
        nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(EVENT_END)]
        return summary(kernel, nodes)


def load(
    kernel: Kernel,
    data: LayerData | None = None,
    threads: int = 1,
    profiled: bool = False,
    buffers: Buffers | None = None,
) -> LoadedKernel:
    """Build a kernel's model and load it with all graph optimizations.

    Args:
        kernel: what to load.
        data: weights and input; random ones if ``None``.
        threads: intra-op threads.
        profiled: whether operators are recorded.
        buffers: shared memory for input and output.

    Returns:
        The kernel, ready to run.
    """
    data = layer_data(kernel) if data is None else data
    return LoadedKernel(build(kernel, data), data.x, threads, profiled, buffers)


def empty_model(threads: int = 1) -> LoadedKernel:
    """A model that does next to nothing: what a call of the runtime costs by itself."""
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "empty", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return LoadedKernel(model.SerializeToString(), np.zeros(1, np.float32), threads)


def summary(kernel: Kernel, nodes: Sequence[Mapping[str, Any]]) -> Profile:
    """Read the profiler's node events (``name``, ``dur`` in microseconds, ``args.op_name``) of several runs.

    Conversions are the change to and from the blocked layout around a float convolution, and around an integer one
    also the transpositions and the conversion from float to integer and back.
    """
    durations: dict[str, list[float]] = {}
    operator: dict[str, str] = {}
    for node in nodes:
        operator[node["name"]] = node["args"]["op_name"]
        durations.setdefault(node["name"], []).append(node["dur"] * _MS + _RESOLUTION_MS / 2)
    executed = tuple(operator.values())
    conversions: tuple[str, ...] = ()
    if kernel.converts:
        conversions = _INTEGER_CONVERSIONS if any(op.startswith(INTEGER) for op in executed) else _LAYOUT
    runs = min(map(len, durations.values()), default=0)
    spent = {True: np.zeros(runs), False: np.zeros(runs)}
    for name, op in operator.items():
        spent[op in conversions] += np.array(durations[name][:runs])
    return Profile(executed, kernel_ms=spent[False], conversion_ms=spent[True])
