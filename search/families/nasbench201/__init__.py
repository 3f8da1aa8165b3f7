"""The cell space of NAS-Bench-201 (Dong and Yang, ICLR 2020, arXiv:2001.00326), as modules and as a table."""

from __future__ import annotations

from .cell_space import CELL_SPACE, cell_choices, cell_text
from .family import NasBench201
from .network import Nas201Network, NetworkSizes
from .stored_scores import stored_scores
from .tabular import DATASETS, TabularNas201

__all__ = [
    "CELL_SPACE",
    "DATASETS",
    "Nas201Network",
    "NasBench201",
    "NetworkSizes",
    "TabularNas201",
    "cell_choices",
    "cell_text",
    "stored_scores",
]
