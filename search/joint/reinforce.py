r"""A REINFORCE controller of architectures: independent categorical distributions, one for each decision.

The policy of FLIQS (Dotzel et al., arXiv:2308.03290) and TuNAS (Bender et al., arXiv:2008.06120): logits
:math:`\theta_d` for each decision d, and for an architecture a with the answers :math:`a_d`

.. math:: \pi(a) = \prod_{d \in D(a)} \operatorname{softmax}(\theta_d)_{a_d}

with D(a) the decisions that exist in a. After a round with new architectures a and rewards r(a), with
:math:`\bar r, s` mean and standard deviation of the rewards of the latest ones (all are told again each round, so the
baseline is of the same front), the logits take a step along the policy gradient (Williams 1992) and the entropy H:

.. math:: \theta_d \leftarrow \theta_d + \eta \Big( \sum_a \frac{r(a) - \bar r}{s} \nabla_{\theta_d} \log \pi(a)
          + \lambda \nabla_{\theta_d} H(\operatorname{softmax}(\theta_d)) \Big)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...architecture import ArchitectureSpace, Choices, Value
from ...errors import InvalidInput
from .decisions import ArchitectureDecisions, Decision
from .proposer import Told
from .reinforce_rewards import FrontReward, Reward

FloatArray = NDArray[np.float64]
_TRIES = 50  # draws without anything new until the policy is flattened
_FLATTENED = 8  # times, each time by half; then the space counts as spent
_LATEST = 40  # architectures that the baseline is of
_CLIP = 3.0  # standard deviations


class Reinforce:
    """Proposes architectures by a policy that it learns from their rewards.

    Args:
        architecture: the dimensions.
        seed: of every draw.
        reward: of an architecture; default: how near its front is to the merged one.
        rate: length of a step.
        entropy: weight of the entropy, which keeps the policy from deciding too early.

    Raises:
        InvalidInput: a rate that is not positive, or a negative weight.
    """

    def __init__(
        self,
        architecture: ArchitectureSpace,
        seed: int = 0,
        reward: Reward | None = None,
        rate: float = 0.15,
        entropy: float = 0.02,
    ) -> None:
        if not rate > 0 or entropy < 0:
            raise InvalidInput(f"rate={rate}, entropy={entropy}; the rate must be positive, the weight 0 or more")
        self.decisions, self.reward = ArchitectureDecisions(architecture), reward or FrontReward()
        self.rate, self.entropy = rate, entropy
        self.logits: dict[str, FloatArray] = {}
        self._draw = np.random.default_rng(seed)
        self._asked: dict[Choices, None] = {}
        self._pending: dict[Choices, None] = {}

    def ask(self, count: int) -> list[Choices]:
        """See ``Proposer.ask``: drawn from the policy; flattened step by step where it gives nothing new."""
        found: list[Choices] = []
        sharpness, tries = 1.0, 0
        while len(found) < count and sharpness > 0.5**_FLATTENED:
            made = self.decisions.decide(lambda decision, now=sharpness: self._drawn(decision, now))  # type: ignore[misc]
            tries += 1
            if made not in self._asked:
                self._asked[made] = self._pending[made] = None
                found.append(made)
                tries = 0
            elif tries >= _TRIES:
                sharpness, tries = sharpness / 2, 0
        return found

    def tell(self, told: Sequence[Told]) -> None:
        """See ``Proposer.tell``: learns from what is new.

        Architectures without a quality have failed only when others that were asked for with them have theirs: in the
        middle of a round they are still to be measured. They get the worst reward.
        """
        self._asked |= {each.choices: None for each in told}
        rewards = {each.choices: self.reward(each) for each in told}
        finite = {choices: value for choices, value in rewards.items() if math.isfinite(value)}
        if not any(choices in self._pending for choices in finite):
            return
        new = [choices for choices in self._pending if choices in rewards]
        latest = np.array([finite[choices] for choices in [c for c in self._asked if c in finite][-_LATEST:]])
        worst, mean, spread = float(latest.min()), float(latest.mean()), float(latest.std())
        steps = {label: np.zeros_like(values) for label, values in self.logits.items()}
        for choices in new:
            advantage = (finite.get(choices, worst) - mean) / spread if spread > 0 else 0.0
            self._add(steps, choices, min(max(advantage, -_CLIP), _CLIP))
            del self._pending[choices]
        for label, step in steps.items():
            share = self.probabilities(label)
            logs = np.log(np.maximum(share, 1e-300))
            self.logits[label] += self.rate * (step - self.entropy * share * (logs - share @ logs))

    def probabilities(self, label: str) -> FloatArray:
        """The policy of one decision that was drawn before [options]."""
        return _softmax(self.logits[label])

    def most_likely(self) -> Choices:
        """The architecture of the most likely answers; may be one that was never proposed."""
        return self.decisions.decide(lambda decision: decision.options[int(np.argmax(self._logits(decision)))])

    def _add(self, steps: dict[str, FloatArray], choices: Choices, advantage: float) -> None:
        """Advantage times the gradient of the log-probability, decision by decision."""
        answers = self.decisions.answers(choices)

        def pick(decision: Decision) -> Value:
            answer = answers[decision.label]
            share = _softmax(self._logits(decision))
            step = steps.setdefault(decision.label, np.zeros(len(share)))
            step -= advantage * share
            step[decision.options.index(answer)] += advantage
            return answer

        self.decisions.decide(pick)

    def _drawn(self, decision: Decision, sharpness: float) -> Value:
        share = _softmax(sharpness * self._logits(decision))
        return decision.options[int(self._draw.choice(len(share), p=share))]

    def _logits(self, decision: Decision) -> FloatArray:
        return self.logits.setdefault(decision.label, np.zeros(len(decision.options)))


def _softmax(logits: FloatArray) -> FloatArray:
    weights = np.exp(logits - logits.max())
    found: FloatArray = weights / weights.sum()
    return found
