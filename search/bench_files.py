"""A measured bench as files: what the search for formulas reads, without the model and without torch.

=====================  ================================================================================================
``bench.parquet``      a row for each configuration: digest, origin (``random``, ``stratified``), split, value and its
                       interval, seconds, size_mb, bops, avg_bits, and a column ``site:NAME`` with the format of a site
``statistics.npz``     what formulas are built from (``proxies.formulas.SiteStatistics``)
``bench.json``         the recipe: task, formats, ties, quantization, seed, digests, versions, what failed or was left
                       out, and the sha256 of the other two files
=====================  ================================================================================================

All three are written to the side and renamed when all are complete, ``bench.json`` last; files that do not belong to
each other are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import InvalidInput
from ..files import replacing
from ..proxies.formulas import SiteStatistics
from ..space import Configuration

FloatArray = NDArray[np.float64]
FRAME, STATISTICS, DOCUMENT = "bench.parquet", "statistics.npz", "bench.json"
_SCHEMA = 1
_SITE = "site:"
_NUMBERS = ("value", "low", "high", "seconds", "size_mb", "bops", "avg_bits")
_TEXTS = ("digest", "origin", "split")


@dataclass(frozen=True, eq=False)
class StoredBench:
    """Configurations of one network with their measured quality, and the statistics of its sites.

    Attributes:
        name: of the task.
        metric: what ``value`` is; lower is better.
        choices: int64 [points, sites], columns of ``formats``.
        frame: a row for each configuration, columns as in ``bench.parquet`` without those of the sites.
        statistics: of the sites; ``statistics.sites`` and ``statistics.formats`` name the columns of ``choices``.
        float_quality: the metric of the float model.
        details: the rest of ``bench.json``.
    """

    name: str
    metric: str
    choices: NDArray[np.int64]
    frame: pd.DataFrame
    statistics: SiteStatistics
    float_quality: float
    details: Mapping[str, Any]

    def __post_init__(self) -> None:
        missing = [column for column in (*_TEXTS, *_NUMBERS) if column not in self.frame]
        if missing:
            raise InvalidInput(f"bench {self.name}: no column {', '.join(missing)}")
        points, sites = len(self.frame), len(self.sites)
        if self.choices.shape != (points, sites):
            raise InvalidInput(f"bench {self.name}: choices have shape {self.choices.shape}, not {(points, sites)}")
        if points and not self.statistics.allowed[np.arange(sites), self.choices].all():
            raise InvalidInput(f"bench {self.name}: a configuration takes a format that its site does not offer")
        if not np.isfinite(self.frame[list(_NUMBERS)].to_numpy(dtype=np.float64)).all():
            raise InvalidInput(f"bench {self.name}: a value is NaN or infinite")

    def __len__(self) -> int:
        """How many configurations there are."""
        return len(self.frame)

    @property
    def sites(self) -> tuple[str, ...]:
        """Site names, the columns of ``choices``."""
        return self.statistics.sites

    @property
    def formats(self) -> tuple[str, ...]:
        """Format names, what ``choices`` index."""
        return self.statistics.formats

    @property
    def measured(self) -> FloatArray:
        """Quality of every configuration [points], lower is better."""
        return self._numbers("value")

    @property
    def sizes(self) -> FloatArray:
        """Size of every configuration in MB [points]."""
        return self._numbers("size_mb")

    @property
    def bops(self) -> FloatArray:
        """Bit operations of every configuration [points]."""
        return self._numbers("bops")

    @property
    def digest(self) -> str:
        """Of what was measured and of the statistics (16 hex digits)."""
        content = (self.name, self.metric, tuple(self.frame["digest"]), tuple(self.frame["value"]))
        return hashlib.sha256(repr((*content, self.statistics.digest)).encode()).hexdigest()[:16]

    @property
    def configurations(self) -> list[Configuration]:
        """The configurations, in order."""
        return [
            Configuration(tuple(zip(self.sites, (self.formats[column] for column in row), strict=True)))
            for row in self.choices.tolist()
        ]

    def predicted(self, table: FloatArray) -> FloatArray:
        """The score of every configuration by a table [sites, formats]: the sum over the sites, [points]."""
        found: FloatArray = table[np.arange(len(self.sites)), self.choices].sum(axis=1)
        return found

    def save(self, folder: str | Path) -> None:
        """Write the three files, all complete or none; a bench that was there is replaced.

        Raises:
            InvalidInput: the folder is a file.
        """
        target = Path(folder)
        if target.exists() and not target.is_dir():
            raise InvalidInput(f"{target} is a file; give a folder for the bench")
        chosen = {
            f"{_SITE}{site}": pd.Categorical.from_codes(self.choices[:, column], pd.Index(self.formats))
            for column, site in enumerate(self.sites)
        }
        whole = pd.concat([self.frame.reset_index(drop=True), pd.DataFrame(chosen)], axis=1)
        with (
            replacing(target / DOCUMENT) as document,
            replacing(target / STATISTICS) as statistics,
            replacing(target / FRAME) as frame,
        ):
            whole.to_parquet(frame, index=False)
            self.statistics.save(statistics)
            content = {
                "schema": _SCHEMA,
                "name": self.name,
                "metric": self.metric,
                "points": len(self),
                "float_quality": self.float_quality,
                **self.details,
                "files": {FRAME: _sha256(frame), STATISTICS: _sha256(statistics)},
            }
            document.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def _numbers(self, column: str) -> FloatArray:
        found: FloatArray = self.frame[column].to_numpy(dtype=np.float64)
        return found


def load_bench(folder: str | Path) -> StoredBench:
    """Read what ``StoredBench.save`` wrote.

    Args:
        folder: that holds ``bench.json``, ``bench.parquet`` and ``statistics.npz``.

    Raises:
        InvalidInput: there is no bench, it was changed or is of another version, or its files are not of one bench.
    """
    path = Path(folder)
    advice = "make it with `bitfront bench build JOB.yaml --out FOLDER`"
    try:
        details = json.loads((path / DOCUMENT).read_text(encoding="utf-8"))
        if details.pop("schema") != _SCHEMA:
            raise InvalidInput(f"{path / DOCUMENT} is of another schema than {_SCHEMA}; {advice}")
        wanted = details.pop("files")
        for name in (FRAME, STATISTICS):
            if _sha256(path / name) != wanted[name]:
                raise InvalidInput(f"{path / name} is not the file that {DOCUMENT} was written with; {advice}")
        name, metric, points = details.pop("name"), details.pop("metric"), details.pop("points")
        float_quality = float(details.pop("float_quality"))
    except FileNotFoundError as cause:
        raise InvalidInput(f"no bench in {path}: {Path(cause.filename).name} is missing; {advice}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        if isinstance(cause, InvalidInput):
            raise
        raise InvalidInput(f"{path} holds no bench: {cause!r}; {advice}") from None
    statistics = SiteStatistics.load(path / STATISTICS)
    whole = pd.read_parquet(path / FRAME)
    column = {name: index for index, name in enumerate(statistics.formats)}
    sites = [whole[f"{_SITE}{site}"].astype(str).map(column) for site in statistics.sites]
    choices: NDArray[np.int64] = np.array(sites, dtype=np.int64).T
    frame = whole[[name for name in whole.columns if not name.startswith(_SITE)]]
    found = StoredBench(name, metric, choices, frame, statistics, float_quality, details)
    if len(found) != points or [each.digest for each in found.configurations] != list(frame["digest"]):
        raise InvalidInput(f"{path}: the configurations do not have the digests that stand beside them; {advice}")
    return found


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
