"""What the report and the dashboard show of a run: ``front.json`` as typed values, and the tables made of it.

Everything here is a pure function of the document; :func:`read_front` is the only one that touches a file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..errors import InvalidInput, UnknownFormat
from ..formats import Format

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1

Real = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number; ``null`` (JSON has no NaN) reads as NaN."""

QUALITY_LABELS = {
    "kl": ("KL divergence", "nats"),
    "loss": ("loss", ""),
    "error": ("error", "fraction of samples"),
    "perplexity": ("perplexity", ""),
    "relative_error": ("relative error", ""),
}
PRICE_LABELS = {
    "latency_ms": ("latency", "ms"),
    "size_mb": ("size", "MB"),
    "energy_mj": ("energy", "mJ"),
    "memory_mb": ("memory", "MB"),
    "avg_bits": ("average weight bits", "bits"),
    "effective_bits": ("effective weight bits", "bits"),
    "macs": ("multiply-accumulates", "MAC"),
    "bops": ("bit operations", "BOP"),
}


class _Part(BaseModel):
    """A part of the document: frozen; keys of later versions are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Interval(_Part):
    """A number and its interval; without one, ``low`` and ``high`` are the number itself."""

    value: Real
    low: Real = math.nan
    high: Real = math.nan

    @property
    def below(self) -> float:
        """Length of the lower error bar, at least 0."""
        return max(0.0, self.value - self.low) if math.isfinite(self.low) else 0.0

    @property
    def above(self) -> float:
        """Length of the upper error bar, at least 0."""
        return max(0.0, self.high - self.value) if math.isfinite(self.high) else 0.0

    def text(self, unit: str = "") -> str:
        """Such as ``0.0123 [0.011, 0.0135] nats``; the interval is left out where it has no width."""
        if not math.isfinite(self.value):
            return "not finite"
        interval = f" [{number(self.low)}, {number(self.high)}]" if self.below or self.above else ""
        return f"{number(self.value)}{interval}" + (f" {unit}" if unit else "")


class Measured(Interval):
    """A quality that was really evaluated."""

    samples: int = 0
    split: str = ""


class Priced(Interval):
    """A price; ``source`` is ``measured``, ``roofline`` or ``exact``."""

    source: str = ""


class Splits(_Part):
    """The same quantity on validation and on held-out data."""

    validation: Measured | None = None
    holdout: Measured | None = None


class Site(_Part):
    """A layer whose format is chosen."""

    name: str
    kind: str = ""
    weight_shape: tuple[int, ...] = ()
    elements: int = 0
    macs: float = 0
    formats: tuple[str, ...] = ()


class Tie(_Part):
    """Sites that share a format."""

    sites: tuple[str, ...]
    reason: str = ""


class Model(_Part):
    """The search space of the model."""

    name: str = ""
    sites: tuple[Site, ...] = ()
    formats: tuple[str, ...] = ()
    ties: tuple[Tie, ...] = ()
    skipped: dict[str, str] = Field(default_factory=dict)
    unused: tuple[str, ...] = ()


class Point(_Part):
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
        measured = self.measured.holdout if split == "holdout" else self.measured.validation
        return math.nan if measured is None else measured.value


class Sensitivity(_Part):
    """Scores of one proxy: [sites, formats], ``None`` where a format is not offered."""

    values: tuple[tuple[float | None, ...], ...]
    seconds: Real = math.nan


class PriceTable(_Part):
    """Where the prices of one metric come from."""

    source: str = ""
    provenance: str = ""


class ProxyScore(_Part):
    """How well a proxy ordered what was measured."""

    spearman: float | None = None
    points: int = 0


class PredictedPoint(_Part):
    """A point of the exact front of the additive model."""

    cost: dict[str, Real]
    loss: Real


class Surrogate(_Part):
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


class Export(_Part):
    """An artifact that was written and loaded back."""

    target: str
    path: str
    relative_error: Real = math.nan
    bound: Real = math.nan
    bytes_on_disk: int | None = None


class Front(_Part):
    """The document ``front.json``, version 1."""

    schema_version: int
    name: str
    created: str = ""
    bitfront: str = ""
    job: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)
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
    proxies: dict[str, ProxyScore] = Field(default_factory=dict)
    exports: tuple[Export, ...] = ()
    surrogate: Surrogate | None = None
    seconds: dict[str, Real] = Field(default_factory=dict)
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
        value = point.predicted.get("quality", math.nan)
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


def number(value: float) -> str:
    """Four significant digits, thousands separated: ``0.01234``, ``12,346``."""
    if not math.isfinite(value):
        return "—"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def count(amount: float, noun: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{amount:.0f} {noun}" + ("" if amount == 1 else "s")


def limit_text(metric: str, value: float) -> str:
    """A constraint with its unit, such as ``size ≤ 3 MB``."""
    return f"{label(metric).split(' (')[0]} ≤ {number(value)} {unit(metric)}".rstrip()


def unit(metric: str) -> str:
    """The unit of a price or quality metric, ``""`` if it has none."""
    return (PRICE_LABELS.get(metric) or QUALITY_LABELS.get(metric) or ("", ""))[1]


def label(metric: str) -> str:
    """The name of a metric with its unit, such as ``latency (ms)``; unknown ones keep their own name."""
    known = PRICE_LABELS.get(metric) or QUALITY_LABELS.get(metric)
    if known is None:
        return metric
    return f"{known[0]} ({known[1]})" if known[1] and known[1] not in known[0] else known[0]


def price_label(front: Front, metric: str) -> str:
    """:func:`label`, with the source where it is a model and no measurement: ``latency (ms), roofline``."""
    modelled = [source for source in front.sources(metric) if source not in ("measured", "exact")]
    return ", ".join([label(metric), *modelled])


def weight_bits(format_name: str) -> int | None:
    """Nominal weight bits of a format; ``None`` for a name that this version does not know."""
    try:
        return Format.parse(format_name).weight_bits
    except UnknownFormat:
        return None


def quantizes_activations(format_name: str) -> bool:
    """Whether a format maps activations to integers; ``False`` for a name that this version does not know."""
    return weight_bits(format_name) is not None and Format.parse(format_name).quantizes_activations


def share_text(share: float) -> str:
    """A share as whole percent, ``< 1 %`` for a little."""
    return "< 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def format_order(front: Front, points: Iterable[Point] = ()) -> list[str]:
    """The formats of the model coarse to fine, then any that only occur in the points."""
    used = (name for point in points for name in point.config.values())
    return list(dict.fromkeys([*front.model.formats, *used]))


def histogram(front: Front, point: Point) -> pd.DataFrame:
    """How often each format was chosen.

    Args:
        front: the front, for the sizes of the layers.
        point: the point.

    Returns:
        Index ``format`` (coarse to fine), columns ``layers`` and ``share`` (of the weight elements, 0 to 1).
    """
    import pandas as pd

    elements = {site.name: site.elements for site in front.model.sites}
    layers = dict.fromkeys(format_order(front, [point]), 0)
    weights = dict.fromkeys(layers, 0)
    for site, chosen in point.config.items():
        layers[chosen] += 1
        weights[chosen] += elements.get(site, 0)
    total = sum(weights.values()) or 1
    return pd.DataFrame(
        {"layers": list(layers.values()), "share": [part / total for part in weights.values()]},
        index=pd.Index(list(layers), name="format"),
    )


def points_table(front: Front) -> pd.DataFrame:
    """Every point as one flat row: identity, qualities with intervals, prices with intervals, a column a site.

    The columns of the sites are called ``format:NAME``.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for point in front.points:
        row: dict[str, Any] = {
            "id": point.id,
            "origin": point.origin,
            "baseline": point.baseline,
            "pareto": point.pareto,
            "feasible": point.feasible,
            "best": point.id == front.best,
        }
        for name, value in point.predicted.items():
            row[f"predicted_{name}"] = value
        for split in ("validation", "holdout"):
            measured: Measured | None = getattr(point.measured, split)
            for part in ("value", "low", "high"):
                row[f"{front.metric}_{split}_{part}"] = math.nan if measured is None else getattr(measured, part)
        for metric, price in point.prices.items():
            row |= {metric: price.value, f"{metric}_low": price.low, f"{metric}_high": price.high}
            row[f"{metric}_source"] = price.source
        row |= {f"format:{site}": chosen for site, chosen in point.config.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def comparison(front: Front, points: Sequence[Point]) -> pd.DataFrame:
    """Points side by side as text: qualities and prices with intervals and sources.

    Args:
        front: the front.
        points: the rows; repeated ones are shown once.

    Returns:
        Index: the labels of the points; columns named with units.
    """
    import pandas as pd

    rows: dict[str, dict[str, str]] = {}
    for point in points:
        row = {
            f"{label(front.metric)}, {title}": "not measured" if measured is None else measured.text()
            for title, measured in (("held-out", point.measured.holdout), ("validation", point.measured.validation))
        }
        for metric in front.price_metrics:
            price = point.prices.get(metric)
            row[price_label(front, metric)] = "—" if price is None else price.text()
        counts = histogram(front, point)["layers"]
        row["layers per format"] = ", ".join(f"{layers} × {name}" for name, layers in counts.items() if layers)
        row["constraints"] = "met" if point.feasible else "missed"
        rows[point.label if point.id != front.best else f"best: {point.label}"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def difference(front: Front, one: Point, other: Point) -> pd.DataFrame:
    """The layers in which two points differ: columns ``layer``, ``elements``, and one for each point."""
    import pandas as pd

    rows = [
        (site.name, site.elements, one.config.get(site.name), other.config.get(site.name)) for site in front.model.sites
    ]
    changed = [row for row in rows if row[2] != row[3]]
    return pd.DataFrame(changed, columns=pd.Index(["layer", "elements", one.label, other.label]))


def lower_front(xs: Sequence[float], ys: Sequence[float]) -> list[int]:
    """Indices of the non-dominated (x, y), both minimized, by increasing x; NaN and infinity never qualify."""
    finite = [index for index in range(len(xs)) if math.isfinite(xs[index]) and math.isfinite(ys[index])]
    kept: list[int] = []
    for index in sorted(finite, key=lambda i: (xs[i], ys[i])):
        if not kept or ys[index] < ys[kept[-1]]:
            kept.append(index)
    return kept


def rank_correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Spearman's rank correlation (average ranks for ties); ``None`` for fewer than 3 pairs or a constant side."""
    import pandas as pd

    pairs = pd.DataFrame({"x": xs, "y": ys}).dropna().rank()
    if len(pairs) < 3 or pairs["x"].nunique() < 2 or pairs["y"].nunique() < 2:
        return None
    return float(pairs["x"].corr(pairs["y"]))
