"""Which finetuning: learning rates and losses are compared by real runs, with epochs as fidelity.

A contestant is a set of hyper-parameters; the rungs are numbers of epochs. Each rung is a run of its own, because the
learning rate falls along a cosine that ends with the last epoch, and a run that was cut off is not the beginning of a
longer one; with a factor of 3 between rungs that is at most half as much again. Judged on the validation data: the
holdout is left for the winner. Every result is stored, so that nothing is run twice, and a longer last rung or further
contestants can be added later.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import InvalidInput, NonFiniteOutput
from ..evaluators import Calibration, finetune
from ..measurement import Measurement
from ..space import Configuration, SearchSpace
from ..store import Store
from ..task import Task
from .fidelity import FACTOR, successive_halving
from .progress import Progress, Silent

_VERSION = "finetune-1"


@dataclass(frozen=True)
class FinetuneSettings:
    """Hyper-parameters of ``finetune``.

    Attributes:
        learning_rate: of Adam.
        loss: ``distillation`` or ``task``.
    """

    learning_rate: float = 3e-4
    loss: str = "distillation"


@dataclass(frozen=True)
class FinetuneChoice:
    """Which hyper-parameters came out best.

    Attributes:
        settings: of those that were run for the most epochs.
        epochs: of the last rung.
        measured: the quality on the validation data after the most epochs that each was run for.
        failures: whose loss became NaN or infinite, with the reason.
        runs: how many finetunings were run now.
    """

    settings: FinetuneSettings
    epochs: int
    measured: Mapping[FinetuneSettings, Measurement]
    failures: Mapping[FinetuneSettings, str]
    runs: int


def choose_finetuning(
    task: Task,
    space: SearchSpace,
    configuration: Configuration,
    calibration: Calibration,
    settings: Sequence[FinetuneSettings],
    *,
    epochs: Sequence[int] = (2, 6, 18),
    store: Store | str | None = None,
    seed: int = 0,
    factor: int = FACTOR,
    progress: Progress | None = None,
) -> FinetuneChoice:
    """Compare hyper-parameters of finetuning for one configuration; see the module docstring.

    Args:
        task: model and data; the calibration data is learnt from, the validation data judges.
        space: its sites.
        configuration: what is finetuned.
        calibration: to begin with.
        settings: the contestants.
        epochs: of the rungs, ascending.
        store: a ``Store`` or its URL.
        seed: of every run.
        factor: what share goes on.
        progress: who watches.

    Returns:
        The choice.

    Raises:
        InvalidInput: no settings, epochs that do not ascend, or nothing could be finetuned.
    """
    if not settings:
        raise InvalidInput("no settings of finetuning to choose from; give at least one FinetuneSettings()")
    knowledge = store if isinstance(store, Store) else Store(store)
    study = _Study(task, space, configuration, calibration, knowledge, seed, progress or Silent())
    bracket = successive_halving(list(dict.fromkeys(settings)), epochs, known=study.known, factor=factor)
    try:
        requests = next(bracket)
        while True:
            requests = bracket.send([study.measured(each.contestant, each.resource) for each in requests])
    except StopIteration as end:
        standing = end.value
    if not standing.finalists:
        raise InvalidInput(f"nothing could be finetuned: {next(iter(study.failures.values()))}")
    return FinetuneChoice(standing.finalists[0], epochs[-1], standing.measured, study.failures, study.runs)


class _Study:
    """Finetunes, and stores what came of it."""

    def __init__(
        self,
        task: Task,
        space: SearchSpace,
        configuration: Configuration,
        calibration: Calibration,
        store: Store,
        seed: int,
        progress: Progress,
    ) -> None:
        self.judged = copy.copy(task)
        self.judged.holdout = task.validation  # what finetune measures on
        self.space, self.configuration, self.calibration = space, configuration, calibration
        self.store, self.seed, self.progress = store, seed, progress
        self.failures: dict[FinetuneSettings, str] = {}
        self.runs = 0
        self._content = (_VERSION, task.digest("calibration", "validation"), space.digest, calibration.digest, seed)

    def known(self, settings: FinetuneSettings, epochs: int) -> Measurement | None:
        """What the store knows."""
        stored = self.store.evaluations(self._context(settings, epochs), "validation")
        return stored.get(self.configuration.digest)

    def measured(self, settings: FinetuneSettings, epochs: int) -> Measurement | None:
        """A run of so many epochs, and its quality on the validation data; ``None`` if it failed."""
        self.runs += 1
        try:
            with self.progress.stage(f"finetune, {settings.learning_rate:g}, {epochs} epochs", epochs) as advance:
                found = finetune(
                    self.judged,
                    self.space,
                    self.configuration,
                    self.calibration,
                    epochs=epochs,
                    learning_rate=settings.learning_rate,
                    loss=settings.loss,
                    patience=epochs,
                    seed=self.seed,
                    advance=advance,
                )
        except NonFiniteOutput as cause:
            self.failures[settings] = str(cause)
            return None
        measurement = replace(found.after, split="validation", seconds=found.seconds)
        self.store.save_evaluation(self._context(settings, epochs), self.configuration, measurement)
        return measurement

    def _context(self, settings: FinetuneSettings, epochs: int) -> str:
        content = repr((*self._content, settings.learning_rate, settings.loss, epochs))
        return f"{_VERSION}-{hashlib.sha256(content.encode()).hexdigest()[:32]}"
