"""Exact allocation of formats to sites: one budget or many, whole fronts, always with a certificate.

`allocate` answers one question, `cheapest` the reverse one, `diverse` gives several answers; `exact_front` enumerates
every trade-off and `hull_front` previews it; `knee` and `hypervolume` describe a front; `certify` checks an answer in
exact arithmetic; `monotone_repair` smooths noisy scores and says what it changed.
"""

from .allocate import allocate
from .certificate import Certificate, certify
from .cheapest import cheapest
from .diverse import diverse
from .front import exact_front, hull_front
from .indicators import hypervolume, knee
from .infeasible import BudgetConflict
from .monotone import Repair, monotone_repair
from .result import Allocation

__all__ = [
    "Allocation",
    "BudgetConflict",
    "Certificate",
    "Repair",
    "allocate",
    "certify",
    "cheapest",
    "diverse",
    "exact_front",
    "hull_front",
    "hypervolume",
    "knee",
    "monotone_repair",
]
