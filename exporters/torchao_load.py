"""Loads this folder: load() gives a torch module with weights of torchao. Needs torch, torchao and safetensors.

    from load import load
    model = torch.compile(load())

state_dict() gives the weights alone: own_model.load_state_dict(state_dict(), assign=True, strict=False).
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torchao.prototype.safetensors.safetensors_utils import object_from_dict

FOLDER = Path(__file__).resolve().parent


def load(folder: str | Path = FOLDER, decode: bool = True) -> torch.nn.Module:
    """The model in evaluation mode.

    Args:
        folder: that holds model.py and the safetensors files.
        decode: whether weights that torchao has no narrow kernel for (convolutions, embeddings) are decoded once, now;
            otherwise they stay narrow in memory, and torchao decodes them in every pass.
    """
    specification = importlib.util.spec_from_file_location("model", Path(folder) / "model.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    model: torch.nn.Module = module.Model()
    for name, tensor in state_dict(folder, decode).items():
        *path, leaf = name.split(".")
        place = model
        for part in path:
            if part not in place._modules:
                place.add_module(part, torch.nn.Module())
            place = place.get_submodule(part)
        if tensor.is_floating_point():
            place.register_parameter(leaf, torch.nn.Parameter(tensor, requires_grad=False))
        else:
            place.register_buffer(leaf, tensor)
    return model.eval()


def state_dict(folder: str | Path = FOLDER, decode: bool = False) -> dict[str, torch.Tensor]:
    """Name -> tensor; shared ones under all their names, floats of 16 bits widened."""
    state: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, framework="pt") as stream:
            metadata, names = stream.metadata(), set(stream.keys())
            aliases, classes = json.loads(metadata["aliases"]), json.loads(metadata["classes"])
            for name, (number, shapes) in json.loads(metadata["weights"]).items():
                prefix, record = _prefix(name), classes[number] | shapes
                if prefix + "qdata" in names:
                    state[name] = _weight(record, stream, prefix, decode)
                    names -= {prefix + part for part in record["data"]}
            state.update((name, _wide(stream.get_tensor(name))) for name in names)
    return state | {name: state[owner] for name, owner in aliases.items()}


def _prefix(name: str) -> str:
    """Where torchao's own format keeps the data of a tensor: "a.b.weight" -> "a.b._weight_"."""
    module, _, leaf = name.rpartition(".")
    return f"{module}._{leaf}_" if module else f"_{leaf}_"


def _weight(record: dict[str, Any], stream: Any, prefix: str, decode: bool) -> torch.Tensor:
    data = {name: stream.get_tensor(prefix + name) for name in record["data"]}
    for name, (bits, offset, shape) in record["packed"].items():
        data[name] = torch.cat(list(_unpacked(data[name], bits, offset)))[: torch.Size(shape).numel()].reshape(shape)
    for name, shape in record["zeros"].items():
        data[name] = torch.zeros(shape, dtype=torch.int8)
    data["scale"] = _wide(data["scale"])
    attributes = {**record["attributes"], "block_size": record["block_size"], **data}
    tensor: torch.Tensor = object_from_dict({"_type": record["kind"], "_data": attributes})
    return tensor if record["kernel"] or not decode else tensor.dequantize()


def _unpacked(packed: torch.Tensor, bits: int, offset: int) -> Iterator[torch.Tensor]:
    """Signed codes, a part at a time; the first of a byte lies in its lowest bits."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
    step = 1 << 20
    for start in range(0, len(packed), step):
        codes = (packed[start : start + step, None] >> shifts) & (2**bits - 1)
        yield (codes.reshape(-1).to(torch.int16) - offset).to(torch.int8)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
