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
from .bench import Bench, bench_configurations, run_bench
from .executor import Executor, LocalExecutor, Outcome, Work
from .pareto import non_dominated
from .pipeline import run
from .progress import Progress, Silent
from .proxy_choice import ProxyChoice
from .ray_executor import RayExecutor
from .result import Choice, Point, Result
from .stages import calibrated
from .trust import Trust, TrustReport, trust_report

__all__ = [
    "Allocation",
    "Bench",
    "Choice",
    "Executor",
    "LocalExecutor",
    "Outcome",
    "Point",
    "Progress",
    "ProxyChoice",
    "RayExecutor",
    "Result",
    "Silent",
    "Trust",
    "TrustReport",
    "Work",
    "allocate",
    "bench_configurations",
    "calibrated",
    "cheapest",
    "diverse",
    "exact_front",
    "hull_front",
    "hypervolume",
    "knee",
    "non_dominated",
    "run",
    "run_bench",
    "trust_report",
]
