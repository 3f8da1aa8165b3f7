r"""Empirical Fisher: squared gradients of the data's own loss, weighted element by element with the squared error.

.. math::
    s[l, f] = \frac12 \sum_i \hat F_{ii} (Q_f(W_l) - W_l)_i^2, \qquad
    \hat F_{ii} = \frac1N \sum_n T_n \Bigl( \frac{\partial \ell_n}{\partial w_i} \Bigr)^2

with l_n the mean loss over the T_n positions of sample n (one, where a sample has one label). Where a format rounds the
activation that enters the site, the like sum over its elements is added. Kim et al. 2023, SqueezeLLM,
arXiv:2306.07629, eq. 4 (the diagonal Fisher in place of the Hessian of the second-order Taylor term).

It estimates the increase of the loss as far as the labels follow the model's own distribution: then the mean of the
squares is the diagonal of the Hessian's Gauss-Newton part (Kunstner et al. 2019, arXiv:1905.12558, on where it is not).
The squares are taken for every sample. The square of a gradient averaged over a batch of B samples is another quantity:
near a minimum the average vanishes, its square is 1/B of the mean of squares, and what is left beyond is the squared
mean gradient, which says how far training was from its end, not how curved the loss is.

The gradient of a distance to the model's own outputs (``kl``, ``relative_error``, ``cosine``) is zero at the float
weights. With labelled calibration data the loss at the labels is taken there; without labels the proxy refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidInput
from .gradient_errors import Setting, averaged, passes
from .likelihood import has_labels
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task


class EmpiricalFisher:
    """Diagonal empirical Fisher times squared quantization error, for weights and rounded activations.

    Args:
        samples: calibration samples used; each is one forward and one backward pass.
    """

    name = "empirical_fisher"
    summary = "SqueezeLLM: squared gradients of every sample's loss x squared quantization error, element by element"
    additive = True
    gradients = 1
    source = "Kim et al. 2023 (SqueezeLLM), arXiv:2306.07629, eq. 4"

    def __init__(self, samples: int = 64) -> None:
        self.samples = samples

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Samples, for every block of sites."""
        return passes(task, space, self.samples)

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring. The seed is not used: nothing is drawn.

        Raises:
            InvalidInput: the calibration data has no labels.
            UnsupportedModel: the model cannot be differentiated.
            NonFiniteOutput: a gradient is not finite.
        """
        if not has_labels(task):
            raise InvalidInput(
                "empirical_fisher needs labelled calibration batches (inputs, targets): the distance to the model's "
                "own outputs has no gradient at the float weights; choose sampled_fisher or gauss_newton_diagonal"
            )
        setting = Setting(self.name, "data", self.samples)
        return averaged(task, space, calibration, setting, seed, advance, factor=0.5)
