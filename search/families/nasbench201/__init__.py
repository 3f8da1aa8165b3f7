"""The cell space of NAS-Bench-201 (Dong and Yang, ICLR 2020, arXiv:2001.00326), as modules and as a table."""

from __future__ import annotations

from .cell_space import CELL_SPACE, cell_choices, cell_text
from .tabular import DATASETS, TabularNas201

__all__ = ["CELL_SPACE", "DATASETS", "TabularNas201", "cell_choices", "cell_text"]
