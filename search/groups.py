"""Tie groups: the genes of a search. A configuration is one format for each group of sites that choose together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..space import SearchSpace

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of a space: those of ties first, then single sites, each in the order of the space.

    Attributes:
        sites: site indices of every group; a site without a tie is a group of its own.
        allowed: boolean [groups, formats], what every site of the group offers.
        of_site: int [sites], the group of every site.
    """

    sites: tuple[tuple[int, ...], ...]
    allowed: NDArray[np.bool_]
    of_site: IntArray

    @staticmethod
    def of(space: SearchSpace) -> Groups:
        """The groups of a space."""
        tied = {site for group in space.tie_indices for site in group}
        single = ((site,) for site in range(len(space.sites)) if site not in tied)
        sites = (*(tuple(group) for group in space.tie_indices), *single)
        allowed = np.stack([space.allowed[list(group)].all(axis=0) for group in sites])
        of_site = np.zeros(len(space.sites), dtype=np.int64)
        for index, group in enumerate(sites):
            of_site[list(group)] = index
        return Groups(sites, allowed, of_site)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.sites)

    def sums(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """A table [sites, formats] added up over the sites of each group: [groups, formats]; NaN where not allowed."""
        added = np.stack([table[list(group)].sum(axis=0) for group in self.sites])
        return np.where(self.allowed, added, np.nan)

    def expand(self, genes: IntArray) -> IntArray:
        """Columns by group [..., groups] as columns by site [..., sites]."""
        chosen: IntArray = np.asarray(genes, dtype=np.int64)[..., self.of_site]
        return chosen

    def contract(self, choices: IntArray) -> IntArray:
        """Columns by site [..., sites] as columns by group [..., groups]; the first site of a group speaks for it."""
        first = [group[0] for group in self.sites]
        genes: IntArray = np.asarray(choices, dtype=np.int64)[..., first]
        return genes
