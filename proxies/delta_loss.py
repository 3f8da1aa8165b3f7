r"""Delta loss: the first-order change of the loss, without regard to signs.

.. math::
    s[l, f] = \frac1N \sum_n \Bigl( \sum_{i \in W_l} \Bigl| \frac{\partial \ell_n}{\partial w_i}
              (Q_f(W_l) - W_l)_i \Bigr|
            + \sum_{j \in a_l} \Bigl| \frac{\partial \ell_n}{\partial a_j} (Q_f(a_l) - a_l)_j \Bigr| \Bigr)

with l_n the loss of sample n and a_l the activation that enters the site, where the format rounds it. Cheng et al.
2025, SignRoundV2, arXiv:2512.04746, eq. 3; the score by which AutoRound's AutoScheme gives out bits.

It bounds the first-order term of the loss from above; bounds add up over the sites. It grows in proportion to the error
where the loss itself grows with its square, so it is to be fitted before it is read as a loss. AutoRound differentiates
at the quantized weights and sums the gradient of a batch before it takes absolute values, so that the score depends on
the batch size (opposite gradients cancel); here the gradient is that of the float model, for every sample by itself.

Labels: those of the data where the objective is a loss against them. A distance to the model's own outputs (``kl``,
``relative_error``, ``cosine``) has no gradient at the float weights; there it is a random one, with the covariance that
the gradients at labels drawn from the model have (``signs`` in ``likelihood``), which measures how far the outputs
move. ``labels`` forces one or the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .gradient_errors import Setting, averaged, passes
from .likelihood import Labels, labels_of
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Task


class DeltaLoss:
    """Absolute gradient times quantization error, summed, for weights and rounded activations.

    Args:
        samples: calibration samples used; each is one forward and one backward pass.
        labels: ``"data"``, ``"model"``, or ``"auto"``: the data's where the objective uses them.
    """

    name = "delta_loss"
    summary = "AutoRound's score: |gradient x quantization error| of weights and inputs, first order"
    additive = True
    gradients = 1
    source = "Cheng et al. 2025 (SignRoundV2), arXiv:2512.04746, eq. 3"

    def __init__(self, samples: int = 64, labels: Labels = "auto") -> None:
        self.samples = samples
        self.labels = labels

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Samples, for every block of sites."""
        return passes(task, space, self.samples)

    @in_evaluation
    def score(
        self, task: Task, space: SearchSpace, calibration: Calibration, *, seed: int, advance: Advance | None
    ) -> Sensitivity:
        """Score every (site, format); see the module docstring.

        Raises:
            InvalidInput: labels of the data are asked for and there are none, or labels of the model where the task
                has a loss of its own that is not the cross-entropy of the outputs.
            UnsupportedModel: the model cannot be differentiated.
            NonFiniteOutput: a gradient is not finite.
        """
        setting = Setting(self.name, labels_of(task, self.labels, self.name), self.samples, power=1)
        return averaged(task, space, calibration, setting, seed, advance)
