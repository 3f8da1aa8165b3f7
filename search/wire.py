"""Works and outcomes as JSON: Tune copies and records what it hands to an actor, and of one string there is little."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..architecture import Choices
from ..evaluators import Race
from ..measurement import Measurement
from ..space import Configuration
from .work import Outcome, Work


def encode_works(works: Sequence[Work]) -> str:
    """Works as JSON; a race that several share is written once."""
    races = list({id(work.race): work.race for work in works if work.race is not None}.values())
    numbers = {id(race): number for number, race in enumerate(races)}
    plain = {
        "races": [
            {"above_floor": race.rival_values.tolist(), "error": race.error, "margin": race.margin, "floor": race.floor}
            for race in races
        ],
        "works": [
            {
                "formats": work.configuration.to_dict(),
                "split": work.split,
                "batches": work.batches,
                "known": asdict(work.known) if work.known else None,
                "race": numbers.get(id(work.race)),
                "architecture": None if work.architecture is None else work.architecture.to_dict(),
            }
            for work in works
        ],
    }
    return json.dumps(plain)


def decode_works(text: str) -> list[Work]:
    """The inverse of ``encode_works``; works that shared a race share one."""
    plain = json.loads(text)
    races = [_race(**each) for each in plain["races"]]
    return [
        Work(
            Configuration.from_dict(item["formats"]),
            item["split"],
            item["batches"],
            _measurement(item["known"]),
            None if item["race"] is None else races[item["race"]],
            None if item["architecture"] is None else Choices.from_dict(item["architecture"]),
        )
        for item in plain["works"]
    ]


def _race(above_floor: list[float], error: float, margin: float, floor: float) -> Race:
    """A race as it was: it holds the rival's values counted from the floor, and adding it again would round."""
    race = Race(np.array(above_floor), error, margin)
    object.__setattr__(race, "floor", floor)
    return race


def _measurement(plain: dict[str, Any] | None) -> Measurement | None:
    return Measurement(**{**plain, "values": tuple(plain["values"])}) if plain else None


def encode_outcomes(outcomes: Sequence[Outcome]) -> str:
    """Outcomes as JSON, without their works, which the other side has."""
    plain = [
        {
            "measurement": asdict(each.measurement) if each.measurement else None,
            "failure": each.failure,
            "worker": each.worker,
        }
        for each in outcomes
    ]
    return json.dumps(plain)


def decode_outcomes(text: str, works: Sequence[Work]) -> list[Outcome]:
    """The inverse of ``encode_outcomes``, given the works in their order."""
    return [
        Outcome(work, _measurement(each["measurement"]), each["failure"], each["worker"])
        for work, each in zip(works, json.loads(text), strict=True)
    ]
