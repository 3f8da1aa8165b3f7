"""The registry of proposers: name to class, open to other packages."""

from __future__ import annotations

import difflib
import inspect
from importlib.metadata import entry_points
from typing import Any

from ...errors import InvalidInput
from ..problem import Problem
from .proposer import Proposer


def proposers() -> dict[str, type[Any]]:
    """All proposers by name: those of bitfront and those that installed packages register.

    Other packages add theirs under the entry-point group ``bitfront.proposers``; a class is called as
    ``cls(problem, seed=..., **options)``.
    """
    from .bisection import Bisection
    from .diverse import Diverse
    from .exact_front import ExactFront
    from .gaps import Gaps
    from .gaussian_process import GP
    from .level_switch import LevelSwitch
    from .random_search import RandomSearch
    from .regularized_evolution import RegularizedEvolution
    from .samplers import NSGA2, NSGA3, TPE
    from .uniform import Uniform

    built_in: list[type[Any]] = [
        Uniform,
        ExactFront,
        Diverse,
        Gaps,
        LevelSwitch,
        Bisection,
        NSGA2,
        NSGA3,
        TPE,
        GP,
        RandomSearch,
        RegularizedEvolution,
    ]
    found = {each.name: each for each in built_in}
    for entry in entry_points(group="bitfront.proposers"):
        found[entry.name] = entry.load()
    return found


def make(name: str, problem: Problem, seed: int = 0, **options: Any) -> Proposer:
    """A proposer for a problem.

    Args:
        name: of ``proposers()``.
        problem: scores, prices, objectives, constraints.
        seed: of every random choice.
        options: what the proposer offers beyond; see its class.

    Returns:
        The proposer.

    Raises:
        InvalidInput: no such proposer, or no such option; the message names the nearest, or what is offered.
    """
    known = proposers()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise InvalidInput(f"unknown proposer {name!r}; did you mean {near[0]!r}? Known: {', '.join(sorted(known))}")
    offered = [each for each in inspect.signature(known[name]).parameters if each not in ("problem", "seed")]
    unknown = sorted(set(options) - set(offered))
    if unknown:
        raise InvalidInput(
            f"proposer {name!r} has no option {', '.join(unknown)}; it offers {', '.join(offered) or 'none'}"
        )
    made: Proposer = known[name](problem, seed=seed, **options)
    return made
