"""Rehearsal: every source device plays the new one, to learn amplitudes and how far intervals must reach.

A rehearsal has to be as hard as the real thing: a device whose twin is among the sources is foretold far better than
one without. So while a source plays the new device, all sources are hidden that resemble it more than any source
resembles the real new device.

Intervals: with z = |log t - mean| / deviation of held-out rows of all rehearsals, the half-width is the coverage
quantile of z times the deviation (split conformal with a normalized score, Papadopoulos et al. 2008; exact coverage
needs exchangeable devices, so it is tested and reported, not promised).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..devices import Device
from ..gemm import Gemms
from ..law import Floats
from .evidence import UNTAUGHT, Amplitudes
from .prior import Prior
from .process import fitted
from .source import Sources, similarity

#: Measurements of a rehearsal that learns amplitudes, and at most of one that calibrates.
_TAUGHT_BY = 100
#: Held-out rows of a rehearsal.
_HELD_OUT = 300
#: Standard deviation added to the belief about an amplitude: a new device is no draw from a handful.
_DOUBT = 0.3


@dataclass(frozen=True)
class Rehearsal:
    """What the sources teach about a new device.

    Attributes:
        belief: about the amplitudes.
        plays: device that was played -> the sources that it had.
        share: weight of each play: half equal, half by similarity to the new device.
    """

    belief: Amplitudes
    plays: dict[str, Sources]
    share: Floats

    @staticmethod
    def of(sources: Sources, device: Device, seed: int = 0) -> Rehearsal:
        """Learn the belief; with fewer than two devices among the sources there is nothing to learn from.

        What was learned is kept in ``sources.taught``.
        """
        key = ("belief", device.name, device.bandwidth_gb_s, *sorted(device.peak_tera.items()), seed)
        if key not in sources.taught:
            sources.taught[key] = Rehearsal._learned(sources, device, seed)
        known: Rehearsal = sources.taught[key]
        return known

    @staticmethod
    def _learned(sources: Sources, device: Device, seed: int) -> Rehearsal:
        stages = _stages(sources, device)
        if not stages:
            return Rehearsal(UNTAUGHT, {}, np.zeros(0))
        found, likeness = [], []
        for owner, stage in stages.items():
            sheet = _sheet(sources, owner)
            gemms, log_ms = _rows(sources, owner, _TAUGHT_BY, seed)[0]
            prior = Prior.of(stage, sheet, _names(gemms))
            found.append(fitted(prior, gemms, log_ms, UNTAUGHT).amplitudes.log)
            likeness.append(similarity(device, sheet))
        share = 0.5 * np.array(likeness) / sum(likeness) + 0.5 / len(likeness)
        logs = np.array(found)
        mean = share @ logs
        spread = np.sqrt(share @ (logs - mean) ** 2) + _DOUBT
        return Rehearsal(Amplitudes(mean, spread), stages, share)

    def reach(self, sources: Sources, count: int, coverage: float, seed: int = 0) -> float:
        """Half-width of an interval in deviations after ``count`` measurements (at most ``_TAUGHT_BY`` rehearsed).

        Without rehearsals it is the quantile of the normal distribution.
        """
        key = ("reach", id(self), min(count, _TAUGHT_BY), coverage, seed)
        if key not in sources.taught:
            sources.taught[key] = self._reach(sources, min(count, _TAUGHT_BY), coverage, seed)
        return float(sources.taught[key])

    def _reach(self, sources: Sources, count: int, coverage: float, seed: int) -> float:
        if not self.plays:
            from scipy.stats import norm

            return float(norm.ppf(0.5 + coverage / 2))
        scores, weights = [], []
        for (owner, stage), share in zip(self.plays.items(), self.share, strict=True):
            (gemms, log_ms), (asked, truth) = _rows(sources, owner, count, seed + 1)
            prior = Prior.of(stage, _sheet(sources, owner), _names(gemms, asked))
            mean, deviation = fitted(prior, gemms, log_ms, self.belief).posterior(asked)
            scores.append(np.abs(truth - mean) / deviation)
            weights.append(np.full(len(truth), share / len(truth)))
        score, weight = np.concatenate(scores), np.concatenate(weights)
        order = np.argsort(score)
        below = np.cumsum(weight[order])
        return float(score[order][min(int(np.searchsorted(below, coverage)), len(score) - 1)])


def _stages(sources: Sources, device: Device) -> dict[str, Sources]:
    """Device that is played -> the sources that it may see."""
    owners = sorted({sheet.name for table, sheet in sources.sheets.items() if table in sources.tables} - {device.name})
    hardest = max((similarity(device, _sheet(sources, owner)) for owner in owners), default=0.0)
    stages = {}
    for owner in owners:
        sheet = _sheet(sources, owner)
        others = [name for name in owners if name != owner]
        seen = [name for name in others if similarity(sheet, _sheet(sources, name)) <= hardest * 1.001]
        if not seen:
            seen = sorted(others, key=lambda name: similarity(sheet, _sheet(sources, name)))[:1]
        if seen:
            stages[owner] = sources.only(tuple(table for table in sources.tables if sources.sheets[table].name in seen))
    return stages


def _sheet(sources: Sources, owner: str) -> Device:
    return next(sheet for sheet in sources.sheets.values() if sheet.name == owner)


def _names(*parts: Gemms) -> tuple[str, ...]:
    return tuple(sorted({str(name) for part in parts for name in np.unique(part.format)}))


def _rows(sources: Sources, owner: str, count: int, seed: int) -> tuple[tuple[Gemms, Floats], tuple[Gemms, Floats]]:
    """Measurements of a device's largest table for a rehearsal, and held-out rows of other shapes (n, k)."""
    mine = [table for table in sources.tables if sources.sheets[table].name == owner]
    sizes = {table: sum(len(sources.fitted[table, form].rows) for form in sources.formats(table)) for table in mine}
    table = max(mine, key=lambda name: sizes[name])
    fitted_formats = [sources.fitted[table, form] for form in sources.formats(table)]
    columns = ("device", "format", "m", "n", "k")
    rows = Gemms(*(np.concatenate([getattr(source.rows, name) for source in fitted_formats]) for name in columns))
    log_ms = np.concatenate([source.log_ms for source in fitted_formats])
    generator = np.random.default_rng(seed)
    shapes, shape = np.unique(np.stack([rows.n, rows.k]), axis=1, return_inverse=True)
    held = (generator.permutation(shapes.shape[1]) < 0.2 * shapes.shape[1])[shape.ravel()]
    shown = generator.permutation(np.flatnonzero(~held))[:count]
    asked = generator.permutation(np.flatnonzero(held))[:_HELD_OUT]
    return (rows.take(shown), log_ms[shown]), (rows.take(asked), log_ms[asked])
