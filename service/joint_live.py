"""What a job with ``space.architecture`` has proposed and measured so far, from the store alone.

The search records every architecture that it proposes with its sites and prices (``search/joint/recorded.py``), so
nothing is built, priced or measured here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import select

from ..architecture import Choices, Genome
from ..hw_models import Price, Prices
from ..search.joint.evaluation import failure_context
from ..search.joint.recorded import genome_in, prices_in
from ..store import Candidate, Evaluation, Failure, Job, Store
from ..task import Split
from .job_arrays import SPLITS

_KEPT = 8  # jobs of a store
_QUALITY = ("value", "low", "high", "seconds", "samples")


@dataclass(frozen=True)
class Proposed:
    """A genome that a job proposed.

    Attributes:
        genome: architecture and formats.
        digest: of the genome.
        origin: who proposed it.
        predicted: its quality as it was foretold then.
        prices: by metric; ``None`` for a float network, and where the job recorded none for its architecture.
    """

    genome: Genome
    digest: str
    origin: str
    predicted: float | None
    prices: dict[str, Price] | None


@dataclass
class _Known:
    """What never changes in an attempt of a job."""

    genomes: dict[str, Proposed] = field(default_factory=dict)
    networks: dict[Choices, Prices] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)


@dataclass(frozen=True)
class JointCandidates:
    """The candidates of a job, in the order of proposal, and what came of them.

    Attributes:
        genomes: the candidates.
        networks: prices of every (site, format) of their architectures, with the spaces.
        quality: value, low, high, seconds, samples by (digest, split).
        metric: of the quality; ``None`` before anything is measured.
        failed: why a genome has no measurement, by digest.
    """

    genomes: list[Proposed]
    networks: dict[Choices, Prices]
    quality: dict[tuple[str, Split], dict[str, Any]]
    metric: str | None
    failed: dict[str, str]

    @cached_property
    def largest(self) -> Choices | None:
        """The architecture that the baselines are of: that of the float network that a search begins with."""
        return self.genomes[0].genome.choices if self.genomes else None

    @cached_property
    def uniforms(self) -> dict[str, str]:
        """Name of the format of every uniform configuration on the largest architecture, by digest of the genome."""
        if self.largest is None or self.largest not in self.networks:
            return {}
        found = self.networks[self.largest].space.uniforms()
        return {Genome(self.largest, each).digest: name for name, each in reversed(found.items())}

    def of(self, digest: str, split: Split) -> dict[str, Any] | None:
        """A measured quality."""
        return self.quality.get((digest, split))


def candidates_of(store: Store, job: Job) -> JointCandidates:
    """What a job proposed and measured so far.

    Args:
        store: where.
        job: with ``space.architecture``.
    """
    with _LOCK:
        jobs = _CACHE.setdefault(store, OrderedDict())
        known = jobs.setdefault((job.id, job.attempt), _Known())
        jobs.move_to_end((job.id, job.attempt))
        while len(jobs) > _KEPT:
            jobs.popitem(last=False)
    with known.lock:
        genomes = [_proposed(store, job, known, row) for row in store.candidates(job.id)]
        networks = dict(known.networks)
    contexts: dict[Split, str] = job.record.get("joint", {}).get("contexts", {})
    metric, quality = _measured(store, job, contexts)
    failed = _failed(store, contexts["validation"], genomes) if contexts else {}
    return JointCandidates(genomes, networks, quality, metric, failed)


def _proposed(store: Store, job: Job, known: _Known, row: Candidate) -> Proposed:
    if row.configuration not in known.genomes:
        genome = genome_in(row.formats)
        choices = genome.choices
        if choices not in known.networks and (found := prices_in(store, job.id, choices)) is not None:
            known.networks[choices] = found
        network = known.networks.get(choices)
        prices = network.of(genome.configuration) if network is not None and genome.configuration.pairs else None
        known.genomes[row.configuration] = Proposed(genome, row.configuration, row.origin, row.predicted, prices)
    return known.genomes[row.configuration]


def _measured(
    store: Store, job: Job, contexts: dict[Split, str]
) -> tuple[str | None, dict[tuple[str, Split], dict[str, Any]]]:
    """The metric, and qualities without their samples."""
    metric: str | None = None
    found: dict[tuple[str, Split], dict[str, Any]] = {}
    mine = select(Candidate.configuration).where(Candidate.job_id == job.id)
    columns = (Evaluation.metric, Evaluation.configuration, *(getattr(Evaluation, name) for name in _QUALITY))
    with store.session() as session:
        for split in SPLITS if contexts else ():
            whole = (Evaluation.context == contexts[split], Evaluation.split == split)
            query = select(*columns).where(*whole, Evaluation.configuration.in_(mine))
            for named, digest, *values in session.execute(query):
                metric = named
                found[digest, split] = dict(zip(_QUALITY, values, strict=True))
    return metric, found


def _failed(store: Store, context: str, genomes: list[Proposed]) -> dict[str, str]:
    """Reasons by the genome's digest; a failure is stored under the formats in a context of the architecture."""
    places = {failure_context(context, choices) for choices in {each.genome.choices for each in genomes}}
    with store.session() as session:
        query = select(Failure.context, Failure.configuration, Failure.reason).where(
            Failure.context.in_(places), Failure.split == "validation"
        )
        reasons = {(place, digest): reason for place, digest, reason in session.execute(query)}
    found = {}
    for each in genomes if reasons else ():
        key = failure_context(context, each.genome.choices), each.genome.configuration.digest
        if key in reasons:
            found[each.digest] = reasons[key]
    return found


_LOCK = threading.Lock()
_CACHE: WeakKeyDictionary[Store, OrderedDict[tuple[str, int], _Known]] = WeakKeyDictionary()
