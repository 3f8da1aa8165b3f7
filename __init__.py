"""bitfront: mixed-precision search for PyTorch models.

The exact Pareto front of quality against latency, size and energy, priced in measured milliseconds, never worse than
uniform, checked back in the runtime. Start with ``Task``, ``SearchSpace.from_model`` and ``run``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import errors
from .architecture import Choices, Genome
from .errors import BitfrontError
from .formats import Format
from .measurement import Measurement
from .space import Configuration, SearchSpace, Site, Tie
from .task import Batch, Task
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .evaluators import Calibration, Finetuned, Recipe, calibrate, evaluate, finetune, prepared
    from .exporters import export
    from .hw_models import price
    from .proxies import Sensitivity, sensitivity
    from .search import (
        JointResult,
        Result,
        allocate,
        cheapest,
        diverse,
        exact_front,
        hull_front,
        hypervolume,
        knee,
        run,
        run_joint,
    )
    from .service.client import Client

#: Loaded on first use, so that ``import bitfront`` stays fast: name -> room.
_LAZY = {
    "Calibration": "evaluators",
    "calibrate": "evaluators",
    "prepared": "evaluators",
    "Recipe": "evaluators",
    "Finetuned": "evaluators",
    "evaluate": "evaluators",
    "finetune": "evaluators",
    "export": "exporters",
    "price": "hw_models",
    "Sensitivity": "proxies",
    "sensitivity": "proxies",
    "Result": "search",
    "allocate": "search",
    "cheapest": "search",
    "diverse": "search",
    "exact_front": "search",
    "hull_front": "search",
    "hypervolume": "search",
    "knee": "search",
    "JointResult": "search",
    "run": "search",
    "run_joint": "search",
    "Client": "service.client",
}

__all__ = [
    "Batch",
    "BitfrontError",
    "Calibration",
    "Choices",
    "Client",
    "Configuration",
    "Finetuned",
    "Format",
    "Genome",
    "JointResult",
    "Measurement",
    "Recipe",
    "Result",
    "SearchSpace",
    "Sensitivity",
    "Site",
    "Task",
    "Tie",
    "allocate",
    "calibrate",
    "cheapest",
    "diverse",
    "errors",
    "evaluate",
    "exact_front",
    "export",
    "finetune",
    "hull_front",
    "hypervolume",
    "knee",
    "prepared",
    "price",
    "run",
    "run_joint",
    "sensitivity",
]


_ROOMS = frozenset(
    {"dashboard", "evaluators", "exporters", "hw_models", "proxies", "search", "service", "store", "zoo"}
)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module 'bitfront' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
