"""In which forms a configuration stores the tensors of a forward pass.

A tensor is kept once in every form that a later operation reads: in float for operations outside the sites and for
sites whose format leaves activations alone, and once in each narrow form that a site asks for. Whoever makes the tensor
writes those forms at once (a requantizing epilogue), so a tensor that only quantized sites read never exists in float.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..activations import Activation, ActivationGraph
from ..errors import InvalidInput
from ..formats import Format, activation_name
from ..space import WEIGHT_ONLY_KINDS, SearchSpace, Site
from .roofline import activation_bits

FLOAT = ""
"""The form that the float model stores."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A tensor in one form.

    Attributes:
        made: the operation that writes it; -1 for inputs of the model.
        last: the last operation that reads it.
        written: bytes of the copy.
        read: bytes that operations of the model read of it, over all readings.
    """

    made: int
    last: int
    written: float
    read: float


@dataclass(frozen=True, slots=True)
class Reader:
    """What one site reads of a tensor, over all its readings; ``site`` is -1 for operations outside the sites."""

    site: int
    last: int
    elements: int
    read: int


@dataclass(frozen=True)
class Stored:
    """The tensors of a traced space, with what every (site, format) stores of its input.

    Attributes:
        graph: all tensors.
        factors: samples asked over samples recorded, for each tensor (1 where it does not grow with the batch).
        readers: of each tensor, one per site.
        forms: [sites][formats]: name of the form of the input, ``FLOAT`` where it stays as it is.
        bits: [sites, formats]: bits of one element in that form; NaN for ``FLOAT``.
    """

    graph: ActivationGraph
    factors: tuple[float, ...]
    readers: tuple[tuple[Reader, ...], ...]
    forms: tuple[tuple[str, ...], ...]
    bits: NDArray[np.float64]

    @staticmethod
    def of(space: SearchSpace, batch: int) -> Stored:
        """The stored tensors of a space at a batch size.

        Raises:
            InvalidInput: the space was made without tracing the tensors.
        """
        graph = space.activations
        if graph is None:
            raise InvalidInput(
                "this space does not know the tensors of the forward pass (it was stored by an older version); "
                "trace the model again with SearchSpace.from_model, or run the job with a new store"
            )
        found = [[_form(site, Format.parse(name)) for name in space.formats] for site in space.sites]
        index = {
            module: position
            for position, site in enumerate(space.sites)
            if site.kind not in WEIGHT_ONLY_KINDS
            for module in site.modules
        }
        return Stored(
            graph,
            tuple(batch / graph.samples if each.per_sample else 1.0 for each in graph.activations),
            tuple(_readers(each, index, graph.steps) for each in graph.activations),
            tuple(tuple(form for form, _ in row) for row in found),
            np.array([[bits for _, bits in row] for row in found], dtype=np.float64).reshape(len(found), -1),
        )

    def copies(self, choice: Sequence[int] | NDArray[np.int64]) -> list[Copy]:
        """All tensors in all forms under a choice array [sites]."""
        found = []
        for activation, factor, readers in zip(self.graph.activations, self.factors, self.readers, strict=True):
            forms: dict[str, list[Reader]] = {}
            for reader in readers:
                forms.setdefault(self._form(reader.site, choice), []).append(reader)
            for form, group in forms.items():
                width = 8.0 * activation.width if form == FLOAT else self._bits(group[0].site, choice)
                kept = activation.elements
                if form != FLOAT:
                    kept = min(kept, sum(reader.elements for reader in group))
                each = factor * width / 8
                last = max(reader.last for reader in group)
                found.append(Copy(activation.made, last, each * kept, each * sum(reader.read for reader in group)))
        return found

    def _form(self, site: int, choice: Sequence[int] | NDArray[np.int64]) -> str:
        return FLOAT if site < 0 else self.forms[site][int(choice[site])]

    def _bits(self, site: int, choice: Sequence[int] | NDArray[np.int64]) -> float:
        return float(self.bits[site, int(choice[site])])


def _form(site: Site, format_: Format) -> tuple[str, float]:
    """Name and bits of the form that a site's input is stored in."""
    target = format_.activation
    if site.kind in WEIGHT_ONLY_KINDS or target is None or (target.is_wide and target.bits == site.weight_bits):
        return FLOAT, float("nan")
    if target.is_wide:
        return format_.name, float(target.bits)
    return activation_name(target), activation_bits(target, site.input_shape[-1])


def _readers(activation: Activation, index: dict[str, int], steps: int) -> tuple[Reader, ...]:
    """One reader per site, the operations outside the sites as one; the model's caller reads nothing of its own."""
    found: dict[int, list[tuple[int, int]]] = {}
    for read in activation.reads:
        found.setdefault(index.get(read.module, -1), []).append((read.step, read.elements))
    return tuple(
        Reader(
            site,
            max(step for step, _ in reads),
            min(activation.elements, sum(elements for _, elements in reads)),
            sum(elements for step, elements in reads if step < steps),
        )
        for site, reads in found.items()
    )
