"""What a format changes at a site, as directions in which a recorded pass can be differentiated.

A format is made of parts: the error of the weight, that of every rounded input, and the shift of a corrected bias.
Formats share parts (w4 and w4a8 have the same weights), and what is linear in a part is computed once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from ..formats import Format, TensorFormat, activation_name, weight_name
from .probing import wide

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluators import QuantizedModel
    from .recording import Pass


@dataclass(frozen=True)
class Part:
    """A change that some formats of a site have in common.

    Attributes:
        row: of the site.
        kind: what changes.
        target: the format of the weight or of the input.
        name: of a format of the site that holds it.
        columns: of all formats that hold it.
    """

    row: int
    kind: Literal["weight", "input", "bias"]
    target: TensorFormat | None
    name: str
    columns: tuple[int, ...]


def parts_of(quantized: QuantizedModel) -> list[Part]:
    """All parts of a space, row by row; changes that are zero are left out."""
    found = []
    for row, site in enumerate(quantized.space.sites):
        seen: dict[tuple[Literal["weight", "input", "bias"], str], tuple[TensorFormat | None, str, list[int]]] = {}
        for column, name in enumerate(quantized.space.formats):
            if not site.offers(name):
                continue
            target, changes = Format.parse(name), quantized.changes({site.name: name})
            seen.setdefault(("weight", weight_name(target.weight)), (target.weight, name, []))[2].append(column)
            if target.activation is not None and changes.rounding:
                key = activation_name(target.activation)
                seen.setdefault(("input", key), (target.activation, name, []))[2].append(column)
            if changes.biases:
                seen.setdefault(("bias", name), (None, name, []))[2].append(column)
        made = [Part(row, kind, target, name, tuple(on)) for (kind, _), (target, name, on) in seen.items()]
        found += [part for part in made if part.kind != "weight" or bool(_weight_error(quantized, part).any())]
    return found


def incidence(parts: list[Part], formats: int) -> np.ndarray:
    """Which parts a site has in a format: 0 or 1 [formats, parts]; each part belongs to one site."""
    found = np.zeros((formats, len(parts)))
    for index, part in enumerate(parts):
        found[list(part.columns), index] = 1.0
    return found


class Directions:
    """The parts of a space as changes of what a pass recorded.

    Args:
        quantized: gives rounded weights and rules.
        run: a pass with the inputs of the modules of ``rounded_modules``, and the parameters of ``biases_of``.

    Attributes:
        sources: what changes: the weights of all sites, the inputs of all calls, the biases.
    """

    def __init__(self, quantized: QuantizedModel, run: Pass) -> None:
        self.quantized = quantized
        self.calls = [call for call in run.calls if call.value is not None]
        self._biases = {name: len(run.weights) + len(self.calls) + at for at, name in enumerate(run.parameters)}
        self._rounded: dict[Part, dict[int, Tensor]] = {}
        inputs = [call.value for call in self.calls if call.value is not None]
        self.sources: list[Tensor] = [*run.weights, *inputs, *run.parameters.values()]

    def of(self, part: Part) -> dict[int, Tensor]:
        """Position of a source -> its change."""
        quantized = self.quantized
        if part.kind == "weight":
            return {part.row: _weight_error(quantized, part)}
        if part.kind == "bias":
            shifted = quantized.changes({quantized.space.sites[part.row].name: part.name}).biases
            return {
                self._biases[name]: quantized.bias(name, shift).float() - self.sources[self._biases[name]].detach()
                for name, shift in shifted.items()
            }
        if part not in self._rounded:
            self._rounded[part] = self._inputs(part)
        return self._rounded[part]

    def _inputs(self, part: Part) -> dict[int, Tensor]:
        """Errors of the rounded inputs of a site."""
        quantized, found = self.quantized, {}
        assert part.target is not None  # only a bias has none
        first = len(quantized.space.sites)
        for position, call in enumerate(self.calls, first):
            if call.row == part.row and quantized.reachable(call.module):
                value = self.sources[position].detach()
                with torch.no_grad():
                    found[position] = (quantized.rule(call.module, part.target)[1](value) - value).float()
        return found


def inner_products(directions: Directions, parts: Sequence[Part], gradients: Sequence[Tensor | None]) -> np.ndarray:
    """Every part times what stands at the sources, added up in float64 [parts].

    Args:
        directions: of a pass.
        parts: of its space.
        gradients: at the sources of the directions; ``None`` for zero.
    """
    found = np.zeros(len(parts))
    with torch.no_grad():
        for index, part in enumerate(parts):
            for position, change in directions.of(part).items():
                gradient = gradients[position]
                if gradient is not None:
                    product = gradient.to(wide(gradient)) * change.reshape(gradient.shape)
                    found[index] += float(product.double().sum())
    return found


def biases_of(quantized: QuantizedModel) -> list[str]:
    """Names of the biases that some offered format shifts."""
    space = quantized.space
    offered = [{site.name: name} for site in space.sites for name in space.formats if site.offers(name)]
    return list(dict.fromkeys(name for each in offered for name in quantized.changes(each).biases))


def _weight_error(quantized: QuantizedModel, part: Part) -> Tensor:
    site = quantized.space.sites[part.row]
    assert part.target is not None  # only a bias has none
    original = quantized.model.get_parameter(site.parameter).detach()
    return quantized.weight(site, part.target).float() - original.float()
