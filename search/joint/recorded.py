"""What a joint search records of its genomes as it proposes them, so that others can show it without building networks.

Every architecture is recorded with its sites and prices, every genome as a candidate of the job, before it is measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice

from ...architecture import Choices, Genome
from ...hw_models import Prices
from ...space import Configuration
from ...store import Store
from ...task import Split
from ..knowledge import Knowledge, recall, remember
from ..stage import key_of
from ..work import Rounds
from .evaluation import StoredGenome
from .nested import Nested

_VERSION = "joint-candidates-1"


def recorded(search: Nested, store: Store, contexts: Mapping[Split, str], job_id: str) -> Rounds:
    """The rounds of a search; what each proposes is in the store before it is asked for.

    Args:
        search: whose.
        store: where.
        contexts: split -> key of its evaluations.
        job_id: of the search.

    Yields:
        Work, as ``search.rounds()``; is sent its outcomes.
    """
    rounds, noted, priced = search.rounds(), 0, set[Choices]()
    try:
        work = next(rounds, None)
        while True:
            fresh = list(islice(search.genomes.origins.items(), noted, None))
            noted += len(fresh)
            for choices in {genome.choices: None for genome, _ in fresh if genome.choices not in priced}:
                _remember(search, choices, store, contexts, job_id)
                priced.add(choices)
            rows = [(StoredGenome.of(genome), origin, search.foretold(genome)) for genome, origin in fresh]
            store.add_candidates(job_id, rows)
            if work is None:
                return
            outcomes = yield work
            try:
                work = rounds.send(outcomes)
            except StopIteration:
                work = None  # what the end of the search took up is recorded too
    finally:
        rounds.close()


def genome_in(formats: Mapping[str, str]) -> Genome:
    """The genome in the row of a candidate, which ``StoredGenome`` wrote."""
    sites = dict(formats)
    choices = Choices.from_dict(json.loads(sites.pop("architecture")))
    return Genome(choices, Configuration.from_dict(sites))


def prices_in(store: Store, job_id: str, choices: Choices) -> Prices | None:
    """Prices of every (site, format) of an architecture of a job, with its space.

    Returns:
        The newest that the job recorded; ``None`` if it recorded none.
    """
    found = recall(store, _key(job_id, choices))
    return None if found is None else found.prices


def _remember(search: Nested, choices: Choices, store: Store, contexts: Mapping[Split, str], job_id: str) -> None:
    problem, task = search.assessed[choices].problem, search.subnets.task
    about = (problem.objectives, problem.constraints, dict(contexts))
    remember(store, _key(job_id, choices), Knowledge(task.name, task.metric, problem.space, problem.prices, {}, *about))


def _key(job_id: str, choices: Choices) -> str:
    return key_of(_VERSION, job_id, choices.digest)
