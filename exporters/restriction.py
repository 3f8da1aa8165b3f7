"""A space in which only what a target can load may be chosen, so that a search never proposes anything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np

from ..errors import InvalidInput
from ..formats import Format
from ..space import SearchSpace, Tie
from .protocol import Target
from .rules import check_generation, nearest, takes


@dataclass(frozen=True)
class Capabilities:
    """What a target can represent of a space.

    Attributes:
        allowed: boolean array [sites, formats]: offered by the space, and taken by the target.
        reasons: (site name, format name) -> why it was taken away.
    """

    allowed: np.ndarray[Any, np.dtype[np.bool_]]
    reasons: dict[tuple[str, str], str]


@dataclass(frozen=True)
class Restricted:
    """A space made smaller.

    Attributes:
        space: with fewer formats at some sites and more ties.
        notes: what was taken away and what was tied, one sentence each.
    """

    space: SearchSpace
    notes: tuple[str, ...]


def capabilities(target: Target, space: SearchSpace, generation: str | None = None) -> Capabilities:
    """What a target can represent of a space, on the kernels of a device generation if one is named.

    Raises:
        InvalidInput: no such generation.
    """
    check_generation(generation)
    allowed, reasons = space.allowed, {}
    formats = [Format.parse(name) for name in space.formats]
    for row, site in enumerate(space.sites):
        for column, format in enumerate(formats):
            if not allowed[row, column]:
                continue
            verdict = takes(target, site, format, generation)
            allowed[row, column] = bool(verdict)
            if not verdict:
                reasons[site.name, format.name] = verdict.reason
    return Capabilities(allowed, reasons)


def restricted(space: SearchSpace, target: Target, generation: str | None = None) -> Restricted:
    """The space without what a target cannot load, its fused groups tied.

    Args:
        space: as the job describes it.
        target: where the best configuration goes.
        generation: of the device that must have kernels; ``None``: any that the runtime loads will do.

    Returns:
        The space, the same object where nothing had to be taken away or tied.

    Raises:
        InvalidInput: nothing is left at a site or in a fused group; the message names the nearest formats that work.
    """
    found = capabilities(target, space, generation)
    sites = []
    for site, row in zip(space.sites, found.allowed, strict=True):
        kept = tuple(name for name in site.formats if row[space.formats.index(name)])
        if not kept:
            why = found.reasons[site.name, site.formats[-1]]
            near = nearest(target, [site], Format.parse(site.formats[-1]), generation)
            raise InvalidInput(
                f"site {site.name}: {target.name} takes none of {', '.join(site.formats)} ({why}); "
                + (f"offer {near} in space.formats, or exclude the site" if near else "exclude the site")
            )
        sites.append(site if kept == site.formats else replace(site, formats=kept))
    ties, added = _tied(space, target.fused(space))
    if not found.reasons and not added:
        return Restricted(space, ())
    used = {name for site in sites for name in site.formats}
    smaller = replace(space, sites=sites, formats=tuple(name for name in space.formats if name in used), ties=ties)
    _check_ties(smaller, target, generation)
    return Restricted(smaller, (*_notes(found, target), *added))


def _notes(found: Capabilities, target: Target) -> list[str]:
    """One sentence for the formats that the same sites lose for the same reason."""
    sites: dict[tuple[str, str], list[str]] = {}
    for (site, format), reason in found.reasons.items():
        sites.setdefault((format, reason), []).append(site)
    formats: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for (format, reason), names in sites.items():
        formats.setdefault((tuple(names), reason), []).append(format)
    return [
        f"export: {', '.join(lost)} {'are' if len(lost) > 1 else 'is'} not offered at {_listed(names)}, because "
        f"{target.name} cannot load {'them' if len(lost) > 1 else 'it'}: {reason}"
        for (names, reason), lost in formats.items()
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} sites ({', '.join(names[:2])}, …)"


def _tied(space: SearchSpace, fused: Sequence[Tie]) -> tuple[list[Tie], list[str]]:
    """The ties of the space joined with fused groups, and a sentence for each that is new."""
    ties, added = list(space.ties), []
    for tie in fused:
        if any(set(tie.sites) <= set(each.sites) for each in ties):
            continue
        touching = [each for each in ties if set(each.sites) & set(tie.sites)]
        members: set[str] = reduce(lambda names, each: names | set(each.sites), touching, set(tie.sites))
        reasons = dict.fromkeys([*(each.reason for each in touching), tie.reason])
        ties = [each for each in ties if each not in touching]
        ties.append(Tie(tuple(name for name in space.names if name in members), "; ".join(reasons)))
        added.append(f"export: {', '.join(tie.sites)} share a format ({tie.reason})")
    return ties, added


def _check_ties(space: SearchSpace, target: Target, generation: str | None) -> None:
    by_name = {site.name: site for site in space.sites}
    for tie in space.ties:
        members = [by_name[name] for name in tie.sites]
        if not any(all(site.offers(name) for site in members) for name in space.formats):
            near = nearest(target, members, Format.parse(members[0].formats[-1]), generation)
            raise InvalidInput(
                f"sites {', '.join(tie.sites)} must share a format ({tie.reason}), and {target.name} leaves them none "
                "in common; " + (f"offer {near} in space.formats" if near else "exclude them")
            )
