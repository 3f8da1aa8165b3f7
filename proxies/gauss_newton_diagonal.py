r"""Gauss-Newton diagonal: the curvature of the objective at every element, weighted with the squared error.

.. math::
    s[l, f] = \frac12 \sum_i G_{ii} (Q_f(W_l) - W_l)_i^2, \qquad
    G = \frac1N \sum_n J_n^\top B_n J_n, \qquad
    G_{ii} = \frac1N \sum_n E_v \bigl( J_n^\top B_n^{1/2} v \bigr)_i^2

with J_n the Jacobian of the outputs of sample n, B_n the Hessian of its objective with respect to them (see
``likelihood``), and v of random signs. Where a format rounds the activation that enters the site, the like sum over its
elements is added. Schraudolph 2002 (Neural Computation 14(7), eq. 9 and section 3) for G; the diagonal by random
square roots: Bekas et al. 2007 (Applied Numerical Mathematics 57, eq. 2) and Dangel et al. 2020 (BackPACK,
arXiv:1912.10985, section 2.3, DiagGGN-MC).

G equals the Fisher matrix of ``sampled_fisher``; the estimators differ. Random signs spread a draw over all outputs,
labels put it on one. For ``kl``, ``relative_error`` and ``cosine`` G is the Hessian at the float weights, so that s is
the diagonal part of the second-order Taylor term. It differs from ``hessian_trace``, which gives every weight of a site
the mean curvature of the site.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .first_order import first_order_terms
from .gradient_errors import Setting, averaged, passes
from .recording import single_samples
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task


class GaussNewtonDiagonal:
    """Diagonal of the Gauss-Newton matrix times squared quantization error.

    Args:
        samples: calibration samples used; each is one forward pass.
        probes: random probes of each; each is one backward pass.
        first_order: whether the signed first-order term of every sample is added (``first_order``).
    """

    name = "gauss_newton_diagonal"
    summary = "diagonal of the Gauss-Newton matrix x squared quantization error, element by element"
    additive = True
    gradients = 1
    source = "Schraudolph 2002, eq. 9; Dangel et al. 2020 (BackPACK), arXiv:1912.10985, section 2.3"

    def __init__(self, samples: int = 64, probes: int = 1, first_order: bool = False) -> None:
        self.samples = samples
        self.probes = probes
        self.first_order = first_order

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Samples, for every block of sites."""
        return passes(task, space, self.samples)

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring.

        Raises:
            InvalidInput: the task has a loss of its own that is not the cross-entropy of the outputs.
            UnsupportedModel: the model cannot be differentiated.
            NonFiniteOutput: a gradient is not finite.
        """
        setting = Setting(self.name, "signs", self.samples, self.probes)
        extra = None
        if self.first_order:
            terms, passed = first_order_terms(task, space, calibration, single_samples(task, self.samples))
            extra = terms.sum(1), passed
        return averaged(task, space, calibration, setting, seed, advance, 0.5, extra)
