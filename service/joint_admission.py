"""What a job over the network may ask of architectures: registered families with arguments of bounded size."""

from __future__ import annotations

import inspect
from typing import Any

from ..errors import InvalidInput, Refused
from ..proxies import get_proxy
from ..search.families import families
from .job import ArchitectureSource

_LARGEST: dict[str, float] = {
    "calibration": 10_000,
    "cells": 32,
    "channels": 512,
    "classes": 100_000,
    "inputs": 64,
    "round_to": 1024,
    "width": 8.0,
}
_LARGEST_NUMBER = 2**63 - 1  # of any other argument, such as a seed
_MOST_VALUES = 64  # of a list


def check_family(asked: ArchitectureSource) -> None:
    """Refuse a family that a worker would not build for somebody else.

    Args:
        asked: ``space.architecture`` of the job; its family is registered, or the schema had refused it.

    Raises:
        Refused: a function, or a file of the worker's machine.
        InvalidInput: no such argument or proxy, or a value that is no bounded scalar or list of them.
    """
    if ":" in asked.family:
        raise Refused(
            f"space.architecture.family: {asked.family[:80]!r} names a function, and a service builds registered "
            f"families only ({', '.join(sorted(families()))}); run it with `bitfront run`"
        )
    if "weights" in asked.arguments:
        raise Refused("space.architecture.arguments.weights: a service reads no local paths; leave it out")
    taken = list(inspect.signature(families()[asked.family]).parameters)[1:]
    for name, value in asked.arguments.items():
        if name not in taken:
            raise InvalidInput(f"space.architecture.arguments: {asked.family} takes {', '.join(taken)}, not {name!r}")
        _check_value(name, value)
    get_proxy(asked.proxy)


def _check_value(name: str, value: Any) -> None:
    where = f"space.architecture.arguments.{name}"
    values = value if isinstance(value, list) else [value]
    if len(values) > _MOST_VALUES:
        raise InvalidInput(f"{where}: {len(values)} values; give at most {_MOST_VALUES}")
    for each in values:
        if not isinstance(each, (bool, int, float, str)):
            raise InvalidInput(f"{where}: give numbers, texts, true or false, got {type(each).__name__}")
        limit = _LARGEST.get(name, _LARGEST_NUMBER)
        if not isinstance(each, str) and not -limit <= each <= limit:
            raise InvalidInput(f"{where}: {each!r}; give at most {limit:g}")
