r"""The check back: the artifact, run by its runtime in another process, against the fake-quantized model.

Compared are the outputs on the example and on validation data, by

.. math:: \max_o \sqrt{\frac{\sum_b \lVert y_{o,b}^{\mathrm{artifact}} - y_{o,b}^{\mathrm{fq}} \rVert_2^2}
    {\sum_b \lVert y_{o,b}^{\mathrm{fq}} \rVert_2^2}}

over outputs o and batches b, and the quality, sample by sample (``measurement.difference``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import ExportMismatch
from ..evaluators import output_tensor, per_sample, run_float
from ..measurement import Measurement, difference
from ..space import Configuration
from ..task import Batch, Task
from .comparison import doubled, outputs_of, relative_error_over
from .protocol import ExportRequest, Target
from .report import Artifact, QualityCheck, Timing, Verification
from .verify_run import Answer, run_apart

#: Validation samples that the artifact is run on.
SAMPLES = 64
#: Timed passes of each artifact, and the most seconds that they may take.
ROUNDS, SECONDS = 20, 2.0


@dataclass(frozen=True)
class Checks:
    """What the check back looks at besides the example.

    Attributes:
        task: its metric and validation data; ``None``: the example alone.
        batches: validation data in batches of the example's size and shapes, which every artifact takes.
        references: what the float model returns for them (the judged tensor).
        rounds: timed passes; 0: latency is not measured.
        against_float: whether the float model is exported too and timed in turn with the artifact.
        threads: of the runtime.
    """

    task: Task | None = None
    batches: tuple[Batch, ...] = ()
    references: tuple[Tensor, ...] = ()
    rounds: int = ROUNDS
    against_float: bool = False
    threads: int = 1

    @staticmethod
    def on(
        example: Batch, task: Task | None, samples: int = SAMPLES, rounds: int = ROUNDS, against_float: bool = False
    ) -> Checks:
        """The checks on a task; the float model is run here, before anything is changed in it.

        Args:
            example: the batch that the model is exported with.
            task: with its validation data; ``None``: the example alone.
            samples: most validation samples.
            rounds: timed passes.
            against_float: whether the float model is timed too.
        """
        if task is None:
            return Checks(rounds=rounds, against_float=against_float)
        batches = tuple(_like(example, task, samples))
        with torch.no_grad():
            references = tuple(output_tensor(run_float(task.model, batch, "validation")).cpu() for batch in batches)
        return Checks(task, batches, references, rounds, against_float)


def verified(
    target: Target, request: ExportRequest, folder: Path, artifact: Artifact, checks: Checks, scratch: Path
) -> Verification | None:
    """Load the artifact back and compare it.

    Args:
        target: that wrote it.
        request: what was asked for.
        folder: holds the artifact.
        artifact: what was written.
        checks: what is looked at.
        scratch: an empty folder.

    Returns:
        What was found; ``None`` for a recipe, which no runtime loads.

    Raises:
        UnsupportedModel: the runtime does not load it.
        ExportMismatch: its outputs do not correspond to those of the model, or it fails on the inputs.
    """
    own, other = scratch / "runtime", scratch / "float"
    own.mkdir()
    runtime = target.runtime(request, folder, own)
    if runtime is None:
        return None
    artifacts = [(_main(target, folder, artifact), runtime.settings)]
    if checks.against_float and checks.rounds:
        artifacts.append(_float(target, request, other))
    batches = [request.example, *checks.batches]
    answer = run_apart(
        runtime,
        artifacts,
        batches,
        scratch / "process",
        probe=doubled(request.example),
        rounds=checks.rounds,
        seconds=SECONDS,
        threads=checks.threads,
    )
    errors, quality = _compared(request, batches, answer, checks)
    timings = [_timing(each, len(request.example), checks.threads) for each in answer.milliseconds]
    details = dict(answer.details)
    return Verification(
        output_errors=errors,
        runtime=str(details.pop("runtime", target.name)),
        version=str(details.pop("version", "")),
        details=details,
        dynamic_batch=answer.probe,
        latency=timings[0] if timings else None,
        float_latency=timings[1] if len(timings) > 1 else None,
        quality=quality,
        peak_bytes=answer.peak_bytes,
    )


def _like(example: Batch, task: Task, samples: int) -> list[Batch]:
    """Validation data in batches of the example's size and shapes; the first ``samples``."""
    size = len(example)
    shapes = {name: tensor.shape for name, tensor in example.tensors.items()}
    found: list[Batch] = []
    for batch in task.validation:
        for start in range(0, len(batch) - size + 1, size):
            piece = batch.piece(start, start + size)
            if (len(found) + 1) * size > samples:
                return found
            if {name: tensor.shape for name, tensor in piece.tensors.items()} == shapes:
                found.append(piece)
    return found


