"""Two runs of one job beside each other: what they ran on, and whether they measured and found the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..measurement import Measurement
from ..search.knowledge import Knowledge
from ..search.problem import FLOAT
from ..search.resolve import result_of
from ..space import Configuration
from ..store import Store
from ..task import Split

Verdict = Literal["same to the bit", "within intervals", "differs"]
_ORDER: tuple[Verdict, ...] = ("same to the bit", "within intervals", "differs")
Measured = Mapping[tuple[str, Split], Measurement]


@dataclass(frozen=True)
class Change:
    """Something of the record that is no longer as it was; ``None`` where it was or is not recorded."""

    what: str
    then: Any
    now: Any


@dataclass(frozen=True)
class Pair:
    """One configuration on one split in both runs."""

    configuration: str
    split: str
    then: float
    now: float
    verdict: Verdict


@dataclass(frozen=True)
class Found:
    """What one run found.

    Attributes:
        measured: by (configuration digest, split); candidates of this run only, and the float model.
        front: digests of the measured front; empty where nothing was validated on held-out data.
        best: digest of the configuration to ship, if there is one.
    """

    measured: dict[tuple[str, Split], Measurement] = field(default_factory=dict)
    front: frozenset[str] = frozenset()
    best: str | None = None


def found_of(store: Store, job_id: str, knowledge: Knowledge) -> Found:
    """What a run found, from its store."""
    candidates = {row.configuration: row for row in store.candidates(job_id)}
    wanted = {*candidates, FLOAT.digest}
    measured = {
        (digest, split): measurement
        for split, context in knowledge.contexts.items()
        for digest, measurement in store.evaluations(context, split).items()
        if digest in wanted
    }
    origins = {
        Configuration.from_dict(row.formats): row.origin for digest, row in candidates.items() if digest != FLOAT.digest
    }
    if not any((found.digest, "validation") in measured for found in origins):
        return Found(measured)
    result = result_of(knowledge, origins, measured, knowledge.constraints)
    if result is None:
        return Found(measured)
    front = frozenset(point.configuration.digest for point in result.points if point.pareto)
    feasible = any(point.feasible for point in result.points)
    return Found(measured, front, result.choose().point.configuration.digest if feasible else None)


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Change, ...]:
    """What differs between two records, by the path of its key; keys under which things are stored do not count."""
    one, other = dict(_flat(then)), dict(_flat(now))
    names = sorted({*one, *other} - {"search.key", "search.knowledge", "schema_version"})
    return tuple(
        Change(name, one.get(name), other.get(name))
        for name in names
        if one.get(name) != other.get(name) and not name.endswith(".provenance")
    )


def compare(then: Found, now: Found, tolerance: float = 0.0) -> tuple[list[Pair], Verdict]:
    """Measurements that both runs made, and what they come to together with front and best.

    Two measurements are the same to the bit if all their samples are; within intervals if one lies in the 95 % interval
    of the other, or they differ by no more than the tolerance. The runs are as good as their worst pair; besides, to
    the bit asks for the same candidates, front and best, and within intervals for the same best or one whose quality
    in the run before lies in the interval of the best of then.

    Args:
        then: the first run.
        now: the second.
        tolerance: relative difference that does not count.

    Returns:
        The pairs, the worst first, and the verdict.
    """
    common = sorted(then.measured.keys() & now.measured.keys())
    pairs = [_pair(key, then.measured[key], now.measured[key], tolerance) for key in common]
    pairs.sort(key=lambda each: -_ORDER.index(each.verdict))
    if not pairs:
        return [], "differs"
    worst = pairs[0].verdict
    exact = then.measured.keys() == now.measured.keys() and (then.front, then.best) == (now.front, now.best)
    if worst == "same to the bit" and not exact:
        worst = "within intervals"
    if worst == "within intervals" and not _as_good(then, now, tolerance):
        worst = "differs"
    return pairs, worst


@dataclass(frozen=True)
class Reproduction:
    """A job run again, beside the first time.

    Attributes:
        job: its id.
        changes: of the record: versions, hardware, inputs, prices.
        pairs: measurements of both runs, the worst first.
        then: what the first run found.
        now: what the second found.
        verdict: of all together.
        out: folder of the second run.
    """

    job: str
    changes: tuple[Change, ...]
    pairs: tuple[Pair, ...]
    then: Found
    now: Found
    verdict: Verdict
    out: str

    @property
    def reproduced(self) -> bool:
        """Whether the second run found what the first did."""
        return self.verdict != "differs"

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        counts = Counter(pair.verdict for pair in self.pairs)
        return {
            "job": self.job,
            "verdict": self.verdict,
            "reproduced": self.reproduced,
            "changes": [asdict(each) for each in self.changes],
            "measurements": {
                **{name: counts[name] for name in _ORDER},
                "only_then": len(self.then.measured.keys() - self.now.measured.keys()),
                "only_now": len(self.now.measured.keys() - self.then.measured.keys()),
            },
            "pairs": [asdict(each) for each in self.pairs],
            "front": {
                "then": len(self.then.front),
                "now": len(self.now.front),
                "common": len(self.then.front & self.now.front),
            },
            "best": {"then": self.then.best, "now": self.now.best, "same": self.then.best == self.now.best},
            "out": self.out,
        }

    def told(self) -> list[str]:
        """In lines for a terminal."""
        found = self.plain()
        counts, front, best = found["measurements"], found["front"], found["best"]
        alone = f"{counts['only_then']} only then, {counts['only_now']} only now"
        each = ", ".join(f"{counts[name]} {name}" for name in _ORDER)
        lines = [f"changed       {one.what}: {one.then} then, {one.now} now" for one in self.changes]
        lines += [f"measurements  {each}; {alone}"]
        lines += [
            f"              {pair.configuration} {pair.split}: {pair.then:.6g} then, {pair.now:.6g} now"
            for pair in self.pairs[:10]
            if pair.verdict == "differs"
        ]
        lines += [f"front         {front['common']} points in common of {front['then']} then and {front['now']} now"]
        lines += [f"best          {best['then']} then, {best['now']} now" + (", the same" if best["same"] else "")]
        return [*lines, f"verdict       {self.verdict}"]


def _pair(key: tuple[str, Split], then: Measurement, now: Measurement, tolerance: float) -> Pair:
    if (then.metric, then.value, then.values) == (now.metric, now.value, now.values):
        verdict: Verdict = "same to the bit"
    else:
        verdict = "within intervals" if _close(then, now, tolerance) else "differs"
    return Pair(*key, then.value, now.value, verdict)


def _close(then: Measurement, now: Measurement, tolerance: float) -> bool:
    if then.metric != now.metric:
        return False
    if abs(then.value - now.value) <= tolerance * abs(then.value):
        return True
    return then.low <= now.value <= then.high or now.low <= then.value <= now.high


def _as_good(then: Found, now: Found, tolerance: float) -> bool:
    """Whether the best of now is that of then, or was measured as good then."""
    if then.best == now.best:
        return True
    if then.best is None or now.best is None:
        return False
    for split in ("holdout", "validation"):
        one, other = then.measured.get((then.best, split)), then.measured.get((now.best, split))
        if one is not None and other is not None:
            return other.value <= one.value or _close(one, other, tolerance)
    return False


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in content.items():
        path = f"{prefix}{name}"
        found += _flat(value, f"{path}.") if isinstance(value, Mapping) else [(path, value)]
    return found
