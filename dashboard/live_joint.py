"""The view of a job that searches architectures, before it has written its ``front.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import Conflict
from ..service.front_document import Site
from ..space import Configuration
from .view import SPLITS, FloatArray, View


def of_live_joint(found: Mapping[str, Any], name: str, model: str) -> View:
    """The view of the answer of ``GET /v1/jobs/ID/front?networks=true``.

    Args:
        found: that answer.
        name: of the job.
        model: what it searches.

    Returns:
        The view of its front and its uniform configurations; dominated genomes are only counted. There are no
        predictions and no tables of single layers.

    Raises:
        Conflict: no quantized network is measured yet.
    """
    points = found["points"]
    if not points:
        what = "no quantized network" if found["measured"] else "nothing"
        raise Conflict(
            f"job {found['job']} is {found['state']}: {what} has been measured yet ({found['proposed']} proposed)"
        )
    networks = {
        digest: tuple(Site.model_validate(site) for site in sites) for digest, sites in found["networks"].items()
    }
    own = [networks[point["architecture_digest"]] for point in points]
    sites = _every_site([mine for mine, point in zip(own, points, strict=True) if point["baseline"]] + own)
    position = {each: index for index, each in enumerate(found["formats"])}
    empty = np.full((len(points), 3), np.nan)
    return View(
        key=found["job"],
        name=name,
        state=found["state"],
        model=model,
        metric=found["metric"],
        objectives=tuple(found["objectives"]),
        constraints=dict(found["constraints"]),
        sites=sites,
        formats=tuple(found["formats"]),
        ties=(),
        ids=tuple(point["id"] for point in points),
        digests=tuple(Configuration.from_dict(point["config"]).digest for point in points),
        origins=tuple(point["origin"] for point in points),
        baselines=tuple(point["baseline"] for point in points),
        choices=np.array(
            [[position.get(point["config"].get(site.name, ""), -1) for site in sites] for point in points],
            dtype=np.int16,
        ),
        quality={split: _intervals([point["measured"][split] for point in points]) for split in SPLITS},
        predicted=empty,
        prices={metric: _intervals([point["prices"][metric] for point in points]) for metric in points[0]["prices"]},
        pareto=np.array([point["pareto"] for point in points], dtype=bool),
        feasible=np.array([point["feasible"] for point in points], dtype=bool),
        price_tables={},
        sensitivities={},
        float_quality={split: (one["value"], one["low"], one["high"]) for split, one in found["float"].items()},
        proposed=found["proposed"],
        measured=found["measured"],
        failed=found["failed"],
        architectures=tuple(point["architecture"] for point in points),
        networks=tuple(own),
    )


def _every_site(networks: Sequence[Sequence[Site]]) -> tuple[Site, ...]:
    """The layers of the first network, then those that only others have, by name."""
    found: dict[str, Site] = {}
    for sites in networks:
        for site in sites:
            found.setdefault(site.name, site)
    return tuple(found.values())


def _intervals(found: Sequence[Mapping[str, Any] | None]) -> FloatArray:
    """Value, low, high [points, 3]; NaN where there is none."""
    rows = [[np.nan] * 3 if one is None else [one["value"], one["low"], one["high"]] for one in found]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 3)
