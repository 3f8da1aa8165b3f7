"""Quantized weights, computed once for each (site, weight format) and shared by the workers of one machine."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

from torch import Tensor

from ..errors import InvalidInput
from ..formats import TensorFormat, weight_name
from ..space import Site
from .calibration import VERSION, Calibration
from .quantizers import round_to_float
from .tensor_files import TensorFolder, raw


class WeightCache:
    """Fake-quantized weights within a memory budget, the least recently used going first.

    With a folder every weight is also a file there, named by its content: the float weight, the format, the scales and
    codes. Whoever makes a weight writes the file and continues with its mapping; other processes map it, and what was
    evicted is mapped again. Mapped pages count towards the budget of each process, though all share them.

    Args:
        calibration: scales and codes.
        limit: bytes that the weights of this process may take. One weight is always kept.
        folder: what the workers of a machine share; ``None`` keeps weights in memory only.

    Attributes:
        held: bytes held now.
        computed: how many weights were quantized here.
        mapped: how many were taken from the folder.

    Raises:
        InvalidInput: the limit is negative.
    """

    def __init__(self, calibration: Calibration, limit: int, folder: str | Path | None = None) -> None:
        if limit < 0:
            raise InvalidInput(f"quantized weights may take {limit} bytes; give 0 or more")
        self.calibration = calibration
        self.limit = limit
        self.folder = None if folder is None else TensorFolder(folder)
        self.held = self.computed = self.mapped = 0
        self._weights: OrderedDict[tuple[str, str], Tensor] = OrderedDict()
        self._content: dict[str, bytes] = {}

    def get(self, site: Site, target: TensorFormat, original: Tensor) -> Tensor:
        """The fake-quantized weight of a site, in the type and on the device of the float weight.

        Args:
            site: where.
            target: the weight's format; fp32 of a float32 weight is the weight itself.
            original: the float weight.

        Raises:
            InvalidInput: the format was not calibrated at this site.
        """
        key = site.name, weight_name(target)
        if key in self._weights:
            self._weights.move_to_end(key)
            return self._weights[key]
        found = round_to_float(original, target) if target.is_wide else self._narrow(site, target, original)
        if found is original:
            return found
        self._weights[key] = found
        self.held += size(found)
        while self.held > self.limit and len(self._weights) > 1:
            self.held -= size(self._weights.popitem(last=False)[1])
        return found

    @property
    def keys(self) -> list[tuple[str, str]]:
        """(site name, weight format name) of the weights held, least recently used first."""
        return list(self._weights)

    def _narrow(self, site: Site, target: TensorFormat, original: Tensor) -> Tensor:
        if self.folder is None:
            return self._quantized(site, target, original)
        name = f"weight-{self._digest(site, target, original)}"
        file = self.folder.read(name)
        if file is None:
            made = self._quantized(site, target, original)
            if not self.folder.write(name, {"weight": made}):
                return made
            file = self.folder.read(name)
            if file is None:
                return made
        else:
            self.mapped += 1
        return file[0]["weight"].to(original.device)

    def _quantized(self, site: Site, target: TensorFormat, original: Tensor) -> Tensor:
        self.computed += 1
        device = self.calibration.scales(site, target).scale.device  # the CPU, where they come from a file
        weight = self.calibration.quantize(site, original.to(device), target).dequantize()
        return weight.to(original.device, original.dtype)

    def _digest(self, site: Site, target: TensorFormat, original: Tensor) -> str:
        """Content hash of everything that the quantized weight is computed from."""
        if site.name not in self._content:
            self._content[site.name] = hashlib.sha256(raw(original)).digest()
        kind = weight_name(target)
        scales = self.calibration.scales(site, target)
        content = hashlib.sha256(f"v{VERSION}|{kind}|{site.channel_axis}".encode())
        content.update(f"{original.dtype}|{tuple(original.shape)}".encode() + self._content[site.name])
        codes = self.calibration.codes.get((site.name, kind))
        for part in (scales.scale, scales.zero_point, scales.tensor_scale, codes):
            content.update(b"|" if part is None else f"|{part.dtype}|{tuple(part.shape)}".encode())
            content.update(b"" if part is None else raw(part))
        return content.hexdigest()[:32]


def size(tensor: Tensor) -> int:
    """Bytes of the elements of a tensor."""
    return tensor.numel() * tensor.element_size()
