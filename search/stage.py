"""A stage: its outcome is kept under a key of its inputs; the ledger tells what ran and what was reused."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

from ..store import Store

Arrays = Mapping[str, np.ndarray]
T = TypeVar("T")

#: In the order in which data flows through them.
STAGES = ("trace", "calibrate", "price", "score", "propose", "measure", "refit", "refine", "validate", "export")


def key_of(stage: str, *inputs: Any) -> str:
    """Key of a stage's outcome: a hash (32 hex digits) of its name and of everything that the outcome depends on.

    Args:
        stage: name and version of the stage; another version never finds the outcome of this one.
        inputs: plain data, such as the digests of earlier outcomes.
    """
    content = json.dumps([stage, *inputs], sort_keys=True, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Ran:
    """What one stage did in one run.

    Attributes:
        stage: one of ``STAGES``.
        detail: which one, where there are several: a proxy, an export target.
        key: under which the outcome is kept; empty where each part has a key of its own (evaluations).
        ran: parts that were computed now.
        reused: parts that came from the store.
        seconds: wall time spent now.
        saved: seconds that the reused parts cost when they were computed.
    """

    stage: str
    detail: str
    key: str
    ran: int
    reused: int
    seconds: float
    saved: float = 0.0

    def told(self) -> str:
        """One line for people."""
        name = f"{self.stage} {self.detail}".rstrip()
        if not self.ran:
            return f"stage {name}: reused {self.reused} in {self.seconds:.2f} s (cost {self.saved:.2f} s once)"
        reused = f", reused {self.reused} (cost {self.saved:.2f} s once)" if self.reused else ""
        return f"stage {name}: ran {self.ran} in {self.seconds:.2f} s{reused}"


class Ledger:
    """The stages of one run in the order in which they ended."""

    def __init__(self) -> None:
        self.ran: list[Ran] = []

    def add(self, ran: Ran) -> None:
        """Put down what a stage did."""
        if ran.stage not in STAGES:
            raise ValueError(f"no stage {ran.stage!r}; there are {', '.join(STAGES)}")
        self.ran.append(ran)

    def plain(self) -> list[dict[str, Any]]:
        """As plain data, for ``result.report`` and ``front.json``."""
        return [asdict(ran) for ran in self.ran]


def outcome(
    stage: str,
    detail: str,
    key: str,
    store: Store,
    ledger: Ledger,
    *,
    compute: Callable[[], T],
    encode: Callable[[T], Arrays],
    decode: Callable[[Arrays, float], T],
    reused: Callable[[], None] = lambda: None,
) -> T:
    """The outcome of a stage: from the store if its inputs are known there, else computed and stored.

    Args:
        stage: one of ``STAGES``.
        detail: which one.
        key: of the inputs (``key_of``).
        store: where outcomes are kept.
        ledger: is told which of the two it was, and the seconds.
        compute: does the work.
        encode: the outcome as plain arrays.
        decode: arrays and the seconds that they cost, back into the outcome.
        reused: called before a stored outcome is returned.
    """
    started = time.perf_counter()
    stored = store.score(key)
    if stored is not None:
        arrays, cost = stored
        found = decode(arrays, cost)
        reused()
        ledger.add(Ran(stage, detail, key, 0, 1, time.perf_counter() - started, cost))
        return found
    made = compute()
    seconds = time.perf_counter() - started
    store.save_score(key, f"{stage} {detail}".strip()[:80], encode(made), seconds)
    ledger.add(Ran(stage, detail, key, 1, 0, time.perf_counter() - started))
    return made


def as_array(document: Any) -> np.ndarray:
    """Plain data as an array of bytes (JSON, UTF-8)."""
    return np.frombuffer(json.dumps(document, separators=(",", ":")).encode(), dtype=np.uint8)


def from_array(array: np.ndarray) -> Any:
    """What ``as_array`` was given; tuples come back as lists."""
    return json.loads(array.tobytes().decode())
