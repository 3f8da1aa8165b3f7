r"""Sampled Fisher: squared gradients at labels drawn from the model itself, weighted with the squared error.

.. math::
    s[l, f] = \frac12 \sum_i F_{ii} (Q_f(W_l) - W_l)_i^2, \qquad
    F_{ii} = \frac1N \sum_n T_n \, E_{y \sim p(\cdot | x_n)}
             \Bigl( \frac{\partial \ell_n(y)}{\partial w_i} \Bigr)^2

with l_n(y) the mean negative log-likelihood over the T_n positions of sample n, whose labels are drawn from the model's
softmax (Gaussian noise at the outputs for ``relative_error`` and ``cosine``). Where a format rounds the activation that
enters the site, the like sum over its elements is added.

F is the Fisher matrix proper, with its expectation over the model's distribution rather than the data's (Martens 2020,
arXiv:1412.1193, section 5; Kunstner et al. 2019, arXiv:1905.12558, eq. 3). For the KL divergence to the float model it
is exactly the Hessian at the float weights, for cross-entropy its Gauss-Newton part, so that s is the diagonal part of
the second-order Taylor term of the objective. The drawing noise is in ``error``; it falls with ``samples * draws``.
For a model that is sure of its labels nearly all draws have a gradient near zero, and both score and error come out far
too small: take ``gauss_newton_diagonal``, which estimates the same F, there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .gradient_errors import Setting, averaged, passes
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task


class SampledFisher:
    """Diagonal Fisher with labels drawn from the model, times squared quantization error.

    Args:
        samples: calibration samples used; each is one forward pass.
        draws: labels drawn for each; each is one backward pass.
    """

    name = "sampled_fisher"
    summary = "squared gradients at labels drawn from the model x squared quantization error, element by element"
    additive = True
    gradients = 1
    source = "Martens 2020, arXiv:1412.1193, section 5; Kunstner et al. 2019, arXiv:1905.12558, eq. 3"

    def __init__(self, samples: int = 64, draws: int = 1) -> None:
        self.samples = samples
        self.draws = draws

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
        setting = Setting(self.name, "model", self.samples, self.draws)
        return averaged(task, space, calibration, setting, seed, advance, factor=0.5)
