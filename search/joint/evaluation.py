"""Evaluating genomes: an evaluator that builds the network of each architecture, for every executor."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...architecture import Choices, Genome
from ...errors import InvalidInput, NonFiniteOutput
from ...evaluators import CALIBRATION_VERSION, Evaluator, FakeQuantEvaluator, execution_key
from ...measurement import Measurement
from ...space import Configuration
from ...task import Split
from ..executor import EvaluatorRecipe
from ..stage import key_of
from ..work import Work
from .space import Subnets

_EVALUATORS = 2  # kept warm; a shard is ordered by architecture
_CACHE_BYTES = 1_000_000_000  # each, of quantized weights and activations
_VERSION = "joint-1"


@dataclass(frozen=True)
class JointRecipe(EvaluatorRecipe):
    """What a worker needs to evaluate genomes; task, space and calibration are those of the largest architecture.

    Attributes:
        subnets: build the networks.
    """

    subnets: Subnets = field(kw_only=True)

    @staticmethod
    def of(subnets: Subnets) -> JointRecipe:
        """The recipe for the architectures of a family."""
        largest = subnets.joint.family.architecture.largest()
        net = subnets.at(largest)
        return JointRecipe(
            net.task, net.space, subnets.calibration(largest), subnets.recipe.batch_norm, subnets=subnets
        )

    def build(self, cache_folder: str | None = None) -> Evaluator:
        """See ``EvaluatorRecipe.build``."""
        return JointEvaluator(self.subnets, cache_folder)

    def order(self, batch: Sequence[Work]) -> list[int]:
        """Indices of a round's work: one architecture after the other, and in each as for a single model."""

        def key(index: int) -> tuple[Any, ...]:
            work = batch[index]
            chosen = work.architecture.digest if work.architecture is not None else ""
            names = list(work.configuration)
            return work.split, work.batches or 0, chosen, execution_key(work.configuration.to_dict(), names)

        return sorted(range(len(batch)), key=key)

    def failure_context(self, split: Split, architecture: Choices | None = None) -> str:
        """See ``EvaluatorRecipe.failure_context``."""
        return failure_context(context_of(self.subnets, split), _given(architecture))


class JointEvaluator:
    """Measures genomes: the evaluator of one model for each architecture, the last few kept.

    Args:
        subnets: build the networks.
        cache_folder: shared by the workers of one machine for quantized weights and float outputs.
    """

    def __init__(self, subnets: Subnets, cache_folder: str | None = None) -> None:
        self.subnets, self.cache_folder = subnets, cache_folder
        self._warm: OrderedDict[Choices, FakeQuantEvaluator] = OrderedDict()

    def of(self, choices: Choices) -> FakeQuantEvaluator:
        """The evaluator of one architecture."""
        if choices not in self._warm:
            net = self.subnets.at(choices)
            self._warm[choices] = FakeQuantEvaluator(
                net.task,
                net.space,
                self.subnets.calibration(choices),
                cache_bytes=_CACHE_BYTES,
                cache_folder=self.cache_folder,
                reestimate_batch_norm=self.subnets.recipe.batch_norm,
            )
            if len(self._warm) > _EVALUATORS:
                self._warm.popitem(last=False)
        self._warm.move_to_end(choices)
        return self._warm[choices]

    def evaluate(
        self, configuration: Mapping[str, str], split: Split = "validation", *, architecture: Choices | None = None
    ) -> Measurement:
        """Measure one genome; ``{}`` is the float network.

        Raises:
            InvalidInput: no architecture is given.
        """
        return self.of(_given(architecture)).evaluate(configuration, split)

    def evaluate_many(
        self,
        configurations: Sequence[Mapping[str, str]],
        split: Split = "validation",
        races: Any = None,
        *,
        known: Any = None,
        batches: int | None = None,
        architecture: Choices | None = None,
    ) -> Any:
        """Measure configurations of one architecture; see ``FakeQuantEvaluator.evaluate_many``.

        A float network whose output is not finite is the result of each of them, not an error.

        Raises:
            InvalidInput: no architecture is given.
        """
        found = self.of(_given(architecture))
        try:
            found.references(split)
        except NonFiniteOutput as cause:  # of this architecture alone: the others go on
            return [cause] * len(configurations)
        return found.evaluate_many(configurations, split, races, known=known, batches=batches)


def _given(architecture: Choices | None) -> Choices:
    if architecture is None:
        raise InvalidInput("a genome is measured with its architecture; give architecture=choices")
    return architecture


def genome_of(work: Work) -> Genome:
    """The genome that a work measures."""
    return Genome(_given(work.architecture), work.configuration)


def context_of(subnets: Subnets, split: Split) -> str:
    """Key under which the measurements of genomes are stored: all that they depend on but the genome.

    The family with its weights, data, metric and, where outputs are compared with it, the original model; the recipe;
    the sites that stay in float are not in the genome and so in the key. Neither formats nor ties on offer count.
    """
    joint, task = subnets.joint, subnets.task
    about = key_of(
        _VERSION,
        CALIBRATION_VERSION,
        joint.family.name,
        joint.family.digest,
        joint.family.architecture.digest,
        list(joint.exclude),
        str(subnets.recipe),
        task.digest("calibration"),
    )
    return f"{_VERSION}-{task.digest(split)}-{about}"


class StoredGenome(Configuration):
    """A genome in the rows that the store has for configurations: its digest, and its formats beside its architecture.

    The architecture is the text of its JSON under the key ``architecture`` (no site can be called so: it would have to
    be the model's own attribute of that name, and then the digest still tells the two apart).
    """

    genome: Genome

    @staticmethod
    def of(genome: Genome) -> StoredGenome:
        """The row of a genome."""
        found = StoredGenome(genome.configuration.pairs)
        object.__setattr__(found, "genome", genome)
        return found

    @property
    def digest(self) -> str:
        """Of the genome."""
        return self.genome.digest

    def to_dict(self) -> dict[str, str]:
        """``{site: format}``, and the architecture as JSON."""
        return {"architecture": json.dumps(self.genome.choices.to_dict()), **self.genome.configuration.to_dict()}


def failure_context(context: str, choices: Choices) -> str:
    """Key under which failures of one architecture are stored."""
    return f"{context[:48]}-{hashlib.sha256(f'{context}{choices.digest}'.encode()).hexdigest()[:24]}"
