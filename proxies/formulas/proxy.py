r"""Proxies that are formulas: statistics of the sites are collected once, the formula scores them.

.. math:: s[l, f] = o \, ( \phi_l(f) - \phi_l(f_0) )

with :math:`\phi` the formula and o its orientation (1 where more is worse, -1 where more is better). :math:`f_0` is
``fp32`` where the site offers it, otherwise the format that the formula finds best. That changes no ranking: a constant
of a site is added to every configuration alike.

A formula is found by how well its sums over the sites rank whole configurations, so its scores may be added up; their
unit is its own. EMQ's formula is linear in the bits, where a loss falls exponentially: it only ranks.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput, UnsupportedModel
from ..sensitivity import Sensitivity
from .collect import INPUTS, collect_steps, collected
from .compatibility import Compatibility
from .evaluate import Unusable, scores
from .expression import Formula
from .library import Entry, best_evolved, read_library

if TYPE_CHECKING:
    from ...evaluators import Calibration
    from ...space import SearchSpace
    from ...task import Task
    from ..sensitivity import Advance

_FLOAT = "fp32"


class FormulaProxy:
    """A proxy by its formula.

    Args:
        name: of the proxy.
        expression: text form of the formula.
        orientation: 1 where a higher score means a higher loss, -1 where it means a lower one.
        samples: calibration samples at most, in every pass over the model.
        elements: drawn from every weight, about.

    Raises:
        InvalidInput: the expression is no formula of inputs that can be collected, or the orientation is neither.
    """

    name: str
    summary = "a formula of site statistics"
    additive = True
    gradients = 2  # at most; a formula of weights and errors differentiates nothing
    source = "given as an expression"
    checked = False  # whether a table that an allocator cannot use is refused

    def __init__(
        self, name: str, expression: str, orientation: int = 1, *, samples: int = 32, elements: int = 1024
    ) -> None:
        if orientation not in (1, -1):
            raise InvalidInput(f"formula {expression}: orientation {orientation!r}; expected 1 or -1")
        self.name = name
        self.expression = str(Formula.parse(expression, INPUTS))
        self.orientation = orientation
        self.samples = samples
        self.elements = elements

    @classmethod
    def of(cls, entry: Entry) -> FormulaProxy:
        """The proxy of an entry of a library."""
        return FormulaProxy(entry.name, entry.expression, entry.orientation)

    @property
    def formula(self) -> Formula:
        """The expression, parsed."""
        return Formula.parse(self.expression)

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Those of collecting what the formula needs, and one for the formula."""
        return collect_steps(task, space, self._inputs(), self.samples) + 1

    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring.

        Raises:
            InvalidInput: the formula names an input that cannot be collected.
            UnsupportedModel: an input cannot be had of this model, the formula gives no usable numbers here, or it is
                the evolved one and an allocator cannot use its table (``compatibility``).
        """
        started = time.perf_counter()
        found = collected(
            task,
            space,
            calibration,
            seed=seed,
            inputs=self._inputs(),
            elements=self.elements,
            samples=self.samples,
            advance=advance,
        )
        try:
            table = self.orientation * scores(self.formula, found.statistics)
        except Unusable as cause:
            raise UnsupportedModel(f"proxy {self.name}: {cause}; choose another proxy") from None
        fault = Compatibility(found.statistics).fault(table) if self.checked else ""
        if fault:
            raise UnsupportedModel(f"proxy {self.name}: {fault}; choose another proxy")
        if advance:
            advance(1)
        return Sensitivity(
            self.name,
            table - _reference(table, space.formats)[:, None],
            None,
            tuple(space.names),
            space.formats,
            time.perf_counter() - started,
            found.forward_passes,
            found.backward_passes,
            self.additive,
        )

    def _inputs(self) -> set[str]:
        """What is collected: the inputs of the formula, and what the check of its table needs."""
        return {*self.formula.inputs, *(("weight_error", "activation_bits") if self.checked else ())}


class EMQ(FormulaProxy):
    """EMQ's released formula, multiplied by the bits; what was assumed stands in the library.

    Args:
        samples: calibration samples at most, in every pass over the model.
        elements: drawn from every weight, about.
    """

    name = "emq"
    summary = "EMQ's released formula of virtual gradient and weight, times the bits"
    additive = False
    gradients = 1
    source = "Dong et al. 2023 (EMQ), arXiv:2307.10554"

    def __init__(self, samples: int = 32, elements: int = 1024) -> None:
        entry = read_library()["emq"]
        super().__init__("emq", entry.expression, entry.orientation, samples=samples, elements=elements)


class Evolved(FormulaProxy):
    """The best evolved formula that is shipped; without one it refuses to score, and so where it would misallocate.

    Args:
        samples: calibration samples at most, in every pass over the model.
        elements: drawn from every weight, about.
    """

    name = "evolved"
    summary = "formula that evolution found on four networks; on others no better than sqnr"
    source = "library.json of bitfront.proxies.formulas: expression, where it was found, held-out numbers"
    checked = True

    def __init__(self, samples: int = 32, elements: int = 1024) -> None:
        self.samples = samples
        self.elements = elements
        entry = best_evolved(read_library())
        self.expression = entry.expression if entry else ""
        self.orientation = entry.orientation if entry else 1

    @property
    def formula(self) -> Formula:
        """The expression, parsed.

        Raises:
            UnsupportedModel: the library holds no evolved formula.
        """
        if not self.expression:
            raise UnsupportedModel(
                "proxy evolved: the library of formulas holds no evolved one; find one for your model with "
                "`bitfront proxies evolve JOB.yaml`, or name another proxy"
            )
        return super().formula


def _reference(table: NDArray[np.float64], formats: tuple[str, ...]) -> NDArray[np.float64]:
    """What every site is compared with: its score in ``fp32``, or its best one where that is not offered."""
    best: NDArray[np.float64] = np.nanmin(table, axis=1)
    if _FLOAT not in formats:
        return best
    exact = table[:, formats.index(_FLOAT)]
    return np.where(np.isnan(exact), best, exact)
