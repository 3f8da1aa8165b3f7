"""Zero-cost proxies that score sites by gradients of single batches, times bits: what they have in common."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from ..evaluators import QuantizedModel
from .bit_weighted import weighted_mean
from .gradient_errors import check_reached
from .likelihood import Labels, Source, labels_of
from .recording import Pass, Recorder, single_samples
from .sample_loop import over_passes
from .sensitivity import Advance, Sensitivity, in_evaluation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..evaluators import Calibration
    from ..space import SearchSpace
    from ..task import Batch, Task


class DrawnImportance(ABC):
    """Importance of sites from gradients, averaged over batches, times bits (``bit_weighted``).

    Args:
        samples: calibration samples used; each is one forward and one backward pass.
        labels: ``"data"``, ``"model"``, or ``"auto"``: the data's where the objective uses them.
    """

    name: str
    additive = False
    gradients = 1
    _outputs: ClassVar[bool] = False  # whether what leaves the layers is needed

    def __init__(self, samples: int = 32, labels: Labels = "auto") -> None:
        self.samples = samples
        self.labels = labels

    def steps(self, task: Task, space: SearchSpace) -> int:
        """Batches, which are single samples unless a proxy says otherwise."""
        return len(self.batches(task))

    def batches(self, task: Task) -> Sequence[Batch]:
        """The batches whose gradients are looked at by themselves.

        Args:
            task: the calibration data.
        """
        return single_samples(task, self.samples)

    @abstractmethod
    def importance(self, task: Task, run: Pass, source: Source, generator: torch.Generator) -> dict[int, float]:
        """What one batch says: row -> importance, for every site that a gradient reached.

        Args:
            task: model and objective.
            run: the pass of the batch.
            source: where gradients at the outputs come from.
            generator: of their randomness.
        """

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
        started = time.perf_counter()
        source = labels_of(task, self.labels, self.name)
        batches = self.batches(task)
        modules = [module for site in space.sites for module in site.modules] if self._outputs else []
        recorder = Recorder(task.model, space, modules, self._outputs)
        generator = torch.Generator().manual_seed(seed)
        draws = np.zeros((len(batches), len(space.sites)))
        reached: set[int] = set()

        def seen(position: int, run: Pass) -> None:
            found = self.importance(task, run, source, generator)
            reached.update(found)
            draws[position, list(found)] = list(found.values())

        over_passes(task, recorder, batches, self.name, source, seen, advance, twice=self.gradients == 2)
        check_reached(task, QuantizedModel(task.model, space, calibration, cache_bytes=0), reached, batches[0])
        values, error = weighted_mean(space, list(draws), self.name)
        seconds, count = time.perf_counter() - started, sum(len(batch) for batch in batches)
        names, backward = tuple(space.names), self.gradients * count
        return Sensitivity(self.name, values, error, names, space.formats, seconds, count, backward, self.additive)
