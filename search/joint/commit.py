"""Driving a joint search: every outcome is committed under its genome's digest before it counts."""

from __future__ import annotations

from collections.abc import Mapping

from ...architecture import Genome
from ...store import Store
from ...task import Split
from ..executor import Executor
from ..work import Outcome
from .evaluation import JointRecipe, StoredGenome, failure_context, genome_of
from .nested import Nested
from .recorded import recorded


def drive(search: Nested, executor: Executor, store: Store, contexts: Mapping[Split, str], job_id: str) -> None:
    """Run the rounds; every outcome is committed under the genome's digest before it counts."""

    def commit(outcome: Outcome) -> None:
        work, genome = outcome.work, genome_of(outcome.work)
        context = contexts[work.split]
        if outcome.measurement is not None:
            store.save_evaluation(context, StoredGenome.of(genome), outcome.measurement, outcome.worker)
        else:
            store.save_failure(
                failure_context(context, genome.choices),
                genome.configuration,
                work.split,
                outcome.failure,
                final=outcome.final,
                worker=outcome.worker,
            )
        search.genomes.arrived(outcome)

    def lost(genome: Genome) -> str | None:
        failures = store.failures(failure_context(contexts["validation"], genome.choices), "validation")
        return failures.get(genome.configuration)

    search.genomes.lost = lost
    executor.drive(recorded(search, store, contexts, job_id), JointRecipe.of(search.subnets), commit)
