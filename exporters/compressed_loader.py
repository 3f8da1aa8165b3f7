"""Loads a folder of compressed-tensors with ``transformers``, in a process without bitfront (``protocol.Runtime``)."""

import importlib.util
import os
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import torch
from torch import nn


class Loaded:
    """A model as ``from_pretrained`` gives it, in what the searched model does around it.

    Args:
        path: the folder.
        settings: ``architecture`` and ``arguments`` of its class; ``wrapper``: a file with the class ``Wrapper`` or
            null, and ``prefix``: where the model stands in it.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        import transformers

        kind = getattr(transformers, settings["architecture"])
        model, report = kind.from_pretrained(path, output_loading_info=True, **settings["arguments"])
        problems = {name: sorted(map(str, found)) for name, found in report.items() if found}
        if problems:
            raise RuntimeError(f"the checkpoint does not fit its model: {problems}")
        quantizer = getattr(model, "hf_quantizer", None)
        if quantizer is not None:
            quantizer.compressor.decompress_model(model)
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.dtype != model.config.dtype:
                parameter.data = parameter.data.to(model.config.dtype)  # block formats are decoded in bfloat16
        self._model = _wrapped(model, settings).eval()
        self._version = transformers.__version__

    def run(self, inputs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Outputs in the order in which ``torch.export`` flattens them."""
        from torch.utils import _pytree

        tensors = {name: torch.from_numpy(value) for name, value in inputs}
        with torch.no_grad():
            if all(name.isdecimal() for name in tensors):
                found = self._model(*tensors.values())
            else:
                found = self._model(**tensors)
        leaves = [leaf for leaf in _pytree.tree_leaves(found) if isinstance(leaf, torch.Tensor)]
        return [(str(number), _plain(leaf)) for number, leaf in enumerate(leaves)]

    def details(self) -> dict[str, Any]:
        """Versions."""
        from importlib.metadata import version

        return {
            "runtime": "transformers",
            "version": self._version,
            "compressed_tensors": version("compressed-tensors"),
            "torch": str(torch.__version__),
        }


def load(path: str, settings: dict[str, Any]) -> Loaded:
    """Load a folder."""
    return Loaded(path, settings)


def _plain(tensor: torch.Tensor) -> Any:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()


def _wrapped(model: nn.Module, settings: dict[str, Any]) -> nn.Module:
    if settings["wrapper"] is None:
        return model
    specification = importlib.util.spec_from_file_location("wrapper", settings["wrapper"])
    if specification is None or specification.loader is None:
        raise RuntimeError(f"{settings['wrapper']} cannot be imported")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    wrapper: nn.Module = module.Wrapper()
    *path, leaf = settings["prefix"].split(".")
    place = wrapper
    for name in path:
        place.add_module(name, nn.Module())
        place = place.get_submodule(name)
    place.add_module(leaf, model)
    return wrapper
