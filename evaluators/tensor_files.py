"""Tensors in a folder that the processes of one machine share: written once, memory-mapped by everyone."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import replacing

_LOG = logging.getLogger(__name__)
_CHECKSUM = "sha256"


class TensorFolder:
    """Safetensors files by name, in which a reader sees all of a file or nothing.

    A file is written aside, synced and renamed. It carries the sha256 of its tensors, which is checked once, when it is
    mapped: a damaged file is logged as a warning and counts as absent, so that its owner computes it again and
    replaces it. What is read is a private mapping: its pages are shared among processes and belong to the
    page cache, and writing to such a tensor would not reach the file.

    Args:
        path: the folder; created when the first file is written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Map a file.

        Returns:
            Its tensors (on the CPU) and its metadata; ``None`` if it is absent or damaged.
        """
        path = self._file(name)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as stream:
                metadata = dict(stream.metadata() or {})
                tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (it is no mapping)
        except (SafetensorError, OSError) as cause:
            _LOG.warning("%s: cannot be read (%s); computed again", path, cause)
            return None
        if metadata.pop(_CHECKSUM, "") != checksum(tensors):
            _LOG.warning("%s: the checksum does not fit; computed again", path)
            return None
        return tensors, metadata

    def write(self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bool:
        """Write a file; a full or read-only disk is logged as a warning, and the caller keeps its tensors in memory.

        Returns:
            Whether the file is there now.
        """
        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        path = self._file(name)
        try:
            with replacing(path) as side:
                save_file(plain, side, {**(metadata or {}), _CHECKSUM: checksum(plain)})
        except (SafetensorError, OSError) as cause:
            _LOG.warning("%s: cannot be written (%s); kept in memory", path, cause)
            return False
        return True

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of the contents, names and shapes of tensors (hexadecimal)."""
    content = hashlib.sha256()
    for key, tensor in sorted(tensors.items()):
        content.update(f"{key}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
        content.update(raw(tensor))
    return content.hexdigest()


def raw(tensor: Tensor) -> Any:
    """The bytes of a tensor, as something that a hash takes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""
