"""The check of the stored weights: decoded by the library, they are those that were measured."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import ExportMismatch
from .compressed_model import Hub
from .compressed_schemes import library_weight, scheme, storage
from .protocol import ExportRequest

#: nvfp4: the library divides by the reciprocal of a scale before it rounds to bf16; that is at most one step of bf16.
_STEP = 2.0**-7


def check_weights(request: ExportRequest, hub: Hub, folder: Path) -> None:
    """Decode every narrow weight in the files with compressed-tensors; compare all weights of sites.

    Raises:
        ExportMismatch: names the first site that differs.
    """
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    places = weight_map(folder)
    for site in request.space.sites:
        target, name = request.format_of(site), hub.name(site.parameter)
        wanted = library_weight(target.weight, request.quantized.weight(site, target.weight)).float()
        if target.is_wide:
            given = read(folder, places, [name])[name].float()
        else:
            module = name.rpartition(".")[0]
            own = read(folder, places, [key for key in places if key.rpartition(".")[0] == module])
            state = {key.rpartition(".")[2]: tensor for key, tensor in own.items()}
            if state["weight_scale"].dtype == torch.float16:
                state["weight_scale"] = state["weight_scale"].float()  # as its parameter in a float32 model
            compressor = BaseCompressor.get_value_from_registry(storage(target))
            rule = QuantizationScheme.model_validate(scheme(target, [module]))
            given = compressor.decompress(state, rule)["weight"].float()
        if given.shape != wanted.shape:
            raise ExportMismatch(f"site {site.name}: the weight has the shape {tuple(given.shape)} in the file")
        allowed = _STEP * wanted.abs() if target.weight.scale == "e4m3" else torch.zeros_like(wanted)
        worst = (given - wanted).abs()
        if not bool((worst <= allowed).all()):
            raise ExportMismatch(
                f"site {site.name}: the weight in the file differs from the fake-quantized one "
                f"(by up to {float(worst.max()):.3g})"
            )


def weight_map(folder: Path) -> dict[str, str]:
    """Tensor name -> file, of a checkpoint in one file or in shards."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        found: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return found
    with safe_open(folder / "model.safetensors", framework="pt") as stream:
        return dict.fromkeys(stream.keys(), "model.safetensors")


def read(folder: Path, places: dict[str, str], names: list[str]) -> dict[str, Tensor]:
    """Some tensors of a checkpoint.

    Raises:
        ExportMismatch: one is not there.
    """
    found = {}
    for name in names:
        if name not in places:
            raise ExportMismatch(f"the tensor {name} is not in the file")
        with safe_open(folder / places[name], framework="pt") as stream:
            found[name] = stream.get_tensor(name)
    return found
