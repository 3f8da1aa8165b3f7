"""View: a job or a run as arrays, from whichever source; figures and view models are pure functions of it.

Two sources make one: the columns that the API gives of a job, at any moment (``of_columns``), and the document
``front.json`` of a finished run (``of_front``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..service.front_document import Front, Site, Tie
from ..service.job_columns import ALPHABET
from ..space import Configuration
from .joint_front import JointFront, JointPoint

FloatArray = NDArray[np.float64]
SPLITS = ("validation", "holdout")


@dataclass(frozen=True, eq=False)
class PriceTable:
    """A price of every (site, format).

    Attributes:
        values: float64 [sites, formats], NaN where a format is not offered.
        base: the part that no site has.
        source: ``exact``, ``measured``, ``predicted``, ``roofline`` or ``model``.
        provenance: where it comes from, one line.
        additive: whether a configuration costs ``base`` and one entry a site; otherwise entries only stand in for that.
    """

    values: FloatArray
    base: float
    source: str
    provenance: str
    additive: bool = True


@dataclass(frozen=True, eq=False)
class View:
    """Everything that was measured of a job, and the tables behind it.

    Attributes:
        key: of the job or the run folder.
        name: shown to people.
        state: of the job, or ``finished``.
        model: name of the model.
        metric: of the quality.
        objectives: ``quality`` and prices.
        constraints: price -> largest value.
        sites: the layers.
        formats: names, coarse to fine: the columns of all tables.
        ties: sites that share a format.
        ids: of the points: ``uniform-w4``, a digest, or the id in ``front.json`` [points].
        digests: of their configurations [points].
        labels: id -> what people see, where that is another text.
        origins: who proposed them [points].
        baselines: format of a uniform configuration, else ``None`` [points].
        choices: int16 [points, sites], columns of ``formats``; -1 where a point's network has no such layer.
        quality: split -> float64 [points, 3]: value, low, high; NaN where not measured.
        predicted: float64 [points, 3]: predicted quality with its interval, NaN where there is none.
        prices: metric -> float64 [points, 3].
        pareto: bool [points]: on the measured front of the objectives.
        feasible: bool [points]: whether it meets the constraints.
        price_tables: metric -> table.
        sensitivities: proxy -> float64 [sites, formats].
        float_quality: split -> (value, low, high) of the float model.
        best: id of the point that the search calls best, if it has chosen.
        best_reason: why.
        proposed: candidates, measured or not.
        measured: how many are measured, where only the front and the uniform ones of those are points; 0: all are.
        failed: candidates that could not be measured.
        front: the document, where there is one: trust, search, stages, exports.
        architectures: value of every dimension of the network [points]; empty where all have the same network.
        networks: layers of the network [points]; empty where all have the same network.
    """

    key: str
    name: str
    state: str
    model: str
    metric: str
    objectives: tuple[str, ...]
    constraints: dict[str, float]
    sites: tuple[Site, ...]
    formats: tuple[str, ...]
    ties: tuple[Tie, ...]
    ids: tuple[str, ...]
    digests: tuple[str, ...]
    origins: tuple[str, ...]
    baselines: tuple[str | None, ...]
    choices: NDArray[np.int16]
    quality: dict[str, FloatArray]
    predicted: FloatArray
    prices: dict[str, FloatArray]
    pareto: NDArray[np.bool_]
    feasible: NDArray[np.bool_]
    price_tables: dict[str, PriceTable]
    sensitivities: dict[str, FloatArray]
    float_quality: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    best: str | None = None
    best_reason: str = ""
    proposed: int = 0
    measured: int = 0
    failed: int = 0
    front: Front | None = None
    labels: dict[str, str] = field(default_factory=dict)
    architectures: tuple[dict[str, Any], ...] = ()
    networks: tuple[tuple[Site, ...], ...] = ()

    def __len__(self) -> int:
        """Measured points."""
        return len(self.ids)

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of each point by its id."""
        return {key: row for row, key in enumerate(self.ids)}

    @property
    def price_metrics(self) -> list[str]:
        """Every price: objectives first."""
        first = [name for name in self.objectives if name in self.prices]
        return [*first, *(name for name in self.prices if name not in first)]

    @property
    def names(self) -> list[str]:
        """Names of the sites."""
        return [site.name for site in self.sites]

    def config(self, row: int) -> dict[str, str]:
        """Format of each site of a point."""
        columns = zip(self.sites, self.choices[row].tolist(), strict=True)
        return {site.name: self.formats[index] for site, index in columns if index >= 0}

    def own(self, row: int) -> View:
        """The view with the layers of a point's own network alone; this one where all have the same network."""
        if not self.networks:
            return self
        position = {name: index for index, name in enumerate(self.names)}
        sites = self.networks[row]
        return replace(self, sites=sites, choices=self.choices[:, [position[site.name] for site in sites]])

    def label(self, row: int) -> str:
        """``uniform w4`` for a baseline, else its name in ``front.json``, else its digest shortened to eight digits."""
        baseline = self.baselines[row]
        key = self.labels.get(self.ids[row], self.ids[row])
        return f"uniform {baseline}" if baseline else key if len(key) < 12 else key[:8]

    @cached_property
    def histogram(self) -> NDArray[np.int64]:
        """How many sites have each format: int64 [points, formats]."""
        found = np.zeros((len(self), len(self.formats)), dtype=np.int64)
        for column in range(len(self.formats)):
            found[:, column] = (self.choices == column).sum(axis=1)
        return found

    @property
    def uniform_rows(self) -> list[int]:
        """Rows of the uniform configurations, in the order of the formats."""
        order = {name: index for index, name in enumerate(self.formats)}
        found = [row for row, name in enumerate(self.baselines) if name is not None]
        return sorted(found, key=lambda row: order.get(self.baselines[row] or "", len(order)))


