"""Loads an OpenVINO model on the CPU, in a process without bitfront; the contract is ``protocol.Runtime``."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

_PRODUCTS = ("Convolution", "GroupConvolution", "Deconvolution", "FullyConnected", "MatMul")


class Loaded:
    """A compiled model.

    Args:
        path: the folder that holds it.
        settings: ``xml``, the file in it; ``domain``, with which the names of the sites' products begin; ``weights``,
            name of a constant -> site, for products that OpenVINO has renamed.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        import openvino

        core = openvino.Core()
        threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "EXECUTION_MODE_HINT": "ACCURACY"}
        self._model = core.compile_model(Path(path) / settings["xml"], "CPU", config)
        self._request = self._model.create_infer_request()
        self._domain, self._weights = settings["domain"], settings["weights"]
        self._version = openvino.get_version()

    def run(self, inputs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Outputs by name; inputs go by name where the model has them, else by position."""
        ports = self._model.inputs
        given = dict(inputs)
        if all(port.get_names() & set(given) for port in ports):
            feeds = {port: given[(port.get_names() & set(given)).pop()] for port in ports}
        else:
            feeds = dict(zip(ports, [value for _, value in inputs], strict=True))
        found = self._request.infer(feeds)
        return [
            (min(port.get_names(), default=str(n)), found[port].copy()) for n, port in enumerate(self._model.outputs)
        ]

    def details(self) -> dict[str, Any]:
        """Nodes that OpenVINO made of the graph, and the sites whose products multiply 8-bit integers."""
        counts: Counter[str] = Counter()
        integer, packed = {}, {}
        for node in self._model.get_runtime_model().get_ops():
            info = node.get_rt_info()
            kind, precision = info["layerType"].astype(str), info["runtimePrecision"].astype(str)
            counts[kind] += 1
            if kind not in _PRODUCTS:
                continue
            implementation = info["primitiveType"].astype(str)
            for site in self._sites(node):
                if implementation.endswith("I8"):
                    integer[site] = f"{kind}:{implementation}"
                elif precision not in ("f32", "bf16", "f16"):
                    packed[site] = f"{kind}:{precision}"
        return {
            "runtime": "openvino",
            "version": self._version,
            "node_counts": dict(counts.most_common()),
            "integer_kernels": integer,
            "packed_weights": packed,
        }

    def _sites(self, node: Any) -> list[str]:
        """The sites of a product: by its own name, domain/site/number, or by the constant that it multiplies with."""
        split = [name.split("/") for name in _names(node)]
        found = [parts[1] for parts in split if parts[0] == self._domain]
        if found:
            return found
        operands = [name for value in node.input_values() for name in _names(value.get_node())]
        return [self._weights[name] for name in operands if name in self._weights]


def _names(node: Any) -> list[str]:
    """Names of the nodes of the file that became a node of the compiled model."""
    return str(node.get_rt_info()["originalLayersNames"].astype(str)).split(",")


def load(path: str, settings: dict[str, Any]) -> Loaded:
    """Compile a model."""
    return Loaded(path, settings)
