"""Whole models measured for the price of latency: a few real exports, timed in their runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from ..errors import InvalidInput
from ..evaluators import Calibration
from ..exporters import export
from ..hw_models.network import Export, Network, measure_network, mixtures, uniform_designs
from ..hw_models.network.exports import ROUNDS, Feeds
from ..hw_models.onnx_runner import OnnxRuntimeRunner, processor
from ..space import Configuration, SearchSpace
from ..store import Store
from ..task import Batch, Task
from .problem import FLOAT
from .progress import Progress
from .stage import Ledger, as_array, from_array, key_of, outcome

_WHOLE = "whole-1"
#: Exports that are timed: the uniform ones, filled up with mixtures (docs/hw_models.md: error over their number).
EXPORTS = 8


def measured_whole(
    task: Task,
    space: SearchSpace,
    calibration: Calibration,
    batch: int,
    store: Store,
    progress: Progress,
    *,
    exports: int = EXPORTS,
    seed: int = 0,
    ledger: Ledger | None = None,
) -> Network:
    """Export a few configurations, time them whole, and keep what came out under its inputs.

    Give the result to ``price(..., network=...)``: latency on this CPU then counts the operators outside the sites and
    the conversions between the real neighbours, scaled as the exports say.

    Args:
        task: model and data; the first calibration samples are the inputs of the timed calls.
        space: the sites; of every format one that runs its kernels is exported.
        calibration: ranges and scales of the exports.
        batch: samples per forward pass.
        store: where the measurement is kept.
        progress: is told the exports and the timed runs.
        exports: how many configurations are exported.
        seed: of the mixtures among them.
        ledger: is told whether it was reused.

    Returns:
        The measurement.

    Raises:
        InvalidInput: the first calibration batch has fewer samples than ``batch``, or onnx is not installed.
        UnsupportedModel: the model cannot be exported.
    """
    here = (processor(), *OnnxRuntimeRunner().runtime)
    content = (task.digest("calibration"), space.digest, calibration.digest, batch, exports, seed)

    def compute() -> Network:
        return export_and_time(task, space, calibration, designs(space, exports, seed), batch, progress)

    return outcome(
        "price",
        "whole models",
        key_of(_WHOLE, *content, *here),
        store,
        ledger or Ledger(),
        compute=compute,
        encode=lambda network: {"network": as_array(network.to_dict())},
        decode=lambda arrays, seconds: Network.from_dict(from_array(arrays["network"])),
        reused=lambda: progress.note("whole models: already in the store"),
    )


def designs(space: SearchSpace, count: int, seed: int = 0) -> dict[str, Configuration]:
    """The configurations to export: uniform ones with unlike kernels, filled up with mixtures to ``count``."""
    found = uniform_designs(space)
    if count > len(found):
        found |= mixtures(space, count - len(found), seed)
    return dict(list(found.items())[:count])


def export_and_time(
    task: Task,
    space: SearchSpace,
    calibration: Calibration,
    configurations: Mapping[str, Configuration],
    batch: int,
    progress: Progress,
    rounds: int = ROUNDS,
) -> Network:
    """Export the float model and configurations to a scratch folder and measure them.

    Raises:
        InvalidInput: the first calibration batch has fewer samples than ``batch``, or onnx is not installed.
        UnsupportedModel: the model cannot be exported.
    """
    example = task.calibration[0].piece(0, batch)
    if len(example) < batch:
        raise InvalidInput(
            f"timing whole models at batch {batch} needs as many samples in the first calibration batch; "
            f"it has {len(example)}"
        )
    with (
        tempfile.TemporaryDirectory() as folder,
        progress.stage("time whole models", (1 + len(configurations)) + rounds * len(configurations)) as advance,
    ):
        files = {}
        for number, configuration in enumerate([FLOAT, *configurations.values()]):
            files[number] = Path(folder) / f"{number}.onnx"
            _write(task, space, calibration, configuration, example, files[number])
            advance(1)
        timed = [
            Export(label, configuration.to_dict(), files[number])
            for number, (label, configuration) in enumerate(configurations.items(), start=1)
        ]
        return measure_network(space, files[0], timed, feeds_of(example), batch, rounds=rounds, advance=advance)


def feeds_of(example: Batch) -> Feeds:
    """The inputs of a batch as arrays, by name or in order."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in example.tensors.items()}
    return arrays if isinstance(example.inputs, dict) else tuple(arrays.values())


def _write(
    task: Task,
    space: SearchSpace,
    calibration: Calibration,
    configuration: Configuration,
    example: Batch,
    path: Path,
) -> None:
    export(
        task.model,
        configuration,
        path,
        target="onnx",
        example_inputs=example,
        calibration=calibration,
        space=space,
    )
