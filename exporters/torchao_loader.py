"""Runs a folder of torchao through its own load.py, in a process without bitfront (``protocol.Runtime``)."""

import importlib.util
import logging
import warnings
from pathlib import Path
from typing import Any

import torch


class Loaded:
    """A model as the ``load.py`` of the folder gives it.

    Args:
        path: the folder.
        settings: ``compile``: whether it runs through ``torch.compile``.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        logging.getLogger("torchao").setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
        specification = importlib.util.spec_from_file_location("load", Path(path) / "load.py")
        if specification is None or specification.loader is None:
            raise RuntimeError(f"{path} holds no load.py")
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        model = module.load(path)
        self._model = torch.compile(model) if settings["compile"] else model
        self._compiled = bool(settings["compile"])
        self._classes = {name: type(tensor).__name__ for name, tensor in model.named_parameters()}

    def run(self, inputs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Outputs in the order in which ``torch.export`` flattens them."""
        tensors = [torch.from_numpy(value) for _, value in inputs]
        with torch.no_grad():
            found = self._model(*tensors)
        leaves = [leaf for leaf in found if isinstance(leaf, torch.Tensor)]
        return [(str(number), _plain(leaf)) for number, leaf in enumerate(leaves)]

    def details(self) -> dict[str, Any]:
        """Versions, and the class of every narrow weight."""
        import torchao

        narrow = {name: kind for name, kind in self._classes.items() if kind not in ("Parameter", "Tensor")}
        return {
            "runtime": "torchao",
            "version": str(torchao.__version__),
            "torch": str(torch.__version__),
            "compiled": self._compiled,
            "weights": narrow,
        }


def load(path: str, settings: dict[str, Any]) -> Loaded:
    """Load a folder."""
    return Loaded(path, settings)


def _plain(tensor: torch.Tensor) -> Any:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
