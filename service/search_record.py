"""How a search went, as typed values of ``front.json``: rounds, proposers, surrogate, recipes, stages, the verdict."""

from __future__ import annotations

import math

from pydantic import Field

from .document_parts import Interval, Part, Real


class Gap(Part):
    """A paired difference of two qualities; negative: the first is better."""

    value: Real = math.nan
    low: Real = math.nan
    high: Real = math.nan


class AgainstUniform(Part):
    """The best point next to the best uniform configuration of the same budget, on held-out data."""

    tie: bool = False
    rival: str | None = None
    difference: Gap | None = None


class Round(Part):
    """One round of a search; ``gap`` is a share of the predicted hypervolume, ``best`` within the constraints."""

    round: str
    proposed: int = 0
    measured: int = 0
    evaluations: int = 0
    hypervolume: Real = math.nan
    best: Real = math.nan
    gap: Real = math.nan
    model: str | None = None


class ProposerShare(Part):
    """What a proposer got of the evaluations, and what came of it; ``credit`` is in [0, 1]."""

    name: str
    evaluations: int = 0
    improved: int = 0
    credit: Real = math.nan
    shares: tuple[int, ...] = ()


class Coverage(Part):
    """The share of measurements that lay in the interval foretold, asked and reached."""

    asked: Real = math.nan
    reached: Real = math.nan
    predictions: int = 0


class LoopSurrogate(Part):
    """The surrogate of the last round: what it was, and how it ranked points that it did not see."""

    kind: str = ""
    points: int = 0
    pairs: int = 0
    left_out_spearman: Real = math.nan
    coverage: Coverage = Coverage()


class SearchRecord(Part):
    """How a search went."""

    rounds: tuple[Round, ...] = ()
    evaluations: int = 0
    proposers: tuple[ProposerShare, ...] = ()
    surrogate: LoopSurrogate | None = None
    screened: int = 0
    ended: str = ""


class TriedRecipe(Interval):
    """A recipe that was compared: its relative loss on so many samples."""

    name: str
    samples: int = 0
    whole: bool = False


class RecipeRecord(Part):
    """How everything was quantized, and what it was chosen from."""

    name: str = ""
    tried: tuple[TriedRecipe, ...] = ()
    left_out: dict[str, str] = Field(default_factory=dict)


class Stage(Part):
    """What one stage did: parts that ran, parts that came from the store, seconds."""

    stage: str
    detail: str = ""
    ran: int = 0
    reused: int = 0
    seconds: Real = math.nan
    saved: Real = 0.0
