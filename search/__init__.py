"""Who chooses: exact allocation, fronts, the loop of a search, its workers."""

from .allocation import (
    Allocation,
    allocate,
    cheapest,
    diverse,
    exact_front,
    hull_front,
    hypervolume,
    knee,
)
from .executor import Executor, LocalExecutor, Outcome, Work
from .pareto import non_dominated
from .pipeline import run
from .progress import Progress, Silent
from .ray_executor import RayExecutor
from .result import Choice, Point, Result
from .stages import calibrated

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
    "calibrated",
    "cheapest",
    "diverse",
    "exact_front",
    "hull_front",
    "hypervolume",
    "knee",
    "non_dominated",
    "run",
]
