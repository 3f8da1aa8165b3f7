"""Formulas: proxies that are written as expressions of the statistics of a site."""

from .compatibility import Compatibility
from .draw import STRUCTURES, Structure, crossover, mutate, random_formula
from .evaluate import Scorer, Unusable, probe, scores
from .expression import Formula, Node
from .join import join
from .library import Entry, best_evolved, read_library, write_library
from .primitives import PRIMITIVES, Primitive
from .statistics import SiteStatistics
from .validity import MAX_SIZE, fault
from .values import Memo

__all__ = [
    "MAX_SIZE",
    "PRIMITIVES",
    "STRUCTURES",
    "Compatibility",
    "Entry",
    "Formula",
    "Memo",
    "Node",
    "Primitive",
    "Scorer",
    "SiteStatistics",
    "Structure",
    "Unusable",
    "best_evolved",
    "crossover",
    "fault",
    "join",
    "mutate",
    "probe",
    "random_formula",
    "read_library",
    "scores",
    "write_library",
]
