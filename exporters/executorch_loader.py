"""Loads a ``.pte`` file in executorch, in a process without bitfront; the contract is ``protocol.Runtime``."""

import json
import os
from pathlib import Path
from typing import Any

import torch


class Loaded:
    """A program on the CPU.

    Args:
        path: the file.
        settings: ``kinds``: the method of the file that tells how each site is multiplied.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime

        _unsafe_reset_threadpool(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self._program = Runtime.get().load_program(Path(path))
        self._method = self._program.load_method("forward")
        self._kinds = json.loads(self._program.load_method(settings["kinds"]).execute([])[0])

    def run(self, inputs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Outputs in the order in which ``torch.export`` flattens them."""
        found = self._method.execute([torch.from_numpy(value) for _, value in inputs])
        leaves = [leaf for leaf in found if isinstance(leaf, torch.Tensor)]
        return [(str(number), leaf.clone().numpy()) for number, leaf in enumerate(leaves)]

    def details(self) -> dict[str, Any]:
        """Version, operators outside XNNPACK's own kernels, and how the product of each site is computed."""
        from importlib.metadata import version

        from executorch.runtime import Runtime

        backends = Runtime.get().backend_registry
        integer = {name: "xnnpack" for name, kind in self._kinds.items() if kind in ("integer", "per token")}
        return {
            "runtime": "executorch",
            "version": version("executorch"),
            "backends": list(backends.registered_backend_names),
            "integer_kernels": integer,
            "kinds": self._kinds,
        }


def load(path: str, settings: dict[str, Any]) -> Loaded:
    """Load a file."""
    return Loaded(path, settings)
