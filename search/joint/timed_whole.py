"""Genomes timed whole: exported, and run in their runtime, beside the price that the search worked with.

A search prices latency on the CPU by the kernels of the sites and estimated conversions between them, as that is known
for every configuration of every architecture. What a runtime makes of a whole network it shows here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ...architecture import Genome
from ...errors import ExportMismatch, InvalidInput
from ...exporters import export
from ...hw_models.network import Export, time_exports
from ...hw_models.onnx_runner import OnnxRuntimeRunner, processor
from ..progress import Progress
from ..stage import as_array, from_array, key_of, outcome
from ..whole_model import feeds_of
from .joint_point import JointPoint
from .merged import thinned
from .space import Subnets

_TIMED = "genome-whole-1"
WHOLE_MODELS = 4
_PARTS = "latency_ms counts the kernels of the sites and conversions between them"


def timed_whole(
    subnets: Subnets, genomes: Sequence[Genome], batch: int, progress: Progress
) -> tuple[dict[Genome, float], dict[Genome, str]]:
    """Export genomes to ONNX and time each whole on one thread of this CPU; what the store knows is not timed again.

    Args:
        subnets: build and calibrate the networks, and know the store.
        genomes: what is exported; each file is checked against the fake-quantized model, as every export is.
        batch: samples per forward pass: the first of the calibration data.
        progress: is told each genome.

    Returns:
        Milliseconds of a forward pass (CPU time of the thread) by genome, and why others have none: the calibration
        data has fewer samples in its first batch, onnx is not installed, a network cannot be exported, or a file does
        not compute what the fake-quantized model does.
    """
    found, failed = {}, {}
    here = (processor(), *OnnxRuntimeRunner().runtime)
    with progress.stage("time whole models", len(genomes)) as advance:
        for genome in genomes:
            try:
                found[genome] = _known(subnets, genome, batch, here)
            except (InvalidInput, ExportMismatch) as cause:
                failed[genome] = str(cause)
            advance(1)
    return found, failed


def worth_timing(points: Sequence[JointPoint], best: JointPoint | None, price: str, count: int) -> list[JointPoint]:
    """The best point, and others spread evenly over those of the measured front that were judged on held-out data.

    Args:
        points: measured genomes.
        best: the one to ship, if one was chosen.
        price: by which the others are spread.
        count: at most so many.
    """
    front = [each for each in points if each.pareto and each.holdout is not None and each is not best]
    front.sort(key=lambda each: (each.prices[price].value, each.id))
    first = [best] if best is not None and count > 0 else []
    kept = thinned(np.arange(len(front)), count - len(first)) if count > len(first) else np.zeros(0, dtype=np.int64)
    return [*first, *(front[int(index)] for index in kept)]


def told_of_whole(
    points: Sequence[JointPoint], whole: Mapping[Genome, float], failed: Mapping[Genome, str]
) -> list[str]:
    """In words: how far the price of the search is from whole models, and which could not be timed."""
    found = []
    ratios = np.array([whole[each.genome] / each.prices["latency_ms"].value for each in points if each.genome in whole])
    if len(ratios):
        found.append(
            f"{_PARTS}; {len(ratios)} genomes exported and timed whole take {ratios.min():.2f} to {ratios.max():.2f} "
            f"times that (median {np.median(ratios):.2f})"
        )
    else:
        found.append(f"{_PARTS}; no whole model was timed")
    reasons = dict.fromkeys(failed.values())
    return [*found, *(f"a whole model could not be timed: {reason}" for reason in reasons)]


def _known(subnets: Subnets, genome: Genome, batch: int, here: tuple[str, ...]) -> float:
    """From the store if it was timed on this machine and runtime before."""
    if subnets.store is None:
        return _timed(subnets, genome, batch)
    net, calibration = subnets.at(genome.choices), subnets.calibration(genome.choices)
    content = (net.task.digest("calibration"), net.space.digest, calibration.digest, genome.digest, batch)
    return outcome(
        "price",
        "whole models",
        key_of(_TIMED, *content, *here),
        subnets.store,
        subnets.ledger,
        compute=partial(_timed, subnets, genome, batch),
        encode=lambda ms: {"ms": as_array({"ms": ms})},
        decode=lambda arrays, seconds: float(from_array(arrays["ms"])["ms"]),
    )


def _timed(subnets: Subnets, genome: Genome, batch: int) -> float:
    net = subnets.at(genome.choices)
    example = net.task.calibration[0].piece(0, batch)
    if len(example) < batch:
        raise InvalidInput(
            f"timing whole models at batch {batch} needs as many samples in the first calibration batch; "
            f"it has {len(example)}"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "whole.onnx"
        export(
            net.task.model,
            genome.configuration,
            path,
            target="onnx",
            example_inputs=example,
            calibration=subnets.calibration(genome.choices),
            space=net.space,
        )
        one = Export(genome.digest, genome.configuration.to_dict(), path)
        return time_exports([one], path, feeds_of(example))[0].ms
