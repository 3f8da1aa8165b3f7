"""What the store holds of a job, so that a new budget is answered without its model. Needs no torch.

The record is written before the first evaluation: a search that was killed can be asked too. Of several records of one
job (its prices or proxies changed) the newest counts.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import select

from ..hw_models import Prices
from ..measurement import Measurement
from ..proxies import Sensitivity
from ..space import Configuration, SearchSpace
from ..store import Store
from ..store.models import Evaluation, Score
from ..task import Split
from .records import price_arrays, prices_of, score_arrays, score_of, space_arrays, space_of
from .stage import as_array, from_array, key_of

_VERSION = 1


@dataclass(frozen=True)
class Knowledge:
    """What is stored of a job.

    Attributes:
        model: name of the model.
        metric: of the quality.
        space: sites, formats, ties.
        prices: every price that was asked for.
        sensitivities: by proxy; the first is the one that reports show.
        objectives: of the search.
        constraints: price -> largest value allowed.
        contexts: split -> key of its evaluations.
        recipe: with which all was measured, as plain data; empty in records of older versions.
    """

    model: str
    metric: str
    space: SearchSpace
    prices: Prices
    sensitivities: dict[str, Sensitivity]
    objectives: tuple[str, ...]
    constraints: dict[str, float]
    contexts: dict[Split, str]
    recipe: dict[str, Any] = field(default_factory=dict)


def remember(store: Store, job_key: str, found: Knowledge) -> str:
    """Keep what is known of a job under its key; nothing is written when the newest record says the same.

    Returns:
        The key of just this record, for ``recall_exactly``.
    """
    arrays = _arrays(found)
    content = hashlib.sha256()
    for name in sorted(arrays):
        content.update(f"{name}|{arrays[name].dtype}|{arrays[name].shape}|".encode())
        content.update(np.ascontiguousarray(arrays[name]).tobytes())
    digest = content.hexdigest()
    newest = _newest(store, job_key)
    if newest is not None and newest.endswith(digest[:16]):
        return newest
    written = key_of("knowledge", job_key, time.time_ns())[:16]  # an old record that is right again is written anew
    key = f"{written}{digest[:16]}"
    store.save_score(key, _label(job_key), arrays, 0.0)
    return key


def recall(store: Store, job_key: str) -> Knowledge | None:
    """The newest record of a job, or ``None``."""
    newest = _newest(store, job_key)
    return None if newest is None else recall_exactly(store, newest)


def recall_exactly(store: Store, key: str) -> Knowledge | None:
    """The record that ``remember`` gave this key, or ``None``."""
    stored = store.score(key)
    return None if stored is None else _knowledge(stored[0])


def measurements(
    store: Store, found: Knowledge
) -> tuple[dict[Configuration, str], dict[tuple[str, Split], Measurement]]:
    """Everything that was measured for a job, by whichever job or bench.

    Returns:
        The configurations that fit the space, in the order of measurement, all with the origin ``stored``; and the
        measurements by (configuration digest, split).
    """
    origins: dict[Configuration, str] = {}
    known: dict[tuple[str, Split], Measurement] = {}
    for split, context in found.contexts.items():
        for digest, measurement in store.evaluations(context, split).items():
            known[digest, split] = measurement
    with store.session() as session:
        query = select(Evaluation.formats).where(
            Evaluation.context == found.contexts["validation"], Evaluation.split == "validation"
        )
        for formats in session.scalars(query.order_by(Evaluation.created_at, Evaluation.configuration)):
            if _fits(found.space, formats):
                origins[Configuration.from_dict(formats)] = "stored"
    return origins, known


def _fits(space: SearchSpace, formats: Mapping[str, str]) -> bool:
    """Whether a stored configuration is one of this space (another job may offer other formats for the same model)."""
    if set(formats) != set(space.names):
        return False
    if any(not site.offers(formats[site.name]) for site in space.sites):
        return False
    return all(len({formats[name] for name in tie.sites}) == 1 for tie in space.ties)


def _label(job_key: str) -> str:
    return f"job {job_key}"


def _newest(store: Store, job_key: str) -> str | None:
    with store.session() as session:
        query = select(Score.key).where(Score.proxy == _label(job_key)).order_by(Score.created_at.desc()).limit(1)
        return session.scalars(query).first()


def _arrays(found: Knowledge) -> dict[str, np.ndarray]:
    about = {
        "version": _VERSION,
        "model": found.model,
        "metric": found.metric,
        "objectives": found.objectives,
        "constraints": found.constraints,
        "contexts": found.contexts,
        "recipe": found.recipe,
        "proxies": [[name, scores.additive, scores.seconds] for name, scores in found.sensitivities.items()],
    }
    arrays = {"about": as_array(about), **space_arrays(found.space)}
    arrays |= {f"prices/{name}": array for name, array in price_arrays(found.prices).items()}
    for proxy, scores in found.sensitivities.items():
        arrays |= {f"scores/{proxy}/{name}": array for name, array in score_arrays(scores).items()}
    return arrays


def _knowledge(arrays: Mapping[str, np.ndarray]) -> Knowledge:
    about: dict[str, Any] = from_array(arrays["about"])
    space = space_of(arrays)
    return Knowledge(
        about["model"],
        about["metric"],
        space,
        prices_of(_below(arrays, "prices/"), space),
        {
            name: score_of(_below(arrays, f"scores/{name}/"), seconds, name, space.names, space.formats, additive)
            for name, additive, seconds in about["proxies"]
        },
        tuple(about["objectives"]),
        about["constraints"],
        about["contexts"],
        about.get("recipe", {}),
    )


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
