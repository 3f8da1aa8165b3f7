"""Replay: a captured forward pass that is taken up where candidates begin to differ."""

from .capture import NotReplayable, capture
from .plan import Costs, affordable_cuts, wanted_cuts
from .prefixes import Output, PrefixRunner, Signature
from .program import Program, Rounding

__all__ = [
    "Costs",
    "NotReplayable",
    "Output",
    "PrefixRunner",
    "Program",
    "Rounding",
    "Signature",
    "affordable_cuts",
    "capture",
    "wanted_cuts",
]
