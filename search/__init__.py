"""Who chooses: exact allocation, fronts, the loop of a search, its workers."""

from .allocation import Allocation, allocate, exact_front, hull_front
from .executor import Executor, LocalExecutor, Outcome, Work
from .pareto import knee, non_dominated
from .pipeline import run
from .progress import Progress, Silent
from .ray_executor import RayExecutor
from .result import Choice, Point, Result

__all__ = [
    "Allocation",
    "Choice",
    "Executor",
    "LocalExecutor",
    "Outcome",
    "Point",
    "Progress",
    "RayExecutor",
    "Result",
    "Silent",
    "Work",
    "allocate",
    "exact_front",
    "hull_front",
    "knee",
    "non_dominated",
    "run",
]