def of_columns(columns: Mapping[str, Any], front: Front | None = None) -> View:
    """The view of a job from the answer of ``GET /v1/jobs/ID/columns``.

    Args:
        columns: that answer.
        front: the job's ``front.json`` once it has written one: its best point, its surrogate, its trust report.

    Returns:
        The view. Predictions come from the document; before there is one they are NaN (a candidate's score is no
        quality).
    """
    space = columns["space"]
    points = len(columns["ids"])
    letters = np.full(128, -1, dtype=np.int16)
    letters[np.frombuffer(ALPHABET.encode(), dtype=np.uint8)] = np.arange(len(ALPHABET))
    joined = np.frombuffer("".join(columns["choices"]).encode(), dtype=np.uint8)
    choices = letters[joined].reshape(points, len(space["sites"]))
    ids = tuple(columns["ids"])
    best = None
    predicted, labels = np.full((points, 3), np.nan), {}
    if front is not None:
        rows = {tuple(choice): row for row, choice in enumerate(choices.tolist())}
        position = {name: index for index, name in enumerate(space["formats"])}
        for point in front.points:
            formats = tuple(position.get(point.config.get(site["name"], ""), -1) for site in space["sites"])
            row = rows.get(formats)
            if row is None:
                continue
            interval = front.predicted(point)
            predicted[row] = interval.value, interval.low, interval.high
            labels[ids[row]] = point.id
            if point.id == front.best:
                best = ids[row]
    return View(
        key=columns["job"],
        name=columns["name"],
        state=columns["state"],
        model=columns["model"],
        metric=columns["metric"],
        objectives=tuple(columns["objectives"]),
        constraints=dict(columns["constraints"]),
        sites=tuple(Site.model_validate(site) for site in space["sites"]),
        formats=tuple(space["formats"]),
        ties=tuple(Tie.model_validate(tie) for tie in space["ties"]),
        ids=ids,
        digests=tuple(columns["digests"]),
        labels=labels,
        origins=tuple(columns["origins"]),
        baselines=tuple(columns["baselines"]),
        choices=choices,
        quality={split: _three(columns["quality"][split]) for split in SPLITS},
        predicted=predicted,
        prices={name: _three(found) for name, found in columns["prices"].items()},
        pareto=np.array(columns["pareto"], dtype=bool),
        feasible=np.array(columns["feasible"], dtype=bool),
        price_tables={
            name: PriceTable(_array(t["values"]), t["base"], t["source"], t["provenance"], t["additive"])
            for name, t in columns["price_tables"].items()
        },
        sensitivities={name: _array(values) for name, values in columns["sensitivities"].items()},
        float_quality={split: _triple(found) for split, found in columns["float"].items()},
        best=best,
        best_reason=front.best_reason if front is not None else "",
        proposed=columns["proposed"],
        failed=columns["failed"],
        front=front,
    )


