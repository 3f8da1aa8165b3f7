"""The registry of families: name to what makes them, open to other packages and to a user's own function."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from ...architecture import Family
from ...errors import InvalidInput
from ...evaluators.metrics import task_loss
from ...task import Task

MakeFamily = Callable[..., Family]
"""Called as ``make(task, **arguments)``."""


def families() -> dict[str, MakeFamily]:
    """What makes families, by name: those of bitfront and those that installed packages register.

    Other packages add theirs under the entry-point group ``bitfront.families``; each is called as
    ``make(task, **arguments)`` and returns a ``Family``.
    """
    found: dict[str, MakeFamily] = {"compression": compression, "elastic": elastic, "nasbench201": nasbench201}
    for entry in entry_points(group="bitfront.families"):
        found[entry.name] = entry.load()
    return found


def make_family(name: str, task: Task, arguments: Mapping[str, Any] | None = None) -> Family:
    """A family by name.

    Args:
        name: of ``families()``.
        task: model and data of the search; what a family does with them is its own business.
        arguments: of the family.

    Raises:
        InvalidInput: no such family, or no such argument; the message names the nearest, or what there is.
    """
    known = families()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise InvalidInput(
            f"unknown family {name!r}; did you mean {near!r}? Known: {', '.join(sorted(known))}; or give "
            "'module:function' of your own"
        )
    return called(name, known[name], task, arguments or {})


def called(name: str, make: MakeFamily, task: Task, arguments: Mapping[str, Any]) -> Family:
    """What a maker of families returns.

    Raises:
        InvalidInput: it does not take an argument, or returns no family.
    """
    try:
        inspect.signature(make).bind(task, **arguments)
    except TypeError as cause:
        taken = ", ".join(list(inspect.signature(make).parameters)[1:]) or "no argument"
        raise InvalidInput(f"family {name}: {cause}; it is called with the task, and takes {taken}") from None
    found = make(task, **arguments)
    if not isinstance(found, Family):
        raise InvalidInput(
            f"family {name}: {type(found).__name__} is no family; return an object with name, architecture, build, "
            "resolution and digest (bitfront.architecture.Family)"
        )
    return found


def compression(
    task: Task,
    *,
    skip: bool = True,
    width: tuple[float, ...] = (0.5, 0.75, 1.0),
    rank: tuple[float, ...] = (0.25, 0.5, 1.0),
    include: tuple[str, ...] = ("*",),
    exclude: tuple[str, ...] = (),
    importance: str = "magnitude",
    round_to: int = 8,
    recover: tuple[str, ...] = ("reconstruct", "statistics"),
) -> Family:
    """The task's own model with blocks skipped, channels cut and layers factored; see ``families.compression``."""
    from .compression import compress

    options: dict[str, Any] = {"importance": importance, "recover": recover}
    return compress(
        task.model,
        task.calibration[0].piece(0, 2).inputs,
        skip=skip,
        width=width,
        rank=rank,
        include=include,
        exclude=exclude,
        calibration=task.calibration,
        loss=lambda outputs, targets: task_loss(task, outputs, targets),
        round_to=round_to,
        **options,
    )


def elastic(
    task: Task,
    *,
    name: str = "fashion",
    width: float = 1.0,
    seed: int = 0,
    calibration: int = 512,
    fold: bool = True,
    weights: str | None = None,
) -> Family:
    """A supernet that ships, trained on first use; the task's model plays no part. See ``families.elastic``."""
    from .elastic import elastic_family

    return elastic_family(name, width=width, seed=seed, calibration=calibration, fold=fold, weights=weights)


def nasbench201(
    task: Task,
    *,
    classes: int = 10,
    channels: int = 16,
    cells: int = 5,
    inputs: int = 3,
    affine: bool = True,
    seed: int = 0,
) -> Family:
    """The cells of NAS-Bench-201 with initial weights; the task's model plays no part. See ``families.nasbench201``."""
    from .nasbench201 import NasBench201

    return NasBench201(classes, channels, cells, inputs, affine, seed)
