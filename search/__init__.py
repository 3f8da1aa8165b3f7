"""Who chooses: exact allocation, fronts, the loop of a search, its workers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from .architecture_trust import ArchitectureTrust, ArchitectureTrustReport, architecture_trust_report
    from .bench import Bench, run_bench
    from .bench_build import build_bench
    from .bench_draws import bench_configurations
    from .bench_files import StoredBench, load_bench
    from .choice import Choice, Point
    from .executor import Executor, LocalExecutor, Outcome, Work
    from .fidelity import Standing, hyperband, successive_halving
    from .finetune_trials import FinetuneChoice, FinetuneSettings, choose_finetuning
    from .joint.result import JointResult
    from .joint.run import run_joint
    from .pareto import non_dominated
    from .part_estimates import whole_from_part
    from .pipeline import run
    from .progress import Progress, Silent
    from .proxy_choice import ProxyChoice
    from .ray_cluster import ray_cluster
    from .ray_executor import RayExecutor
    from .recipes import RecipeChoice, choose_recipe
    from .result import Result
    from .rungs import Ladder, OnSamples, Rivals
    from .shards import Limits
    from .stages import calibrated
    from .trust import Trust, TrustReport, trust_report

#: Loaded on first use, because half of them bring in torch, which a stored front is asked without: file -> names.
_LAZY = {
    "allocation": (
        "Allocation",
        "allocate",
        "cheapest",
        "diverse",
        "exact_front",
        "hull_front",
        "hypervolume",
        "knee",
    ),
    "architecture_trust": (
        "ArchitectureTrust",
        "ArchitectureTrustReport",
        "architecture_trust_report",
    ),
    "bench": (
        "Bench",
        "run_bench",
    ),
    "bench_build": ("build_bench",),
    "bench_draws": ("bench_configurations",),
    "bench_files": (
        "StoredBench",
        "load_bench",
    ),
    "choice": (
        "Choice",
        "Point",
    ),
    "executor": (
        "Executor",
        "LocalExecutor",
        "Outcome",
        "Work",
    ),
    "fidelity": (
        "Standing",
        "hyperband",
        "successive_halving",
    ),
    "finetune_trials": (
        "FinetuneChoice",
        "FinetuneSettings",
        "choose_finetuning",
    ),
    "joint.result": ("JointResult",),
    "joint.run": ("run_joint",),
    "pareto": ("non_dominated",),
    "part_estimates": ("whole_from_part",),
    "pipeline": ("run",),
    "progress": (
        "Progress",
        "Silent",
    ),
    "proxy_choice": ("ProxyChoice",),
    "ray_cluster": ("ray_cluster",),
    "ray_executor": ("RayExecutor",),
    "recipes": (
        "RecipeChoice",
        "choose_recipe",
    ),
    "result": ("Result",),
    "rungs": (
        "Ladder",
        "OnSamples",
        "Rivals",
    ),
    "shards": ("Limits",),
    "stages": ("calibrated",),
    "trust": (
        "Trust",
        "TrustReport",
        "trust_report",
    ),
}
_FILE = {name: file for file, names in _LAZY.items() for name in names}

__all__ = [
    "Allocation",
    "ArchitectureTrust",
    "ArchitectureTrustReport",
    "Bench",
    "Choice",
    "Executor",
    "FinetuneChoice",
    "FinetuneSettings",
    "JointResult",
    "Ladder",
    "Limits",
    "LocalExecutor",
    "OnSamples",
    "Outcome",
    "Point",
    "Progress",
    "ProxyChoice",
    "RayExecutor",
    "RecipeChoice",
    "Result",
    "Rivals",
    "Silent",
    "Standing",
    "StoredBench",
    "Trust",
    "TrustReport",
    "Work",
    "allocate",
    "architecture_trust_report",
    "bench_configurations",
    "build_bench",
    "calibrated",
    "cheapest",
    "choose_finetuning",
    "choose_recipe",
    "diverse",
    "exact_front",
    "hull_front",
    "hyperband",
    "hypervolume",
    "knee",
    "load_bench",
    "non_dominated",
    "ray_cluster",
    "run",
    "run_bench",
    "run_joint",
    "successive_halving",
    "trust_report",
    "whole_from_part",
]


def __getattr__(name: str) -> Any:
    if name in _FILE:
        return getattr(import_module(f".{_FILE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
