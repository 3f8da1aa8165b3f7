"""Exact allocation of formats to sites: one budget or many, whole fronts, always with a certificate."""

from .allocate import allocate
from .front import exact_front, hull_front
from .infeasible import BudgetConflict
from .monotone import Repair, monotone_repair
from .result import Allocation

__all__ = ["Allocation", "BudgetConflict", "Repair", "allocate", "exact_front", "hull_front", "monotone_repair"]
