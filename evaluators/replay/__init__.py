"""Replay: a captured forward pass that is taken up where candidates begin to differ."""

from .allocator import freed_memory_kept
from .capture import NotReplayable, capture
from .plan import Costs, affordable_cuts, wanted_cuts
from .prefixes import Output, PrefixRunner, Signature
from .program import Program, Rounding
from .replayer import Mode, Replayer, check_mode

__all__ = [
    "Costs",
    "Mode",
    "NotReplayable",
    "Output",
    "PrefixRunner",
    "Program",
    "Replayer",
    "Rounding",
    "Signature",
    "affordable_cuts",
    "capture",
    "check_mode",
    "freed_memory_kept",
    "wanted_cuts",
]
