"""All 15,625 NAS-Bench-201 networks as a table: accuracy on three data sets, latency on 23 devices.

Reads ``nasbench201_accuracy_latency.csv.gz``: accuracies of the 12-epoch schedule (Dong and Yang 2020,
arXiv:2001.00326) joined with the latencies of HELP (Lee et al. 2021, arXiv:2106.08630). For benchmarks and tests of
searches; bitfront does not ship the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....architecture import ArchitectureSpace, Choices, Value
from ....errors import InvalidInput
from ....hw_models.architecture import OPERATIONS, parse_cell
from .cell_space import CELL_SPACE

FloatArray = NDArray[np.float64]

DATASETS = {"cifar10": "cifar10", "cifar100": "cifar100", "ImageNet16-120": "imagenet"}
"""Data set -> how the file's columns call it."""
_FILE = "nasbench201_accuracy_latency.csv.gz"
_FIRST_DEVICE = "1080ti_1"
_WEIGHTS = len(OPERATIONS) ** np.arange(len(CELL_SPACE.dimensions))[::-1]


@dataclass(frozen=True)
class TabularNas201:
    """Every network of the space with what was measured of it; row i of every array is ``cells[i]``.

    Attributes:
        cells: as NAS-Bench-201 writes them.
        operations: indices into ``hw_models.architecture.OPERATIONS`` of the six edges: [networks, 6].
        accuracy: by data set: validation accuracy in percent [networks]; what a search sees.
        test_accuracy: by data set: test accuracy in percent [networks]; what a search is judged by.
        latency: by device (a GPU's name ends in the batch size): milliseconds [networks].
    """

    cells: tuple[str, ...]
    operations: NDArray[np.int64]
    accuracy: Mapping[str, FloatArray]
    test_accuracy: Mapping[str, FloatArray]
    latency: Mapping[str, FloatArray]

    @staticmethod
    def read(folder: str | Path) -> TabularNas201:
        """Read the table from a folder of reference data.

        Raises:
            InvalidInput: the file is not there, or lacks a column.
        """
        import pandas as pd

        path = Path(folder) / _FILE
        if not path.is_file():
            raise InvalidInput(f"{path} is not there; give the folder that holds {_FILE}")
        frame = pd.read_csv(path)
        wanted = [
            "cellstr",
            _FIRST_DEVICE,
            *(f"{name}-{part}" for name in DATASETS.values() for part in ("val", "test")),
        ]
        missing = [name for name in wanted if name not in frame]
        if missing:
            raise InvalidInput(f"{path} has no column {missing[0]!r}; give the file of the reference data")
        cells = tuple(str(cell) for cell in frame["cellstr"])
        devices = list(frame.columns[frame.columns.get_loc(_FIRST_DEVICE) :])
        return TabularNas201(
            cells=cells,
            operations=np.array([parse_cell(cell) for cell in cells], dtype=np.int64),
            accuracy={name: frame[f"{short}-val"].to_numpy(np.float64) for name, short in DATASETS.items()},
            test_accuracy={name: frame[f"{short}-test"].to_numpy(np.float64) for name, short in DATASETS.items()},
            latency={name: frame[name].to_numpy(np.float64) for name in devices},
        )

    @property
    def architecture(self) -> ArchitectureSpace:
        """The dimensions of ``choices``."""
        return CELL_SPACE

    def __len__(self) -> int:
        """Networks."""
        return len(self.cells)

    def choices(self, index: int) -> Choices:
        """The choices of a row."""
        return CELL_SPACE.from_indices(self.operations[index])

    def index(self, choices: Mapping[str, Value]) -> int:
        """The row of some choices.

        Raises:
            InvalidInput: they are no cell, or the table lacks it.
        """
        code = int(CELL_SPACE.indices(CELL_SPACE.choices(choices)) @ _WEIGHTS)
        if code not in self._rows:
            raise InvalidInput(f"the table has no row for {dict(choices)}; it holds {len(self)} networks")
        return self._rows[code]

    @cached_property
    def _rows(self) -> dict[int, int]:
        return {int(code): row for row, code in enumerate(self.operations @ _WEIGHTS)}