def of_front(key: str, front: Front) -> View:
    """The view of a finished run from its document.

    Args:
        key: of the run.
        front: its ``front.json``.

    Returns:
        The view. Of a joint search it has the layers of all networks and no tables: scores and prices of single layers
        are those of one network.
    """
    joint = isinstance(front, JointFront)
    sites = front.every_site if isinstance(front, JointFront) else front.model.sites
    names = {site.name for site in sites}
    position = {name: index for index, name in enumerate(front.model.formats)}
    points = [
        point for point in front.points if set(point.config) <= names and (joint or len(point.config) == len(names))
    ]
    metrics = front.price_metrics
    predicted = [front.predicted(point) for point in points]
    return View(
        key=key,
        name=front.name,
        state="finished",
        model=front.model.name,
        metric=front.metric,
        objectives=front.objectives,
        constraints=dict(front.constraints),
        sites=sites,
        formats=front.model.formats,
        ties=() if joint else front.model.ties,
        ids=tuple(point.id for point in points),
        digests=tuple(Configuration.from_dict(point.config).digest for point in points),
        origins=tuple(point.origin for point in points),
        baselines=tuple(point.baseline for point in points),
        choices=np.array(
            [[position.get(point.config.get(site.name, ""), -1) for site in sites] for point in points], dtype=np.int16
        ).reshape(len(points), len(sites)),
        quality={
            split: np.array(
                [
                    (found.value, found.low, found.high) if (found := getattr(point.measured, split)) else (np.nan,) * 3
                    for point in points
                ],
                dtype=np.float64,
            ).reshape(len(points), 3)
            for split in SPLITS
        },
        predicted=np.array([(p.value, p.low, p.high) for p in predicted], dtype=np.float64).reshape(len(points), 3),
        prices={
            name: np.array(
                [(p.value, p.low, p.high) if (p := point.prices.get(name)) else (np.nan,) * 3 for point in points],
                dtype=np.float64,
            ).reshape(len(points), 3)
            for name in metrics
        },
        pareto=np.array([point.pareto for point in points], dtype=bool),
        feasible=np.array([point.feasible for point in points], dtype=bool),
        price_tables={
            name: PriceTable(_array(table.values), table.base, table.source, table.provenance, table.additive)
            for name, table in front.price_tables.items()
            if table.values and not joint
        },
        sensitivities={} if joint else {name: _array(found.values) for name, found in front.sensitivity.items()},
        float_quality={
            split: (found.value, found.low, found.high)
            for split in SPLITS
            if (found := getattr(front.float_, split)) is not None
        },
        best=front.best,
        best_reason=front.best_reason,
        proposed=len(points),
        failed=len(front.failed),
        front=front,
        architectures=tuple(point.architecture for point in points if isinstance(point, JointPoint)),
        networks=tuple(front.sites_of(point) for point in points if isinstance(point, JointPoint))
        if isinstance(front, JointFront)
        else (),
    )


def _three(found: Mapping[str, Sequence[float | None]]) -> FloatArray:
    return np.column_stack([_array(found[name]) for name in ("value", "low", "high")])


def _triple(found: Mapping[str, float | None]) -> tuple[float, float, float]:
    value, low, high = (np.nan if (x := found.get(name)) is None else float(x) for name in ("value", "low", "high"))
    return value, low, high


def _array(values: Any) -> FloatArray:
    """Nested lists with ``None`` for NaN as float64."""
    return np.array(values, dtype=np.float64)
