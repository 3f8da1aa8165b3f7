"""fitted: a predictor that is fitted once per content of its table and read from disk from then on."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from ...errors import InvalidInput
from ..devices import device
from ..gemm import MeasuredGemms
from .dense import DensePredictor, Fitter, fit
from .fitting import fit_format
from .format_model import FormatModel

#: Raised when the code of this folder changes what is fitted.
RECIPE = 2


def default_folder() -> Path:
    """$BITFRONT_CACHE, or ~/.cache/bitfront; in it ``latency``."""
    named = os.environ.get("BITFRONT_CACHE")
    return (Path(named).expanduser() if named else Path.home() / ".cache" / "bitfront") / "latency"


def fitted(
    rows: MeasuredGemms,
    coverage: float = 0.9,
    seed: int = 0,
    monotone: bool = True,
    strict: bool = False,
    folder: str | Path | None = None,
) -> DensePredictor:
    """``fit``, with each device and format kept in a file named by the hash of its rows, its data sheet and the recipe.

    Args:
        rows: as in ``fit``.
        coverage: as in ``fit``.
        seed: as in ``fit``.
        monotone: as in ``fit``.
        strict: as in ``fit``.
        folder: of the files; ``None`` is ``default_folder()``.

    Returns:
        The predictor. A file that cannot be read is fitted and written again.

    Raises:
        InvalidInput: as ``fit``.
        NotMeasured: as ``fit``.
    """
    home = Path(folder) if folder is not None else default_folder()

    def kept(part: MeasuredGemms, coverage: float, seed: int, monotone: bool, strict: bool) -> FormatModel:
        path = home / f"{digest(part, coverage, seed, monotone, strict)}.npz"
        if path.exists():
            try:
                return FormatModel.load(path)
            except InvalidInput:
                path.unlink()
        model = fit_format(part, coverage, seed, monotone, strict)
        model.save(path)
        return model

    fitter: Fitter = kept
    return fit(rows, coverage, seed, monotone, strict, fitter)


def digest(rows: MeasuredGemms, coverage: float, seed: int, monotone: bool, strict: bool = False) -> str:
    """Content hash of all that a model of one device and format follows from (sha256, 32 hex digits)."""
    sheet = device(str(rows.device[0]))
    facts = [RECIPE, coverage, seed, monotone, strict, sheet.name, sheet.bandwidth_gb_s, dict(sheet.peak_tera)]
    order = np.lexsort([rows.ms, rows.k, rows.n, rows.m])
    hashed = hashlib.sha256(json.dumps([facts, str(rows.format[0])], sort_keys=True).encode())
    for column in (rows.m, rows.n, rows.k):
        hashed.update(np.ascontiguousarray(column[order], dtype="<i8").tobytes())
    hashed.update(np.ascontiguousarray(rows.ms[order], dtype="<f8").tobytes())
    return hashed.hexdigest()[:32]
