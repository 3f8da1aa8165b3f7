r"""Safetensors files written layer by layer: the same tensors give the same bytes, and only one layer is in memory.

A safetensors file is eight bytes with the length of a JSON header, the header (name, type, shape and place of every
tensor), and the tensors. The header needs shapes only, so it is written first; then every layer is made, its tensors
are written to their places, and it is let go. Metadata is sorted (the ``safetensors`` package writes it in an order
that changes from run to run), and tensors lie in the order of their element size, so that each is aligned.

Files larger than ``limit`` are cut into shards between layers, with the index file that the Hugging Face hub defines:
``model-00001-of-00002.safetensors``, … and ``model.safetensors.index.json``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ..errors import ExportMismatch

#: Type names of the safetensors format.
TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
#: Largest file, as ``transformers`` cuts them.
LIMIT = 5_000_000_000

Shape = tuple[torch.dtype, tuple[int, ...]]


@dataclass(frozen=True)
class Layer:
    """Tensors that are made together.

    Attributes:
        shapes: name -> type and shape.
        make: makes them; called once, when they are written.
    """

    shapes: Mapping[str, Shape]
    make: Callable[[], Mapping[str, Tensor]]

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> Layer:
        """A layer of tensors that exist already."""
        shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
        return Layer(shapes, lambda: tensors)

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(_size(shape) for shape in self.shapes.values())


def write_shards(
    folder: Path, layers: Iterable[Layer], metadata: Mapping[str, str], limit: int = LIMIT, stem: str = "model"
) -> list[str]:
    """Write layers into one file, or into shards with an index.

    Args:
        folder: where.
        layers: in the order in which they are cut into shards.
        metadata: of every file.
        limit: most bytes of tensors in one file; a layer is never cut.
        stem: file name without ``.safetensors``.

    Returns:
        Names of the files; with shards the index comes first.

    Raises:
        ExportMismatch: a layer makes other tensors than it has promised.
    """
    shards: list[list[Layer]] = [[]]
    for layer in layers:
        if shards[-1] and sum(each.size for each in shards[-1]) + layer.size > limit:
            shards.append([])
        shards[-1].append(layer)
    if len(shards) == 1:
        write_file(folder / f"{stem}.safetensors", shards[0], metadata)
        return [f"{stem}.safetensors"]
    names = [f"{stem}-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    places: dict[str, str] = {}
    for name, shard in zip(names, shards, strict=True):
        write_file(folder / name, shard, metadata)
        places |= {tensor: name for layer in shard for tensor in layer.shapes}
    total = sum(layer.size for shard in shards for layer in shard)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return [f"{stem}.safetensors.index.json", *names]


def tensor_bytes(folder: Path, files: Iterable[str]) -> int:
    """Bytes of the tensors in the safetensors files of a folder, without their headers.

    Args:
        folder: where.
        files: names; those that are no safetensors files are left out.
    """
    total = 0
    for path in (folder / name for name in files if name.endswith(".safetensors")):
        with path.open("rb") as stream:
            header = int.from_bytes(stream.read(8), "little")
        total += path.stat().st_size - 8 - header
    return total


def write_file(path: Path, layers: Sequence[Layer], metadata: Mapping[str, str]) -> None:
    """Write one safetensors file.

    Raises:
        ExportMismatch: a layer makes other tensors than it has promised.
    """
    shapes = {name: shape for layer in layers for name, shape in layer.shapes.items()}
    starts, header = _places(shapes, metadata)
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little"))
        stream.write(header)
        for layer in layers:
            made = layer.make()
            given = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in made.items()}
            if given != dict(layer.shapes):
                raise ExportMismatch(f"tensors to be written are {given}, but {dict(layer.shapes)} were announced")
            for name, tensor in made.items():
                stream.seek(8 + len(header) + starts[name])
                _write(stream, tensor)


def _places(shapes: Mapping[str, Shape], metadata: Mapping[str, str]) -> tuple[dict[str, int], bytes]:
    """Where each tensor starts, and the header."""
    content: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    starts, end = {}, 0
    for name, shape in sorted(shapes.items(), key=lambda item: (-item[1][0].itemsize, item[0])):
        starts[name], end = end, end + _size(shape)
        content[name] = {"dtype": TYPES[shape[0]], "shape": list(shape[1]), "data_offsets": [starts[name], end]}
    text = json.dumps(content, separators=(",", ":")).encode()
    return starts, text + b" " * (-len(text) % 8)


def _size(shape: Shape) -> int:
    return math.prod(shape[1]) * shape[0].itemsize


def _write(stream: BinaryIO, tensor: Tensor) -> None:
    if tensor.numel():
        stream.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
