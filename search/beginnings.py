"""What is already known of candidates: whole measurements, parts, and measurements of a task that had less data.

A task whose split grew by further batches has another digest, so its old measurements have another context. They are
found again by asking for the contexts of its first batches: what was the whole split then is a part of it now.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from ..evaluators import Calibration, evaluation_context
from ..measurement import Measurement, part_of
from ..store import Store
from ..store.partial_evaluations import contexts_like, longest_evaluations
from ..task import Split, Task


def beginnings(
    store: Store, task: Task, calibration: Calibration, split: Split, *, reestimate_batch_norm: bool = False
) -> dict[str, Measurement]:
    """The longest measurement that the store has of every configuration, on the first batches of a split.

    Args:
        store: where.
        task: model and data.
        calibration: what candidates are quantized with.
        split: which data.
        reestimate_batch_norm: as for ``evaluation_context``.

    Returns:
        Configuration digest -> a measurement of the whole split or, with ``partial``, of its first samples; it may be
        given as ``known`` to what evaluates the rest.
    """

    def context_of(each: Task) -> str:
        return evaluation_context(each, calibration, split, reestimate_batch_norm=reestimate_batch_norm)

    whole = context_of(task)
    found = longest_evaluations(store, whole, split)
    version, _, rest = whole.split("-", 2)
    others = contexts_like(store, f"{version}-", f"-{rest}") - {whole}
    batches, samples = task.split(split), 0
    for count in range(1, len(batches) if others else 1):
        samples += len(batches[count - 1])
        smaller = copy.copy(task)
        setattr(smaller, split, batches[:count])
        context = context_of(smaller)
        if context not in others:
            continue
        for digest, measurement in longest_evaluations(store, context, split).items():
            if digest not in found or found[digest].samples < measurement.samples:
                found[digest] = replace(measurement, split=part_of(split, measurement.samples))
    return found
