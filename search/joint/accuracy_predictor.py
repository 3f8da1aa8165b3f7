r"""A quantization-aware accuracy predictor: learns float sub-networks first, then pairs of architecture and formats.

APQ (Wang et al., CVPR 2020, arXiv:2006.08509, section 3.2): measuring a float sub-network of a supernet takes a forward
pass, measuring a quantized one also a calibration, so few pairs can be measured. The predictor of pairs

.. math:: \log \hat q(a, c) = g([\text{one-hot}(a), \text{one-hot}(c)])

is therefore trained in two steps: ``pretrained`` on many float networks, for which the columns of the formats are 0 and
their weights stay 0; ``adapted`` to few pairs from these weights, with the columns of the formats opened, while the
float networks are shown again so that they are not forgotten. ``scratch`` is the same network on pairs alone.

Qualities are learned in logarithms: formats that destroy a network are worse by an order of magnitude.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...architecture import Choices, Genome
from ...errors import InvalidInput
from .accuracy_encoding import GenomeEncoding
from .accuracy_network import Ensemble

FloatArray = NDArray[np.float64]
_HIDDEN, _MEMBERS = 48, 5
_STEPS = 300


@dataclass(frozen=True)
class AccuracyPredictor:
    """Foretells the quality of genomes (lower is better) without running them.

    Called with the choices of an architecture it foretells its float network, which is what ``run_joint`` takes as
    ``predictor``.

    Attributes:
        encoding: columns of genomes.
        ensemble: from columns to the logarithm of the quality.
        floor: qualities below count as this.
        floats: the float networks that were learned.
        pairs: the pairs that were learned.
    """

    encoding: GenomeEncoding
    ensemble: Ensemble = field(repr=False)
    floor: float
    floats: Mapping[Choices, float] = field(default_factory=dict, repr=False)
    pairs: Mapping[Genome, float] = field(default_factory=dict, repr=False)

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
        closed = encoding.size - encoding.of_architecture
        drawn = Ensemble.drawn(encoding.size, _HIDDEN, _MEMBERS, seed, closed)
        return AccuracyPredictor(encoding, drawn, floor, dict(floats))._trained(steps)

    @staticmethod
    def scratch(
        encoding: GenomeEncoding, pairs: Mapping[Genome, float], *, seed: int = 0, steps: int = _STEPS
    ) -> AccuracyPredictor:
        """Learn pairs alone, from random weights; see ``pretrained``."""
        drawn = Ensemble.drawn(encoding.size, _HIDDEN, _MEMBERS, seed)
        return AccuracyPredictor(encoding, drawn, _floor(pairs.values()), {}, dict(pairs))._trained(steps)

    def adapted(self, pairs: Mapping[Genome, float], *, steps: int = _STEPS) -> AccuracyPredictor:
        """Learn pairs besides what is known: the columns of formats are opened, all weights go on from here.

        Args:
            pairs: quality by genome; one that is known has its quality replaced.
            steps: of the training.

        Raises:
            InvalidInput: a site or format without a column, or a quality that is negative or not finite.
        """
        known = {**self.pairs, **pairs}
        floor = min(self.floor, _floor([*self.floats.values(), *known.values()]))
        return AccuracyPredictor(self.encoding, self.ensemble, floor, self.floats, known)._trained(steps)

    def predict(self, genomes: Sequence[Genome]) -> FloatArray:
        """Foretold qualities [genomes]: the exponential of the members' mean."""
        found: FloatArray = np.exp(self._outputs(genomes).mean(axis=0))
        return found

    def __call__(self, choices: Choices) -> float:
        """Foretold quality of a float network."""
        return float(self.predict([Genome(choices)])[0])

    def _outputs(self, genomes: Sequence[Genome]) -> FloatArray:
        return self.ensemble.outputs(self.encoding.rows(genomes))

    def _trained(self, steps: int) -> AccuracyPredictor:
        """Trained on everything known; pairs and float networks count alike as groups."""
        groups = [group for group in (self.floats, self.pairs) if group]
        genomes = [Genome(each) for each in self.floats] + list(self.pairs)
        logs = np.log(np.maximum([*self.floats.values(), *self.pairs.values()], self.floor))
        share = np.concatenate([np.full(len(group), 1 / len(group)) for group in groups])
        ensemble = self.ensemble.rescaled(float(np.average(logs, weights=share)), max(float(np.std(logs)), 1e-6))
        trained = ensemble.trained(self.encoding.rows(genomes), logs, share, steps)
        return AccuracyPredictor(self.encoding, trained, self.floor, self.floats, self.pairs)


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
