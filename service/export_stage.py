"""The stage *export*: an artifact that lies there and is the one that was checked is not made again."""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluators import Calibration
from ..exporters import STEPS, ExportReport, export
from ..search import Progress
from ..search.stage import Ledger, Ran, as_array, from_array, key_of
from ..space import Configuration
from ..store import Store
from .assemble import Assembled
from .locations import digest

_EXPORT = "export-1"
_WRITERS = ("torch", "onnx", "onnxscript", "onnxruntime")  # another version of them may write another file


def exported(
    made: Assembled,
    configuration: Configuration,
    calibration: Calibration,
    path: Path,
    target: str,
    *,
    batch_norm: bool,
    store: Store,
    ledger: Ledger,
    progress: Progress,
) -> ExportReport:
    """Export a configuration, unless the artifact is there already.

    It is, if a file at ``path`` has the digest that was stored when the same configuration, model, calibration data,
    target and options were exported and checked.

    Args:
        made: model, data and space.
        configuration: what.
        calibration: scales and ranges that it was measured with.
        path: the artifact.
        target: an export target.
        batch_norm: whether the statistics of batch normalization are estimated again.
        store: where reports are kept.
        ledger: is told whether it was exported or reused.
        progress: who watches.

    Raises:
        BitfrontError: see ``exporters.export``.
    """
    started = time.perf_counter()
    inputs: list[Any] = [
        target,
        configuration.digest,
        made.space.digest,
        made.task.digest("calibration"),
        calibration.digest,
        batch_norm,
        {name: _version(name) for name in ("bitfront", *_WRITERS)},
    ]
    if path.is_file():
        key = key_of(_EXPORT, *inputs, digest(path, "export"))
        stored = store.score(key)
        if stored is not None:
            report = _report(stored[0]["report"], path)
            progress.note(f"export {path.name}: already there and unchanged")
            ledger.add(Ran("export", target, key, 0, 1, time.perf_counter() - started, stored[1]))
            return report
    with progress.stage(f"export {path.stem} to {target} and check back", STEPS) as advance:
        report = export(
            made.task.model,
            configuration,
            path,
            target,
            example_inputs=made.task.calibration[0].piece(0, 2),
            calibration=calibration,
            space=made.space,
            batch_norm=made.task.calibration if batch_norm else None,
            advance=advance,
        )
    seconds = time.perf_counter() - started
    key = key_of(_EXPORT, *inputs, digest(path, "export"))
    store.save_score(key, f"export {target}", {"report": as_array(report.to_dict())}, seconds)
    ledger.add(Ran("export", target, key, 1, 0, seconds))
    return report


def _report(array: np.ndarray, path: Path) -> ExportReport:
    """A stored report; the artifact may lie in another folder than when it was written."""
    content = from_array(array)
    files = (str(path), *(str(path.parent / Path(name).name) for name in content["files"][1:]))
    return ExportReport(
        **{**content, "path": str(path), "files": files, "float_kernels": tuple(content["float_kernels"])}
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
