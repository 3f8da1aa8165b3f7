"""Calibration: the scales, codes and ranges with which every site is quantized in every format."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput
from ..formats import Format, TensorFormat, activation_name, weight_name
from ..space import Site
from .quantizers import (
    Layout,
    QuantizedWeight,
    Quantizer,
    Range,
    WeightScale,
    activation_quantizer,
    quantize_weight,
)

#: Raise when a quantizer changes what it computes: stored evaluations of older versions are then not reused.
VERSION = 4

Arrays = dict[str, np.ndarray[Any, Any]]
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Calibration:
    """What the quantizers need to know, small enough to send to every worker.

    Attributes:
        weights: (site name, name of the weight format) -> its scales. ``weight_name`` gives the second key.
        codes: likewise -> the codes, where a reconstruction chose them; other weights are rounded to nearest.
        ranges: (module path, name of the activation format) -> the clipping range of the tensor that enters the module,
            for formats with static scales. ``activation_name`` gives the second key.
        biases: (site name, format name) -> what bias correction adds to the output channels: float32 [channels].
    """

    weights: dict[tuple[str, str], WeightScale] = field(default_factory=dict)
    codes: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    ranges: dict[tuple[str, str], Range] = field(default_factory=dict)
    biases: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def scales(self, site: Site, target: TensorFormat) -> WeightScale:
        """The scales of the weight of a site.

        Raises:
            InvalidInput: the format was not calibrated at this site.
        """
        key = site.name, weight_name(target)
        if key not in self.weights:
            raise InvalidInput(f"site {site.name} was not calibrated for {key[1]}; calibrate it first")
        return self.weights[key]

    def quantize(self, site: Site, weight: Tensor, target: TensorFormat) -> QuantizedWeight:
        """Codes and scales of the weight of a site.

        Raises:
            InvalidInput: the format was not calibrated at this site.
        """
        scales = self.scales(site, target)
        codes = self.codes.get((site.name, weight_name(target)))
        if codes is not None:
            return QuantizedWeight(codes, scales, Layout.of(weight, target, site.channel_axis))
        return quantize_weight(weight, target, scales, site.channel_axis)

    def activation(self, module: str, target: TensorFormat) -> Quantizer:
        """What rounds the input of a module.

        Raises:
            InvalidInput: the format has static scales, and the calibration data never reached the module.
        """
        found = self.ranges.get((module, activation_name(target)))
        static = not target.dynamic and not target.is_wide
        if static and found is None:
            raise InvalidInput(
                f"no range for {activation_name(target)} at {module}; calibrate with a format that rounds its input so"
            )
        return activation_quantizer(target, found)

    def merged(self, other: Calibration) -> Calibration:
        """Both calibrations together; the other wins where they overlap."""
        return Calibration(
            {**self.weights, **other.weights},
            {**self.codes, **other.codes},
            {**self.ranges, **other.ranges},
            {**self.biases, **other.biases},
        )

    def to_arrays(self) -> Arrays:
        """Plain arrays by name, for storage: ``<kind>|<format>|<site or module>``."""
        arrays: Arrays = {}
        for (site, name), scales in self.weights.items():
            for kind, tensor in (
                ("scale", scales.scale),
                ("zero", scales.zero_point),
                ("tensor", scales.tensor_scale),
            ):
                if tensor is not None:
                    arrays[f"{kind}|{name}|{site}"] = tensor.cpu().numpy()
        arrays |= {f"codes|{name}|{site}": codes.cpu().numpy() for (site, name), codes in self.codes.items()}
        arrays |= {
            f"range|{name}|{module}": torch.stack([*found]).cpu().numpy()
            for (module, name), found in self.ranges.items()
        }
        arrays |= {f"bias|{name}|{site}": shift.cpu().numpy() for (site, name), shift in self.biases.items()}
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray[Any, Any]]) -> Calibration:
        """The inverse of ``to_arrays``."""
        found = Calibration()
        tensors: dict[str, dict[tuple[str, str], Tensor]] = {}
        for text, array in arrays.items():
            kind, name, where = text.split("|", 2)
            tensors.setdefault(kind, {})[where, name] = torch.from_numpy(np.array(array))
        zeros, wholes = tensors.get("zero", {}), tensors.get("tensor", {})
        for key, scale in tensors.get("scale", {}).items():
            found.weights[key] = WeightScale(scale, zeros.get(key), wholes.get(key))
        found.codes.update(tensors.get("codes", {}))
        found.biases.update(tensors.get("bias", {}))
        found.ranges.update({key: Range(*ends) for key, ends in tensors.get("range", {}).items()})
        return found

    @property
    def digest(self) -> str:
        """Content hash of everything (16 hex digits)."""
        content = hashlib.sha256(f"v{VERSION}".encode())
        for name, array in sorted(self.to_arrays().items()):
            content.update(f"{name}|{array.dtype}|{array.shape}".encode())
            content.update(np.ascontiguousarray(array).tobytes())
        return content.hexdigest()[:16]


def narrow_weights(site: Site) -> list[TensorFormat]:
    """The distinct weight formats that a site offers and that have scales, coarse to fine."""
    found = {weight_name(target): target for name in site.formats if not (target := Format.parse(name).weight).is_wide}
    return sorted(found.values(), key=lambda target: target.bits)


def static_activations(site: Site) -> list[TensorFormat]:
    """The distinct activation formats with static scales that a site offers."""
    parsed = [Format.parse(name) for name in site.formats]
    found = {
        activation_name(each.activation): each.activation for each in parsed if each.activation and each.needs_ranges
    }
    return list(found.values())
