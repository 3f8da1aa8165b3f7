"""Genomes as numbers for the accuracy predictor: one-hot dimensions, one-hot formats of every site."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...architecture import ArchitectureSpace, Genome
from ...errors import InvalidInput

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class GenomeEncoding:
    """The columns of a genome (APQ, Wang et al., arXiv:2006.08509, section 3.2, encodes alike).

    First one column for each value of each dimension, all 0 where the dimension does not exist; then one for each site
    and format, all 0 where the site does not exist or stays in float; then the share of the genome's sites that each
    format has. So a float network is 0 in all columns of formats, and what was learned of float networks stays true
    when those columns are opened.

    Attributes:
        architecture: the dimensions.
        sites: names of sites, of all architectures.
        formats: that a site may have.

    Raises:
        InvalidInput: a site or format is named twice.
    """

    architecture: ArchitectureSpace
    sites: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.sites)) < len(self.sites) or len(set(self.formats)) < len(self.formats):
            raise InvalidInput(f"sites and formats must differ, got {list(self.sites)} and {list(self.formats)}")

    @staticmethod
    def of(architecture: ArchitectureSpace, genomes: Iterable[Genome]) -> GenomeEncoding:
        """The columns that these genomes need."""
        pairs = [pair for each in genomes for pair in each.configuration.items()]
        sites, formats = ({pair[at]: None for pair in pairs} for at in (0, 1))
        return GenomeEncoding(architecture, tuple(sorted(sites)), tuple(sorted(formats)))

    @property
    def of_architecture(self) -> int:
        """How many of the columns are of the architecture; they come first."""
        return sum(len(each.values) for each in self.architecture.dimensions)

    @property
    def size(self) -> int:
        """How many columns."""
        return self.of_architecture + (len(self.sites) + 1) * len(self.formats)

    def rows(self, genomes: Sequence[Genome]) -> FloatArray:
        """The columns of genomes: float64 [genomes, size].

        Raises:
            InvalidInput: choices of another architecture, a site or a format that has no column.
        """
        found = np.zeros((len(genomes), self.size))
        for row, genome in zip(found, genomes, strict=True):
            row[self._ones(genome)] = 1.0
            if self.formats:
                formats = row[self.of_architecture : -len(self.formats)].reshape(-1, len(self.formats))
                row[-len(self.formats) :] = formats.sum(axis=0) / max(1, len(genome.configuration))
        return found

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        sizes = [len(each.values) for each in self.architecture.dimensions]
        return np.cumsum([0, *sizes])[:-1].astype(np.int64)

    @cached_property
    def _positions(self) -> tuple[dict[str, int], dict[str, int]]:
        return {name: at for at, name in enumerate(self.sites)}, {name: at for at, name in enumerate(self.formats)}

    def _ones(self, genome: Genome) -> list[int]:
        indices = self.architecture.indices(self.architecture.choices(genome.choices))
        sites, formats = self._positions
        found = [int(start + index) for start, index in zip(self._starts, indices, strict=True) if index >= 0]
        for site, name in genome.configuration.items():
            if site not in sites or name not in formats:
                raise InvalidInput(
                    f"site {site!r} in {name!r} has no column; there are the formats {list(self.formats)} of "
                    f"{len(self.sites)} sites: fit the predictor to genomes that hold all of them"
                )
            found.append(self.of_architecture + sites[site] * len(self.formats) + formats[name])
        return found
