"""The stage *export*: an artifact that lies there and is the one that was checked is not made again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ExportMismatch, InvalidInput
from ..evaluators import Calibration
from ..exporters import STEPS, ExportReport, certificate_path, check_files, export, get
from ..exporters.certificate import file_digest
from ..search import Progress
from ..search.stage import Ledger, Ran, as_array, from_array, key_of
from ..space import Configuration
from ..store import Store
from .assemble import Assembled

_EXPORT = "export-2"


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
    generation: str | None = None,
    against_float: bool = False,
    options: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Export a configuration, unless the artifact is there already.

    It is, if its files are those of its certificate, and the certificate is the one that was stored when the same
    configuration, model, calibration data, target and options were exported and checked.

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
        generation: device generation that must have the kernels.
        against_float: whether the float model is timed too.
        options: what only this target understands, plain JSON.

    Raises:
        BitfrontError: see ``exporters.export``.
    """
    started = time.perf_counter()
    writer = get(target)
    inputs: list[Any] = [
        target,
        configuration.digest,
        made.space.digest,
        made.task.digest("calibration", "validation"),
        calibration.digest,
        [batch_norm, generation, against_float, dict(options or {})],
        {name: _version(name) for name in ("bitfront", "torch", *writer.packages)},
    ]
    sealed = certificate_path(path, writer.layout)
    if sealed.is_file() and _unchanged(sealed):
        key = key_of(_EXPORT, *inputs, file_digest(sealed))
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
            task=made.task,
            generation=generation,
            against_float=against_float,
            options=options,
        )
    seconds = time.perf_counter() - started
    key = key_of(_EXPORT, *inputs, file_digest(sealed))
    store.save_score(key, f"export {target}", {"report": as_array(report.to_dict())}, seconds)
    ledger.add(Ran("export", target, key, 1, 0, seconds))
    return report


def _unchanged(sealed: Path) -> bool:
    """Whether the files that a certificate names are those that were checked; else they are written again."""
    try:
        check_files(sealed)
    except (ExportMismatch, InvalidInput):
        return False
    return True


def _report(array: np.ndarray, path: Path) -> ExportReport:
    """A stored report; the artifact may lie in another folder than when it was written."""
    found = ExportReport.from_dict(from_array(array))
    old, new = Path(found.path), path
    files = tuple(
        str(new / Path(name).relative_to(old)) if Path(name).is_relative_to(old) else str(new.parent / Path(name).name)
        for name in found.files
    )
    return replace(found, path=str(new), files=files)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
