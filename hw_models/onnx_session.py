"""One kernel in an onnxruntime session of its own: buffers, and what its profiler saw running."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
_EVENT = "_kernel_time"
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


class LoadedKernel:
    """A model in a session of its own, between fixed buffers.

    Args:
        model: serialized ONNX model, input ``x``, output ``y``.
        x: its input.
        threads: intra-op threads.
        profiled: whether operators are recorded until ``profile`` is called.
    """

    def __init__(self, model: bytes, x: NDArray[Any], threads: int = 1, profiled: bool = False) -> None:
        ort = require()
        self.most_repeats = 1 if profiled else MAX_REPEATS
        self._folder = tempfile.TemporaryDirectory() if profiled else None
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if self._folder is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(self._folder.name) / "profile")
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._fresh, self._x = x, x.copy()
        self.y: NDArray[np.float32] = self._session.run(None, {"x": x})[0].copy()
        self._binding = self._session.io_binding()
        self._binding.bind_input("x", "cpu", 0, self._x.dtype.type, self._x.shape, self._x.ctypes.data)
        self._binding.bind_output("y", "cpu", 0, np.float32, self.y.shape, self.y.ctypes.data)

    def prepare(self) -> None:
        """Write input and output buffers, as the layer before and the memory's last user would have."""
        np.copyto(self._x, self._fresh)
        self.y.fill(0)

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
        nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(_EVENT)]
        return summary(kernel, nodes)


def load(kernel: Kernel, data: LayerData | None = None, threads: int = 1, profiled: bool = False) -> LoadedKernel:
    """Build a kernel's model and load it with all graph optimizations.

    Args:
        kernel: what to load.
        data: weights and input; random ones if ``None``.
        threads: intra-op threads.
        profiled: whether operators are recorded.

    Returns:
        The kernel, ready to run.
    """
    data = layer_data(kernel) if data is None else data
    return LoadedKernel(build(kernel, data), data.x, threads, profiled)


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
