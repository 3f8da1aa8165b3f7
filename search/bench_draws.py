r"""Which configurations a bench measures: half at random, half stratified by size.

Half of them choose a format for every site (for every tie) at random, each with the same chance; they crowd around one
size. The other half is stratified: a target between the smallest and the largest size is drawn, and formats are drawn
from

.. math:: p(f \mid l) \propto \exp(-\lambda\, u_{lf}), \qquad u_{lf} \in [0, 1] \text{ the size of format f in tie l}

with :math:`\lambda` such that the total meets the target. The draw is :math:`\arg\max_f (G_{lf} - \lambda u_{lf})`
with Gumbel noise G, whose size falls as :math:`\lambda` rises, so :math:`\lambda` is found by bisection. The targets
are a low-discrepancy sequence, so the first n of a larger bench are the bench of n: raising the number measures only
the rest.

``vary`` says what differs between the configurations: ``both``; ``weights``, with activations as the model computes
them; ``activations``, with weights as in the format that has most activation formats beside it (the finest of those),
stratified by bit operations instead of size. A site that does not offer that weight is fixed as ``uniform`` has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from ..formats import Format, weight_name
from ..hw_models import price
from ..space import Configuration, SearchSpace
from .groups import Groups

FloatArray = NDArray[np.float64]
Vary = Literal["both", "weights", "activations"]
Origin = Literal["random", "stratified"]

_STEPS = 60  # of the bisection
_STEEPEST = 200.0  # |lambda| at which the noise no longer matters
_ATTEMPTS = 20  # draws of a configuration that is not there yet


@dataclass(frozen=True)
class Draw:
    """A configuration of a bench, and how it came there."""

    configuration: Configuration
    origin: Origin


def bench_configurations(space: SearchSpace, count: int, seed: int = 0, vary: Vary = "both") -> list[Configuration]:
    """The configurations of ``bench_draws``."""
    return [each.configuration for each in bench_draws(space, count, seed, vary)]


def bench_draws(space: SearchSpace, count: int, seed: int = 0, vary: Vary = "both") -> list[Draw]:
    """The configurations of a bench, all different.

    Args:
        space: sites, formats, ties.
        count: how many; fewer come back when the space has too few.
        seed: of every draw.
        vary: what differs between them; see the module docstring.

    Returns:
        Random ones (even places) and those at size targets (odd places); a larger bench begins with a smaller one.

    Raises:
        InvalidInput: the space has nothing to vary in that way.
    """
    groups = Groups.of(space)
    costs = _costs(space, groups, vary)
    found: dict[Configuration, Origin] = {}
    index = 0
    while len(found) < count and index < count * _ATTEMPTS:
        generator = np.random.default_rng([seed, index])
        noise = generator.gumbel(size=costs.shape)
        target = van_der_corput(index // 2 + 1) if index % 2 else None
        drawn = space.configuration(groups.expand(_drawn(costs, noise, target)))
        found.setdefault(drawn, "stratified" if index % 2 else "random")
        index += 1
    return [Draw(configuration, origin) for configuration, origin in found.items()]


def van_der_corput(index: int) -> float:
    """The low-discrepancy sequence in base 2: 1/2, 1/4, 3/4, 1/8, …"""
    share, scale = 0.0, 0.5
    while index:
        share, scale, index = share + scale * (index & 1), scale / 2, index >> 1
    return share


def _costs(space: SearchSpace, groups: Groups, vary: Vary) -> FloatArray:
    """What is stratified, of every group in every format: [groups, formats], infinite where it may not be drawn."""
    if vary not in get_args(Vary):
        raise InvalidInput(f"vary={vary!r}; choose both, weights or activations")
    metric = "bops" if vary == "activations" else "size_mb"
    sums = groups.sums(price(space, metrics=(metric,))[metric].values)
    costs: FloatArray = np.where(_drawable(space, groups, vary), sums, np.inf)
    return costs


def _drawable(space: SearchSpace, groups: Groups, vary: Vary) -> NDArray[np.bool_]:
    """Which formats may be drawn: bool [groups, formats]."""
    if vary == "both":
        return groups.allowed
    formats = [Format.parse(name) for name in space.formats]
    if vary == "weights":
        kept = groups.allowed & np.array([not each.quantizes_activations for each in formats])
        if not kept.any(axis=1).all():
            site = space.names[groups.sites[int(kept.any(axis=1).argmin())][0]]
            raise InvalidInput(
                f"vary=weights: site {site} offers only formats that round activations; offer such as w8, or vary both"
            )
        return _varied(kept, vary, space)
    column = _most_activations(formats)
    same = groups.allowed & np.array([weight_name(each.weight) == weight_name(column.weight) for each in formats])
    fixed = groups.contract(space.choice(space.uniform(column.name)))
    rows = np.flatnonzero(~same.any(axis=1))
    same[rows, fixed[rows]] = True
    return _varied(same, vary, space)


def _varied(kept: NDArray[np.bool_], vary: Vary, space: SearchSpace) -> NDArray[np.bool_]:
    if not (kept.sum(axis=1) > 1).any():
        raise InvalidInput(
            f"vary={vary}: the formats {', '.join(space.formats)} leave every site one choice; offer such as w2, w4, "
            "w8 for weights, or w8 and w8a8 for activations"
        )
    return kept


def _most_activations(formats: Sequence[Format]) -> Format:
    """Of the weight that most formats have in common the first one; of equal ones the finest weight."""
    by_weight: dict[str, list[Format]] = {}
    for each in formats:  # coarse to fine
        by_weight.setdefault(weight_name(each.weight), []).append(each)
    return max(by_weight.values(), key=lambda found: (len(found), found[0].weight_bits))[0]


def _drawn(costs: FloatArray, noise: FloatArray, target: float | None) -> NDArray[np.int64]:
    """Column of every group; ``target`` is a share of the way from the smallest to the largest total."""
    finite = np.where(np.isfinite(costs), costs, np.nan)
    low, high = np.nanmin(finite, axis=1), np.nanmax(finite, axis=1)
    extent = np.where(high > low, high - low, 1.0)[:, None]
    relative = np.where(np.isfinite(costs), (costs - low[:, None]) / extent, np.inf)
    offered = np.where(np.isfinite(costs), noise, -np.inf)

    def draw(slope: float) -> NDArray[np.int64]:
        columns: NDArray[np.int64] = np.argmax(offered - slope * np.where(np.isfinite(relative), relative, 0.0), axis=1)
        return columns

    if target is None:
        return draw(0.0)
    wanted = low.sum() + target * (high.sum() - low.sum())
    flat, steep = -_STEEPEST, _STEEPEST
    for _ in range(_STEPS):
        middle = (flat + steep) / 2
        if costs[np.arange(len(costs)), draw(middle)].sum() > wanted:
            flat = middle
        else:
            steep = middle
    return draw(steep)
