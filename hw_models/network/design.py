"""Which configurations to export and time whole: uniform ones, and mixtures of all proportions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from ...space import Configuration, SearchSpace
from ..kernels import site_kernel

#: Concentration of the Dirichlet distribution of a mixture's proportions: below 1, one or two formats prevail.
CONCENTRATION = 0.7


def uniform_designs(space: SearchSpace) -> dict[str, Configuration]:
    """One uniform configuration for each set of kernels that the formats of a space run, by format name.

    Weight-only formats run the kernels of ``fp32``, so one of them stands for all.
    """
    found: dict[tuple[object, ...], tuple[str, Configuration]] = {}
    for name, configuration in reversed(space.uniforms().items()):
        kernels = tuple(site_kernel(site, configuration[site.name]) for site in space.sites)
        found.setdefault(kernels, (name, configuration))
    return dict(found.values())


def mixtures(space: SearchSpace, count: int, seed: int = 0) -> dict[str, Configuration]:
    """Random configurations: each draws its own proportions of the formats, then each site (or tie) its format.

    With equal chances everywhere all mixtures of many sites would have about the same latency.

    Args:
        space: sites, formats, ties.
        count: how many.
        seed: of the random numbers.

    Returns:
        ``"mixture <seed>.<number>"`` -> configuration, all different.

    Raises:
        InvalidInput: the space has fewer configurations than asked for.
    """
    rng = np.random.default_rng(seed)
    found: dict[Configuration, str] = {}
    for _ in range(50 * count):
        if len(found) == count:
            break
        share = rng.dirichlet(np.full(len(space.formats), CONCENTRATION))
        found.setdefault(space.configuration(_drawn(space, share, rng)), f"mixture {seed}.{len(found)}")
    if len(found) < count:
        raise InvalidInput(f"asked for {count} mixtures, but the space gave only {len(found)}; ask for fewer")
    return {label: configuration for configuration, label in found.items()}


def _drawn(space: SearchSpace, share: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    allowed = space.allowed
    for tie in space.tie_indices:
        allowed[list(tie)] = allowed[list(tie)].all(axis=0)
    chances = np.where(allowed, share + 1e-9, 0.0)
    choice = np.array([rng.choice(len(share), p=row / row.sum()) for row in chances], dtype=np.int64)
    for tie in space.tie_indices:
        choice[list(tie)] = choice[tie[0]]
    return choice
