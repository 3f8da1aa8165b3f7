r"""Augmented Hessian: the second-order loss of every site, and what two sites cost together, both exact.

.. math::
    L(w + e) - L(w) \approx \underbrace{\tfrac12 \sum_l e_l^\top H_{ll} e_l}_{\text{values}}
        + \underbrace{\sum_{l < m} e_l^\top H_{lm} e_m}_{\text{pairs}}
        \;\Bigl( + \sum_l g_l^\top e_l \Bigr)

with e_l the real quantization errors of site l in a format (weight, rounded input, corrected bias), H the Hessian of
the task's objective over all of these, and g its gradient. Schaefer et al. 2023, arXiv:2306.04879, showed that scores
from the diagonal blocks of the Hessian alone order layers wrongly, and augment them with the dependencies between
layers; that idea is taken from there, the estimate is not: no trace, no probes, but the quadratic form itself, whose
off-diagonal part is what CLADO (Deng et al. 2023, arXiv:2307.05657) measures by perturbation (``pairwise``). Nor is
their bisection: ``allocate(..., pair_loss=found.pairs)`` minimises the sum.

The forms, by ``curvature``:

- ``gauss_newton``: with J the Jacobian of the outputs y and B the Hessian of the objective there,
  :math:`e_l^\top H_{lm} e_m = (B^{1/2\top} J e_l) \cdot (B^{1/2\top} J e_m)`: one tangent of the outputs for every part
  of a format (``site_changes``), and all pairs of all sites are inner products. Exact where the objective is a distance
  to the float model's own outputs (``kl``, ``relative_error``, ``cosine``): its gradient at y vanishes there, and with
  it all else of H. For cross-entropy it leaves out the residual.
- ``hessian``: one product H e for every part, by double differentiation, and its inner products with all others. For
  any loss that can be differentiated twice.
- ``auto``: ``gauss_newton`` where it is exact, ``hessian`` elsewhere.

All pairs are known; those of the ``sites`` with the largest interactions are handed on, because the allocation grows
with them, and those of tied sites, which cost it nothing. Interactions have either sign and need more samples than the
values: on a ResNet-20 with 2-bit layers they spoiled the order with up to 128 samples, and did little harm with 256
(docs/proxies.md); ``sites=0`` leaves them out, ``pairwise`` measures them. CLADO projects its matrix to a positive
semi-definite one, which did not beat the sum there and is not done. ``first_order=True`` adds the gradient, with its
sign, to the values (``first_order``). The sums are those over just these samples: nothing is random.
"""

from __future__ import annotations

import time
from itertools import combinations
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ..errors import InvalidInput, NonFiniteOutput
from ..evaluators import QuantizedModel
from .gradient_errors import ERROR_BYTES, check_reached
from .layer_calls import pieces
from .padding import without_padding
from .probing import labelled
from .quadratic_forms import QuadraticForms
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task

Curvature = Literal["auto", "gauss_newton", "hessian"]


class AugmentedHessian:
    """Second-order loss of single sites and of pairs of them, by exact quadratic forms of the quantization errors.

    Args:
        samples: calibration samples over which the objective is taken.
        batch: samples differentiated at a time, fewer where the outputs are large.
        sites: how many sites are paired with each other; tied ones always are.
        curvature: ``"auto"``, ``"gauss_newton"`` or ``"hessian"``.
        first_order: whether the signed first-order term is added.
    """

    name = "augmented_hessian"
    summary = (
        "second-order loss of each site's real error, and interactions between sites, for allocate(pair_loss=): "
        "for small errors, and many samples"
    )
    additive = True
    gradients = 2
    source = "Schaefer et al. 2023, arXiv:2306.04879 (inter-layer dependencies); form of CLADO, arXiv:2307.05657"

    def __init__(
        self,
        samples: int = 32,
        batch: int = 16,
        sites: int = 8,
        curvature: Curvature = "auto",
        first_order: bool = False,
    ) -> None:
        self.samples = samples
        self.batch = batch
        self.sites = sites
        self.curvature = curvature
        self.first_order = first_order

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Samples x sites."""
        return min(self.samples, task.samples("calibration")) * len(space.sites)

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format), and pairs; see the module docstring. The seed is not used: nothing is random.

        Raises:
            InvalidInput: a setting is out of range, or ``gauss_newton`` with a loss that is no cross-entropy.
            UnsupportedModel: the model cannot be differentiated twice.
            NonFiniteOutput: a product is not finite.
        """
        started = time.perf_counter()
        if self.sites < 0 or self.curvature not in get_args(Curvature):
            raise InvalidInput(
                f"augmented_hessian needs sites of at least 0 and curvature 'auto', 'gauss_newton' or 'hessian', "
                f"got {self.sites}, {self.curvature!r}"
            )
        batches = without_padding(task.model, pieces(task, self.samples, self.batch, self.name), lengths=1)
        exact = not any(labelled(task, batch) for batch in batches)
        quantized = QuantizedModel(task.model, space, calibration, ERROR_BYTES)
        tangents = self.curvature == "gauss_newton" or (self.curvature == "auto" and exact)
        forms = QuadraticForms(task, quantized, tangents, self.first_order and not exact, self.name)
        for batch in batches:
            forms.add(batch, advance)
        check_reached(task, quantized, forms.reached, batches[0])
        values, pairs = forms.tables()
        if not np.isfinite(values[space.allowed]).all():
            row = int(np.argwhere(~np.isfinite(values) & space.allowed)[0][0])
            raise NonFiniteOutput(f"proxy augmented_hessian: the form at site {space.names[row]} is NaN or infinite")
        kept = {each: pairs[each] for each in wanted(space, pairs, self.sites)}
        seconds, names = time.perf_counter() - started, tuple(space.names)
        return Sensitivity(
            self.name, values, None, names, space.formats, seconds, forms.forward, forms.backward, pairs=kept
        )


def wanted(space: SearchSpace, pairs: dict[tuple[int, int], np.ndarray], count: int) -> list[tuple[int, int]]:
    """The pairs of the sites with the largest interactions with others, and those of tied sites.

    Args:
        space: the sites.
        pairs: of all sites.
        count: how many sites are paired with each other.
    """
    tied = {pair for tie in space.tie_indices for pair in combinations(sorted(tie), 2)}
    strength = np.zeros(len(space.sites))
    for (one, other), table in pairs.items():
        if (one, other) not in tied:
            strength[[one, other]] += np.nanmax(np.abs(table))
    chosen = set(np.argsort(-strength, kind="stable")[:count].tolist())
    return [pair for pair in pairs if pair in tied or chosen.issuperset(pair)]