def _main(target: Target, folder: Path, artifact: Artifact) -> Path:
    return folder if target.layout == "folder" else folder / artifact.files[0]


def _float(target: Target, request: ExportRequest, folder: Path) -> tuple[Path, dict[str, object]]:
    """The float model exported the same way: path and loader settings."""
    own = folder.with_name("float-runtime")
    folder.mkdir()
    own.mkdir()
    plain = replace(request, configuration=Configuration(()), generation=None)
    artifact = target.export(plain, folder)
    runtime = target.runtime(plain, folder, own)
    return _main(target, folder, artifact), dict(runtime.settings) if runtime is not None else {}


def _compared(
    request: ExportRequest, batches: Sequence[Batch], answer: Answer, checks: Checks
) -> tuple[dict[str, float], QualityCheck | None]:
    """Relative error of every output over all batches, and the quality on all but the first, which is the example."""
    pairs: list[tuple[list[Tensor], list[Tensor]]] = []
    judged = 0
    with request.quantized.applied(request.configuration) as model, torch.no_grad():
        for batch, arrays in zip(batches, answer.outputs, strict=True):
            output = run_float(model, batch, "example")
            wanted = outputs_of(output)
            if len(arrays) != len(wanted):
                raise ExportMismatch(f"the artifact has {len(arrays)} outputs, the model {len(wanted)}")
            if checks.task is not None:
                chosen = output_tensor(output)
                judged = next(number for number, each in enumerate(wanted) if each is chosen)
            pairs.append(([torch.from_numpy(np.array(each)) for each in arrays], [each.cpu() for each in wanted]))
    errors = {
        name: relative_error_over([(given[number], wanted[number]) for given, wanted in pairs])
        for number, name in enumerate(answer.names)
    }
    finite = all(np.isfinite(list(errors.values())))
    return errors, _quality(checks, pairs[1:], judged) if checks.batches and finite else None


def _quality(checks: Checks, pairs: Sequence[tuple[list[Tensor], list[Tensor]]], judged: int) -> QualityCheck:
    """The metric of both models on the same samples, and their difference in pairs."""
    assert checks.task is not None
    metric = checks.task.metric
    values: tuple[list[Tensor], list[Tensor]] = [], []
    for batch, reference, pair in zip(checks.batches, checks.references, pairs, strict=True):
        for found, outputs in zip(values, pair, strict=True):
            found.append(per_sample(checks.task, outputs[judged], reference, batch.targets))
    artifact, expected = (
        Measurement.of(metric, "validation", torch.cat(found).double().cpu().numpy(), 0.0) for found in values
    )
    gap = difference(artifact, expected)
    return QualityCheck(
        metric,
        artifact.samples,
        artifact.value,
        expected.value,
        gap.value,
        gap.low,
        gap.high,
        tolerance=max(0.0, expected.high - expected.value),
    )


def _timing(milliseconds: Sequence[float], batch: int, threads: int) -> Timing:
    low, median, high = np.quantile(milliseconds, [0.1, 0.5, 0.9])
    return Timing(float(median), float(low), float(high), len(milliseconds), batch, threads)
