"""adapt: a latency model of a new device from the dense tables of others and a handful of its own measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput, NotMeasured
from ..devices import Device
from ..gemm import Gemms, MeasuredGemms, Prediction
from ..law import Floats
from .choice import AHEAD, needed
from .prior import Prior, require_formats
from .process import Process, before, fitted
from .rehearsal import Rehearsal
from .source import Sources, check_sizes, check_times

#: Measurements below which a device is not adapted to.
MINIMAL_SAMPLES = 3


@dataclass(frozen=True)
class TransferPredictor:
    """A latency model of one device.

    Attributes:
        process: posterior over log t.
        reach: half-width of an interval in posterior deviations, from the rehearsals.
        coverage: of the intervals.
        width: ``predict`` refuses rows whose interval ends more than this share above the prediction.
        samples: how many measurements of the device it rests on.
        sampled: formats that were measured on the device.
    """

    process: Process
    reach: float
    coverage: float
    width: float
    samples: int
    sampled: frozenset[str]

    def predict(self, gemms: Gemms) -> Prediction:
        """Milliseconds with intervals.

        Raises:
            InvalidInput: rows of another device.
            NotMeasured: a format that nobody measured, or an interval wider than ``width``; the message says how many
                more measurements would narrow it.
        """
        prediction = self.estimate(gemms)
        fine = usable(prediction, self.width)
        if not fine.all():
            raise NotMeasured(self._refusal(gemms.take(~fine), prediction))
        return prediction

    def estimate(self, gemms: Gemms) -> Prediction:
        """As ``predict``, however wide the intervals are.

        Raises:
            InvalidInput: rows of another device.
            NotMeasured: a format that nobody measured.
        """
        _same_device(gemms, self.process.prior.device, "the products asked for")
        check_sizes(gemms, "the products asked for")
        require_formats(self.process.prior, gemms, self.sampled)
        mean, deviation = self.process.posterior(gemms)
        half = self.reach * deviation
        return Prediction(np.exp(mean), np.exp(mean - half), np.exp(mean + half), self.coverage)

    def _refusal(self, wide: Gemms, prediction: Prediction) -> str:
        worst = float((prediction.high / prediction.ms).max() - 1)
        more = needed(self.process, wide, float(np.log1p(self.width)) / self.reach)
        advice = (
            f"measure about {more} more (next_shapes names them)"
            if more
            else (f"{AHEAD} more would not do: ask for a width of {worst:.2f} or measure the shapes themselves")
        )
        return (
            f"{len(wide)} of {len(prediction.ms)} products on {self.process.prior.device.name} are too uncertain after "
            f"{self.samples} measurements: intervals up to +{worst:.0%}, wanted +{self.width:.0%}; {advice}"
        )


def usable(prediction: Prediction, width: float) -> NDArray[np.bool_]:
    """Which rows have an interval that ends at most ``width`` (0.5: 50 %) above the prediction."""
    result: NDArray[np.bool_] = prediction.high <= prediction.ms * (1 + width)
    return result


def adapt(
    sources: Mapping[str, MeasuredGemms] | Sources,
    device: Device,
    samples: MeasuredGemms,
    *,
    coverage: float = 0.9,
    width: float = 1.0,
    seed: int = 0,
) -> TransferPredictor:
    """The latency model of a new device.

    Args:
        sources: dense tables of other devices by name, or what ``Sources.of`` made of them.
        device: the data sheet of the new device.
        samples: its measurements; 20 are a start, best those that ``next_shapes`` chose.
        coverage: of the intervals.
        width: see ``TransferPredictor``; infinity never refuses.
        seed: for the random parts of the rehearsals.

    Raises:
        InvalidInput: tables or samples that cannot be used; fewer than ``MINIMAL_SAMPLES`` samples.
        NotMeasured: the device has no arithmetic for a sampled format.
    """
    if not 0 < coverage < 1 or not width > 0:
        raise InvalidInput(f"coverage {coverage} and width {width}: coverage lies between 0 and 1, width above 0")
    if len(samples) < MINIMAL_SAMPLES:
        raise InvalidInput(f"{len(samples)} measurements of {device.name}; give at least {MINIMAL_SAMPLES}, better 20")
    known = sources if isinstance(sources, Sources) else Sources.of(sources)
    _check_samples(samples, device)
    rehearsal = Rehearsal.of(known, device, seed)
    process = _fitted(known, device, samples, rehearsal, ())
    reach = rehearsal.reach(known, len(samples), coverage, seed)
    return TransferPredictor(
        process, reach, coverage, width, len(samples), frozenset(str(name) for name in np.unique(samples.format))
    )


def posterior_process(
    sources: Mapping[str, MeasuredGemms] | Sources,
    device: Device,
    samples: MeasuredGemms | None,
    asked: Sequence[Gemms],
    seed: int = 0,
) -> Process:
    """The process of a device after its samples, or before the first, ready for the formats of ``asked``."""
    known = sources if isinstance(sources, Sources) else Sources.of(sources)
    rehearsal = Rehearsal.of(known, device, seed)
    if samples is None or not len(samples):
        return before(Prior.of(known, device, _formats(asked)), rehearsal.belief)
    _check_samples(samples, device)
    return _fitted(known, device, samples, rehearsal, asked)


def _fitted(
    sources: Sources, device: Device, samples: MeasuredGemms, rehearsal: Rehearsal, asked: Sequence[Gemms]
) -> Process:
    measured = {form for table in sources.tables for form in sources.formats(table)}
    formats = tuple(sorted(measured.union(_formats((samples, *asked)))))
    log_ms: Floats = np.log(samples.ms)
    return fitted(Prior.of(sources, device, formats), samples, log_ms, rehearsal.belief)


def _formats(parts: Sequence[Gemms]) -> tuple[str, ...]:
    return tuple(sorted({str(name) for part in parts for name in np.unique(part.format)}))


def _check_samples(samples: MeasuredGemms, device: Device) -> None:
    _same_device(samples, device, "the samples")
    check_times(samples, "the samples")


def _same_device(gemms: Gemms, device: Device, what: str) -> None:
    strangers = sorted(set(np.unique(gemms.device).tolist()) - {device.name})
    if strangers:
        raise InvalidInput(f"{what} are of {', '.join(strangers)}, the model is of {device.name}: ask for one device")
