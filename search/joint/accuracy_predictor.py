r"""A quantization-aware accuracy predictor: learns float sub-networks first, then pairs of architecture and formats.

As APQ (Wang et al., CVPR 2020, arXiv:2006.08509, section 3.2): measuring a float sub-network of a supernet takes a
forward pass, measuring a quantized one also a calibration, so few pairs can be measured. Other than there, the quality
of a pair is what its float network has and what its formats lose,

.. math:: \hat q(a, c) = \underbrace{\exp g(\text{one-hot}(a))}_{\text{float network}}
          + \underbrace{\exp h([\text{one-hot}(a), \text{one-hot}(c)])}_{\text{loss}}

``pretrained`` learns g from many float networks, ``adapted`` learns h from few pairs, g as it is. APQ goes on training
one network of both; where coarse formats lose more than architectures differ, what it had learned then hurts
(docs/architecture_joint.md). ``scratch`` is one network of pairs alone, :math:`\log \hat q = h`.

Qualities are learned in logarithms: formats that destroy a network are worse by an order of magnitude.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ...architecture import Choices, Genome
from ...errors import InvalidInput
from .accuracy_encoding import GenomeEncoding
from .accuracy_network import Ensemble

FloatArray = NDArray[np.float64]
_HIDDEN, _MEMBERS = 48, 5
_STEPS = 300
_LEAST = 0.1  # quantile of the losses, below which they count as that when the scale is fixed


@dataclass(frozen=True)
class AccuracyPredictor:
    """Foretells the quality of genomes (lower is better) without running them.

    Called with the choices of an architecture it foretells its float network, which is what ``run_joint`` takes as
    ``predictor``.

    Attributes:
        encoding: columns of genomes.
        floor: qualities below count as this.
        network: from the columns of architectures to the logarithm of the float quality; ``None``: from scratch.
        loss: from all columns to the logarithm of what formats lose, from scratch of the quality; ``None``: no pairs
            yet.
        floats: the float networks that were learned.
        pairs: the pairs that were learned.
        seed: of the initial weights.
    """

    encoding: GenomeEncoding
    floor: float
    network: Ensemble | None = field(default=None, repr=False)
    loss: Ensemble | None = field(default=None, repr=False)
    floats: Mapping[Choices, float] = field(default_factory=dict, repr=False)
    pairs: Mapping[Genome, float] = field(default_factory=dict, repr=False)
    seed: int = 0

    @staticmethod
    def pretrained(
        encoding: GenomeEncoding, floats: Mapping[Choices, float], *, seed: int = 0, steps: int = _STEPS
    ) -> AccuracyPredictor:
        """Learn float networks.

        Args:
            encoding: with the columns of the sites and formats that pairs will have, if there will be any.
            floats: quality by architecture.
            seed: of the initial weights.
            steps: of the training.

        Raises:
            InvalidInput: fewer than two networks, or a quality that is negative or not finite.
        """
        floor = _floor(floats.values())
        logs = np.log(np.maximum(list(floats.values()), floor))
        rows = encoding.rows([Genome(each) for each in floats])[:, : encoding.of_architecture]
        drawn = Ensemble.drawn(encoding.of_architecture, _HIDDEN, _MEMBERS, seed).rescaled(*_scale(logs))
        return AccuracyPredictor(encoding, floor, drawn.trained(rows, logs, steps), None, dict(floats), seed=seed)

    @staticmethod
    def scratch(
        encoding: GenomeEncoding, pairs: Mapping[Genome, float], *, seed: int = 0, steps: int = _STEPS
    ) -> AccuracyPredictor:
        """Learn pairs alone, from random weights; see ``pretrained``."""
        return AccuracyPredictor(encoding, _floor(pairs.values()), seed=seed).adapted(pairs, steps=steps)

    def adapted(self, pairs: Mapping[Genome, float], *, steps: int = _STEPS) -> AccuracyPredictor:
        """Learn pairs besides what is known, going on from here.

        Args:
            pairs: quality by genome; one that is known has its quality replaced.
            steps: of the training.

        Raises:
            InvalidInput: a site or format without a column, or a quality that is negative or not finite.
        """
        known = {**self.pairs, **pairs}
        if not known:
            return self
        floor = min(self.floor, _floor([*self.floats.values(), *known.values()]))
        genomes, logs = list(known), np.log(np.maximum(list(known.values()), floor))
        under = None if self.network is None else self._float_logs(genomes)
        lost = np.exp(logs) if under is None else np.exp(logs) - np.exp(under)
        least = max(float(np.quantile(np.maximum(lost, 0.0), _LEAST)), floor * _LEAST)
        loss = self.loss or Ensemble.drawn(self.encoding.size, _HIDDEN, _MEMBERS, self.seed)
        loss = loss.rescaled(*_scale(np.log(np.maximum(lost, least))))
        trained = loss.trained(self.encoding.rows(genomes), logs, steps, under)
        return replace(self, floor=floor, loss=trained, pairs=known)

    def predict(self, genomes: Sequence[Genome]) -> FloatArray:
        """Foretold qualities [genomes]: exponentials of the members' means."""
        lost = np.zeros(len(genomes))
        if self.loss is not None:
            lost = np.exp(self.loss.outputs(self.encoding.rows(genomes)).mean(axis=0))
        if self.network is None:
            return lost
        quantized = np.array([bool(each.configuration.pairs) for each in genomes], dtype=bool)
        found: FloatArray = np.exp(self._float_logs(genomes)) + np.where(quantized, lost, 0.0)
        return found

    def __call__(self, choices: Choices) -> float:
        """Foretold quality of a float network."""
        return float(self.predict([Genome(choices)])[0])

    def _float_logs(self, genomes: Sequence[Genome]) -> FloatArray:
        """Logarithms of what the float networks of genomes are foretold to have [genomes]."""
        assert self.network is not None
        rows = self.encoding.rows([Genome(each.choices) for each in genomes])[:, : self.encoding.of_architecture]
        found: FloatArray = self.network.outputs(rows).mean(axis=0)
        return found


def _scale(logs: FloatArray) -> tuple[float, float]:
    """Mean and standard deviation."""
    return float(logs.mean()), max(float(logs.std()), 1e-6)


def _floor(qualities: Iterable[float]) -> float:
    """Half of the smallest positive quality.

    Raises:
        InvalidInput: fewer than two qualities, one that is negative or not finite, or none that is positive.
    """
    values = np.array(list(qualities), dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all() or values.min() < 0 or values.max() <= 0:
        raise InvalidInput(
            f"a predictor learns at least two finite qualities from 0 on, one above 0, got {values.tolist()[:6]}; "
            "leave networks out that could not be measured"
        )
    return float(values[values > 0].min() / 2)
