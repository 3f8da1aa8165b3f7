"""onnxruntime: loading a file, running it, and the graph that it makes of it."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ExportMismatch, UnsupportedModel
from .onnx_kernels import INTEGER_OPERATORS, site_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..task import Batch

_ERRORS_ONLY = 3


def version() -> str:
    """Version of onnxruntime."""
    import onnxruntime

    return str(onnxruntime.__version__)


class Loaded:
    """A file in onnxruntime, on the CPU with one thread.

    Args:
        path: the ONNX file.

    Raises:
        UnsupportedModel: onnxruntime does not load it.
    """

    def __init__(self, path: Path) -> None:
        import onnx
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        with tempfile.TemporaryDirectory() as folder:
            optimized = Path(folder) / "optimized.onnx"
            options.optimized_model_filepath = str(optimized)
            try:
                self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            except Exception as cause:  # its exceptions share no base class
                raise UnsupportedModel(
                    f"onnxruntime {version()} does not load the exported model: {str(cause).splitlines()[0]}"
                ) from cause
            self._nodes = [(node.op_type, node.name) for node in onnx.load(optimized).graph.node]

    def run(self, batch: Batch) -> dict[str, Tensor]:
        """The outputs by name.

        Raises:
            ExportMismatch: the run fails, although the fake-quantized model accepts the batch.
        """
        names = [node.name for node in self._session.get_inputs()]
        if isinstance(batch.inputs, dict):
            feeds = {name: batch.inputs[name] for name in names}
        else:
            feeds = dict(zip(names, batch.inputs, strict=True))
        arrays: dict[str, Any] = {name: tensor.detach().cpu().numpy() for name, tensor in feeds.items()}
        try:
            values = self._session.run(None, arrays)
        except Exception as cause:  # its exceptions share no base class
            raise ExportMismatch(f"onnxruntime fails on the example inputs: {str(cause).splitlines()[0]}") from cause
        outputs = self._session.get_outputs()
        return {node.name: torch.from_numpy(value) for node, value in zip(outputs, values, strict=True)}

    def accepts(self, batch: Batch) -> bool:
        """Whether the file runs on a batch of this size."""
        try:
            self.run(batch)
        except ExportMismatch:
            return False
        return True

    @property
    def node_counts(self) -> dict[str, int]:
        """Operator -> number of nodes after onnxruntime's own optimization, most frequent first."""
        return dict(Counter(operator for operator, _ in self._nodes).most_common())

    @property
    def integer_kernels(self) -> dict[str, str]:
        """Site -> the operator that multiplies its integers."""
        found = {site_of(name): operator for operator, name in self._nodes if operator in INTEGER_OPERATORS}
        return {site: operator for site, operator in found.items() if site is not None}
