"""Loads an ONNX file in onnxruntime, in a process without bitfront; the contract is ``protocol.Runtime``."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

_ERRORS_ONLY = 3
_INT8 = 4  # accuracy_level of MatMulNBits


class Loaded:
    """A file in onnxruntime, on the CPU with one thread.

    Args:
        path: the ONNX file.
        settings: ``domain`` and ``integer_operators``: how products of a site are named, and which operators multiply
            integers.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        import onnx
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        with tempfile.TemporaryDirectory() as folder:
            optimized = Path(folder) / "optimized.onnx"
            options.optimized_model_filepath = str(optimized)
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
            options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            graph = onnx.load(optimized, load_external_data=False).graph
        self._nodes = [(node.op_type, node.name, _level(node)) for node in graph.node]
        self._settings = settings
        self._version = str(onnxruntime.__version__)

    def run(self, inputs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Outputs by name; inputs go by name where the file has them, else by position."""
        names = [node.name for node in self._session.get_inputs()]
        given = dict(inputs)
        if set(names) <= set(given):
            feeds = {name: given[name] for name in names}
        else:
            feeds = dict(zip(names, [value for _, value in inputs], strict=True))
        values = self._session.run(None, feeds)
        return [(node.name, value) for node, value in zip(self._session.get_outputs(), values, strict=True)]

    def details(self) -> dict[str, Any]:
        """Nodes after onnxruntime's own optimization, and the operator of every site that multiplies integers."""
        operators, domain = set(self._settings["integer_operators"]), self._settings["domain"]
        integer = {}
        for operator, name, level in self._nodes:
            own, _, rest = name.partition("/")
            if own == domain and (operator in operators or level == _INT8):
                integer[rest.rpartition("/")[0]] = operator
        counts = dict(Counter(operator for operator, *_ in self._nodes).most_common())
        return {
            "runtime": "onnxruntime",
            "version": self._version,
            "node_counts": counts,
            "integer_kernels": integer,
        }


def _level(node: Any) -> int:
    """``accuracy_level`` of a MatMulNBits, 0 for any other node."""
    return next((attribute.i for attribute in node.attribute if attribute.name == "accuracy_level"), 0)


def load(path: str, settings: dict[str, Any]) -> Loaded:
    """Load a file."""
    return Loaded(path, settings)
