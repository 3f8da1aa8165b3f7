"""All that determines the weights of a supernet."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from ....errors import InvalidInput
from ....zoo.training import Recipe
from .phases import Phase
from .shape import ElasticShape

#: Raised whenever the code of the network or of its training changes what weights come out.
VERSION = 1


@dataclass(frozen=True)
class ElasticRecipe:
    """How a supernet is trained: AdamW, in each phase a one-cycle schedule (linear), gradients clipped to norm 1.

    Attributes:
        name: of the preset; begins the name of the cached weights.
        data: what the training data are, augmentation included.
        shape: of the supernet.
        phases: in order.
        batch: images a step.
        weight_decay: on weights of convolutions and of the classifier.
        warmup: share of a phase's steps with rising learning rate.
        seed: of initialisation, images and sub-networks.
        threads: of torch while training on a CPU; the order of sums, and so the last digits, depend on it.

    Raises:
        InvalidInput: no phase, or a number out of range.
    """

    name: str
    data: str
    shape: ElasticShape
    phases: tuple[Phase, ...]
    batch: int = 64
    weight_decay: float = 0.05
    warmup: float = 0.2
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if not self.phases or self.batch < 2 or self.threads < 1 or not 0 < self.warmup < 1 or self.weight_decay < 0:
            raise InvalidInput(
                "an elastic recipe needs a phase, batch >= 2, threads >= 1, 0 < warmup < 1 and weight_decay >= 0, got "
                f"{len(self.phases)} phases, {self.batch}, {self.threads}, {self.warmup} and {self.weight_decay}"
            )

    @property
    def steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    @property
    def digest(self) -> str:
        """Content hash (16 hex digits), of the version of the code too."""
        text = json.dumps([VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def at(self, step: int) -> tuple[int, int]:
        """Phase, and steps done in it, when ``step`` steps are done in all."""
        for number, phase in enumerate(self.phases):
            if step < phase.steps:
                return number, step
            step -= phase.steps
        return len(self.phases), 0

    def cache_key(self) -> Recipe:
        """The recipe in the terms of the zoo's cache of weights, which names its file after all fields."""
        return Recipe(
            f"elastic_{self.name}",
            VERSION,
            f"{self.data}; {self.digest}",
            self.steps,
            self.batch,
            self.phases[0].learning_rate,
            self.weight_decay,
            self.warmup,
            seed=self.seed,
        )
