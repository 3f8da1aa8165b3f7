"""``front.json`` as typed values: what the report and the dashboard know of a run.

Everything here is a pure function of the document; :func:`read_front` is the only one that touches a file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from ..errors import InvalidInput
from .document_parts import Interval, Part, Real
from .search_record import AgainstUniform, RecipeRecord, SearchRecord, Stage

SCHEMA_VERSION = 1


class Measured(Interval):
    """A quality that was really evaluated."""

    samples: int = 0
    split: str = ""


class Priced(Interval):
    """A price; ``source`` is ``measured``, ``roofline`` or ``exact``."""

    source: str = ""


class Splits(Part):
    """The same quantity on validation and on held-out data."""

    validation: Measured | None = None
    holdout: Measured | None = None


class Site(Part):
    """A layer whose format is chosen."""

    name: str
    kind: str = ""
    weight_shape: tuple[int, ...] = ()
    elements: int = 0
    macs: float = 0
    formats: tuple[str, ...] = ()


class Tie(Part):
    """Sites that share a format."""

    sites: tuple[str, ...]
    reason: str = ""


class Model(Part):
    """The search space of the model."""

    name: str = ""
    sites: tuple[Site, ...] = ()
    formats: tuple[str, ...] = ()
    ties: tuple[Tie, ...] = ()
    skipped: dict[str, str] = Field(default_factory=dict)
    unused: tuple[str, ...] = ()


class Point(Part):
    """One evaluated configuration."""

    id: str
    config: dict[str, str]
    predicted: dict[str, Real] = Field(default_factory=dict)
    measured: Splits = Splits()
    prices: dict[str, Priced] = Field(default_factory=dict)
    baseline: str | None = None
    origin: str = ""
    pareto: bool = False
    feasible: bool = True

    @property
    def label(self) -> str:
        """``uniform w4`` for a baseline, otherwise the id."""
        return f"uniform {self.baseline}" if self.baseline else self.id

    def price(self, metric: str) -> float:
        """The price, NaN where there is none."""
        return self.prices[metric].value if metric in self.prices else math.nan

    def quality(self, split: str = "validation") -> float:
        """The measured quality on ``validation`` or ``holdout``, NaN where it was not measured."""
        return self.quality_interval(split).value

    def quality_interval(self, split: str = "validation") -> Interval:
        """:meth:`quality` with its interval."""
        measured = self.measured.holdout if split == "holdout" else self.measured.validation
        return measured or Interval(value=math.nan)

    @property
    def predicted_quality(self) -> float:
        """The predicted quality, NaN where nothing was predicted."""
        return self.predicted.get("quality", math.nan)


class Sensitivity(Part):
    """Scores of one proxy: [sites, formats], ``None`` where a format is not offered."""

    values: tuple[tuple[float | None, ...], ...]
    seconds: Real = math.nan


class PriceTable(Part):
    """The prices of one metric: [sites, formats], the constant part, where they come from.

    ``additive``: whether a configuration costs the constant part and one entry a site.
    """

    values: tuple[tuple[float | None, ...], ...] = ()
    base: Real = 0.0
    source: str = ""
    provenance: str = ""
    additive: bool = True


class ProxyScore(Part):
    """How well a proxy ordered what was measured."""

    spearman: float | None = None
    points: int = 0


class CalibratedMap(Part):
    """How far predictions are from measurements after a map was fitted to the others."""

    spread: Real = math.nan
    factor: Real = math.nan
    points: int = 0


class TrustRow(Part):
    """How well a proxy or a baseline foretold what was measured; ``None`` where nothing can be said."""

    baseline: bool = False
    spearman: Interval | None = None
    kendall: Interval | None = None
    spearman_fixed: Interval | None = None
    kendall_fixed: Interval | None = None
    regret: float | None = None
    regret_fixed: float | None = None
    power: CalibratedMap | None = None
    monotone: CalibratedMap | None = None
    seconds: Real = math.nan


class ProxyChoice(Part):
    """What ``proxies: auto`` decided."""

    proxy: str
    weights: dict[str, Real] = Field(default_factory=dict)
    reason: str = ""


class Trust(Part):
    """The trust report of a run or a bench."""

    rows: dict[str, TrustRow]
    points: int = 0
    pairs: int = 0
    tolerance: Real = math.nan
    top: int = 0
    strata: int = 0
    choice: ProxyChoice | None = None


class PredictedPoint(Part):
    """A point of the exact front of the additive model."""

    cost: dict[str, Real]
    loss: Real


class Surrogate(Part):
    """The map from scores to quality that the predictions went through; ``spread`` is of log (quality - offset)."""

    spread: Real = math.nan
    offset: Real = 0.0
    points: int = 0

    def interval(self, predicted: float) -> Interval:
        """A prediction with one standard deviation to both sides."""
        if not math.isfinite(self.spread):
            return Interval(value=predicted)
        above, factor = predicted - self.offset, math.exp(self.spread)
        return Interval(value=predicted, low=self.offset + above / factor, high=self.offset + above * factor)


class Export(Part):
    """An artifact that was written and loaded back."""

    target: str
    path: str
    relative_error: Real = math.nan
    bound: Real = math.nan
    bytes_on_disk: int | None = None
    tensor_bytes: int | None = None
    predicted_bytes: int | None = None


class Front(Part):
    """The document ``front.json``, version 1."""

    schema_version: int
    name: str
    created: str = ""
    bitfront: str = ""
    job: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)
    record: dict[str, Any] = Field(default_factory=dict)
    model: Model
    metric: str
    objectives: tuple[str, ...] = ()
    constraints: dict[str, float] = Field(default_factory=dict)
    float_: Splits = Field(default=Splits(), alias="float")
    sensitivity: dict[str, Sensitivity] = Field(default_factory=dict)
    price_tables: dict[str, PriceTable] = Field(default_factory=dict)
    points: tuple[Point, ...]
    predicted_front: tuple[PredictedPoint, ...] = ()
    best: str | None = None
    best_reason: str = ""
    best_against_uniform: AgainstUniform | None = None
    proxies: dict[str, ProxyScore] = Field(default_factory=dict)
    trust: Trust | None = None
    exports: tuple[Export, ...] = ()
    surrogate: Surrogate | None = None
    seconds: dict[str, Real] = Field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    search: SearchRecord | None = None
    recipe: RecipeRecord | None = None
    failed: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @staticmethod
    def parse(document: Mapping[str, Any]) -> Front:
        """Check a document.

        Args:
            document: the parsed JSON.

        Returns:
            Its typed form.

        Raises:
            InvalidInput: another schema version, or a part is missing or of the wrong type; the message names it.
        """
        version = document.get("schema_version") if isinstance(document, Mapping) else None
        if version != SCHEMA_VERSION:
            raise InvalidInput(f"schema_version is {version!r}, expected {SCHEMA_VERSION}; write the front again")
        try:
            return Front.model_validate(document)
        except ValidationError as cause:
            first = cause.errors()[0]
            place = ".".join(str(step) for step in first["loc"])
            raise InvalidInput(f"front document, at {place}: {first['msg']}") from None

    @cached_property
    def by_id(self) -> dict[str, Point]:
        """The points by their id."""
        return {point.id: point for point in self.points}

    @property
    def best_point(self) -> Point | None:
        """The point that is called best, if there is one."""
        return self.by_id.get(self.best) if self.best is not None else None

    def predicted(self, point: Point) -> Interval:
        """The predicted quality of a point with its interval; NaN if nothing was predicted."""
        value = point.predicted_quality
        return self.surrogate.interval(value) if self.surrogate else Interval(value=value)

    @property
    def baselines(self) -> list[Point]:
        """The uniform points, in the order of the model's formats."""
        order = {name: index for index, name in enumerate(self.model.formats)}
        found = [point for point in self.points if point.baseline]
        return sorted(found, key=lambda point: order.get(point.baseline or "", len(order)))

    @property
    def price_metrics(self) -> list[str]:
        """Every price that some point has: objectives first, then in order of appearance."""
        seen = dict.fromkeys(metric for point in self.points for metric in point.prices)
        return [
            *(metric for metric in self.objectives if metric in seen),
            *(m for m in seen if m not in self.objectives),
        ]

    def sources(self, metric: str) -> list[str]:
        """Where the prices of a metric come from (``measured``, ``roofline``, ``exact``)."""
        found = {point.prices[metric].source for point in self.points if metric in point.prices}
        return sorted(source for source in found if source)


def read_front(path: str | Path, limit_bytes: int = 500_000_000) -> Front:
    """Read and check a ``front.json``.

    Args:
        path: the file.
        limit_bytes: larger files are refused.

    Returns:
        The front.

    Raises:
        InvalidInput: the file is missing, too large, not JSON (half-written), or not a front document.
    """
    source = Path(path)
    try:
        size = source.stat().st_size
        if size > limit_bytes:
            raise InvalidInput(f"{source.name} has {size} bytes, more than the {limit_bytes} that are read")
        document = json.loads(source.read_text(encoding="utf-8"))
    except OSError as cause:
        raise InvalidInput(f"{source.name} cannot be read: {cause.strerror or cause}") from None
    except (ValueError, RecursionError) as cause:
        if isinstance(cause, InvalidInput):
            raise
        raise InvalidInput(f"{source.name} is not JSON (half-written?): {cause}") from None
    return Front.parse(document)
