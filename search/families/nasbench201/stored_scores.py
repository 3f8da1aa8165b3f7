"""Published zero-cost scores of 725 NAS-Bench-201 networks, with their accuracy after 200 epochs.

Reads ``nasbench201_zero_cost.json``, which Krishnakumar et al. 2022 (NAS-Bench-Suite-Zero, arXiv:2210.03230) computed.
For benchmarks and tests of proxies; bitfront does not ship the file.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....errors import InvalidInput
from .cell_space import CELL_SPACE, EDGES, cell_text
from .tabular import DATASETS

if TYPE_CHECKING:
    import pandas as pd

_FILE = "nasbench201_zero_cost.json"
# the file numbers operations and edges in an order of its own
_OPERATIONS = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
_EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
_MISSING = -1e8  # stands for a score that could not be computed


def stored_scores(folder: str | Path, dataset: str = "cifar10") -> pd.DataFrame:
    """The networks (rows, indexed by cell) with ``accuracy`` in percent and one column a proxy.

    Higher scores are meant to be better; ``params`` are millions of weights, ``synflow`` is a logarithm. A score that
    is missing, or that could not be computed because the network lets nothing through, is minus infinity.

    Raises:
        InvalidInput: the file is not there, or the data set is none of ``DATASETS``.
    """
    import numpy as np
    import pandas as pd

    if dataset not in DATASETS:
        raise InvalidInput(f"there are scores for {', '.join(DATASETS)}, not for {dataset!r}")
    path = Path(folder) / _FILE
    if not path.is_file():
        raise InvalidInput(f"{path} is not there; give the folder that holds {_FILE}")
    rows = json.loads(path.read_text(encoding="utf-8"))[dataset]
    frame = pd.DataFrame([_row(content) for content in rows.values()], index=[_cell(key) for key in rows])
    frame.index.name = "cell"
    return frame.mask(frame.isna() | (frame == _MISSING), -np.inf)


def _cell(key: str) -> str:
    numbers = dict(zip(_EDGES, ast.literal_eval(key), strict=True))
    names = zip(CELL_SPACE.dimensions, EDGES, strict=True)
    return cell_text({dimension.name: _OPERATIONS[numbers[edge]] for dimension, edge in names})


def _row(content: dict[str, Any]) -> dict[str, float]:
    scores = {name: float(each["score"]) for name, each in content.items() if isinstance(each, dict)}
    return {"accuracy": float(content["val_accuracy"]), **scores}
