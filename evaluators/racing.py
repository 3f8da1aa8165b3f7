r"""Racing: stop the evaluation of a candidate as soon as it is, with stated confidence, worse than its rival.

Whether a candidate is worse is a question about the N samples of the split, each with a value :math:`x_i \ge 0` of the
candidate (lower is better) and a value :math:`y_i \ge 0` of the rival, who was measured on all of them. The hypothesis
that the race tries to refute is "not worse":

.. math:: H_0: \quad \frac{1}{N} \sum_i x_i \le m := \frac{1}{N} \sum_i y_i + \mathrm{margin}

The samples come without replacement in random order. Before sample t, with :math:`S_{t-1}` the sum of the values of the
candidate so far, the expectation of :math:`x_t` under :math:`H_0` is at most
:math:`\mu_t = (N m - S_{t-1}) / (N - t + 1)`, so that a bet on it is no better than fair (Waudby-Smith and Ramdas 2023,
"Estimating means of bounded random variables by betting", arXiv:2010.09686, section 5.1, here for variables that
are bounded on one side only). With :math:`\lambda_t \ge 0` fixed before the sample is seen, the wealth

.. math:: K_n = \prod_{t=1}^{n} \bigl(1 + \lambda_t [(x_t - \mu_t) - (g(y_t) - \bar g_t)]\bigr), \qquad K_0 = 1

is a non-negative supermartingale under :math:`H_0`, and Ville's inequality bounds the probability that it *ever*
reaches 1 / error:

.. math:: P(\exists n \le N: K_n \ge 1 / \mathrm{error}) \le \mathrm{error}

The second bracket makes the comparison a paired one: :math:`g(y) = \min(y, c\,m)` takes away from :math:`x_t` what the
rival found hard too, and costs nothing on average: :math:`\bar g_t`, the mean of g over the samples still to come, is
known. The factor stays non-negative for :math:`\lambda_t \le 1 / (\mu_t + \max g - \bar g_t)`, the
maximum again over the samples to come; the stake is a fixed share f of that. K is the mean of such products over
c = 0 (no pairing), 3, infinity (all of it) and f = 0.1, 0.3, 0.8: a mean of supermartingales is one.

The error rate is exact for every sample size and every number of looks: no normality, variance or upper bound is
assumed, so heavy tails (as of the KL divergence) cost power and not validity. Two things are assumed: that no value
is below ``floor``, and that the order of the samples is random, so shuffle them before they are cut into batches (data
sorted by class breaks this). The error is per candidate; that the rival was chosen by its values on these samples does
no harm, because they are taken as given.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput

if TYPE_CHECKING:
    from ..task import Task

Values = NDArray[np.float64]

_CONTROLS = (0.0, 3.0, np.inf)  # c: where the rival's values are clipped, in means of the rival
_STAKES = (0.1, 0.3, 0.8)  # f: share of the largest stake that cannot ruin
_ROUNDING = 1e-9  # sums that differ by less, relatively, are equal


@dataclass(frozen=True, eq=False)
class Race:
    """A sequential test of one candidate after another against one rival; see the module docstring.

    Args:
        rival_values: the metric of every sample of the split for the rival, in the order of the data: [samples].
        error: largest probability that a candidate that is not worse on the whole split is ever stopped.
        margin: how much worse on average a candidate may be before it counts as worse, in the unit of the per-sample
            values. For perplexity these are losses; the exponential is monotone, so the smaller mean loss is the
            smaller perplexity, and a margin of log(r) allows r times the rival's perplexity.
        floor: the smallest value that a sample can have: 0 for all metrics but callables (``smallest_value``).

    Raises:
        InvalidInput: the rival has no values, or some that are not finite or below the floor; or the error is no
            probability between 0 and 1.
    """

    rival_values: Values
    error: float = 0.05
    margin: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.error < 1:
            raise InvalidInput(f"error={self.error}: the error rate of a race lies between 0 and 1, such as 0.05")
        if not (np.isfinite(self.margin) and np.isfinite(self.floor)):
            raise InvalidInput(f"margin={self.margin} and floor={self.floor} of a race must be finite")
        object.__setattr__(self, "rival_values", self._checked(self.rival_values, "rival"))
        if not len(self.rival_values):
            raise InvalidInput("the rival of a race has no values; measure it on the whole split first")

    def lost(self, values: Any) -> bool:
        """Whether the candidate is worse than the rival, by its values so far.

        Args:
            values: the metric of the first samples for the candidate: [samples so far].

        Returns:
            True once the hypothesis that it is not worse is refuted; it stays refuted by more samples.

        Raises:
            InvalidInput: more values than the rival has, or some that are not finite or below the floor.
        """
        return self.p_value(values) <= self.error

    def p_value(self, values: Any) -> float:
        """Anytime-valid p-value of "not worse": the smallest 1 / K up to now; 0 when worse for certain."""
        return float(1 / max(1.0, self.wealth(values).max(initial=1.0)))

    def wealth(self, values: Any) -> Values:
        """K after each sample: [samples so far]; infinite from where on the candidate is worse for certain."""
        candidate = self._checked(values, "candidate")
        if len(candidate) > len(self.rival_values):
            raise InvalidInput(f"a race over {len(self.rival_values)} samples got {len(candidate)} values")
        sums = np.cumsum(candidate)
        left = len(self.rival_values) - np.arange(len(candidate))
        expected = np.maximum(self._total - (sums - candidate), 0.0) / left
        logs = np.concatenate([self._bets(candidate, expected, control) for control in _CONTROLS])
        certain = sums > self._total + _ROUNDING * abs(self._total)  # even if all other samples were at the floor
        with np.errstate(over="ignore"):  # infinite is what it is
            return np.where(certain, np.inf, np.exp(logs).mean(0))

    def _bets(self, candidate: Values, expected: Values, control: float) -> Values:
        """Log wealth after each sample, for every stake: [stakes, samples so far]."""
        seen = len(candidate)
        clipped, mean, largest = (each[:seen] for each in self._controls[control])
        room = expected + largest - mean
        gain = (candidate - expected) - (clipped - mean)
        relative = np.divide(gain, room, out=np.zeros(seen), where=room > _ROUNDING * self._mean)
        return np.cumsum(np.log1p(np.outer(_STAKES, np.maximum(relative, -1.0))), axis=1)

    @cached_property
    def _mean(self) -> float:
        return max(0.0, self._total / len(self.rival_values))

    @cached_property
    def _total(self) -> float:
        """What the candidate's values may add up to: N m."""
        return float(np.sum(self.rival_values) + len(self.rival_values) * self.margin)

    @cached_property
    def _controls(self) -> dict[float, tuple[Values, Values, Values]]:
        """For every c: g of each sample, and before each sample the mean and maximum of g over those to come."""
        found = {}
        for control in _CONTROLS:
            limit = control * self._mean if np.isfinite(control) else np.inf
            clipped = np.minimum(self.rival_values, limit)
            backwards = clipped[::-1]
            mean = np.cumsum(backwards) / np.arange(1, len(clipped) + 1)
            found[control] = clipped, mean[::-1], np.maximum.accumulate(backwards)[::-1]
        return found

    def _checked(self, values: Any, whose: str) -> Values:
        """The values as float64, counted from the floor."""
        found = np.asarray(values, dtype=np.float64) - self.floor
        if found.ndim != 1 or not np.isfinite(found).all():
            raise InvalidInput(f"the values of the {whose} in a race must be finite numbers [samples]")
        if found.size and found.min() < 0:
            raise InvalidInput(
                f"a value of the {whose} is {found.min() + self.floor:.6g}, below the floor {self.floor:.6g} of the "
                "race; give the smallest value that the metric can have as floor, or do not race"
            )
        return found


def smallest_value(task: Task) -> float | None:
    """The smallest value that the metric of a task can have for a sample; ``None`` where the user alone knows.

    A callable, and a loss of the user's own, may be negative: give ``Race`` their floor, or do not race.
    """
    own_loss = task.loss is not None and task.quality in ("loss", "perplexity")
    return None if callable(task.quality) or own_loss else 0.0
