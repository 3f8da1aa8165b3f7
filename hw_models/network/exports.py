"""MeasuredExport: a whole exported model, timed in onnxruntime beside others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from ..onnx_session import require
from ..timing import Clock, stopwatch

#: Bytes of files whose sessions are held in memory together.
GROUP_BYTES = 1_500_000_000
#: Samples of each export.
ROUNDS = 20

Feeds = Mapping[str, NDArray[Any]] | Sequence[NDArray[Any]]


@dataclass(frozen=True)
class MeasuredExport:
    """One exported configuration, timed.

    Attributes:
        label: what it is called.
        formats: site name -> format name.
        ms: time of one call, in milliseconds: CPU time of the thread where one thread computes, else wall-clock time.
            The median ratio to the reference that ran right after it, times the reference's median over all rounds,
            so that exports timed at different moments of a shared machine compare.
        wall_ms: median wall-clock time, as it was.
        spread: interquartile range of the ratio over its median.
        samples: how many.
    """

    label: str
    formats: Mapping[str, str]
    ms: float
    wall_ms: float
    spread: float
    samples: int


@dataclass(frozen=True)
class Export:
    """An exported file and the configuration in it."""

    label: str
    formats: Mapping[str, str]
    path: Path


def time_exports(
    exports: Sequence[Export],
    reference: str | Path,
    feeds: Feeds,
    threads: int = 1,
    rounds: int = ROUNDS,
    advance: Callable[[int], None] | None = None,
    reference_ms: float | None = None,
) -> list[MeasuredExport]:
    """Time exported models in turn, round after round, each followed by the reference.

    Before each timed run there is one that is not timed: the other models have emptied the caches, which a model that
    is called again and again finds filled.

    Args:
        exports: what to time.
        reference: the ONNX file that every run is compared with; that of the float model.
        feeds: the inputs, by name or in order.
        threads: intra-op threads.
        rounds: samples of each.
        advance: called with the runs done, ``rounds`` per export in all.
        reference_ms: the reference's time; ``None`` takes its median of this session.

    Returns:
        One measurement per export, in order.

    Raises:
        InvalidInput: there are fewer than 3 rounds, or the inputs do not fit a file.
    """
    if rounds < 3:
        raise InvalidInput(f"rounds={rounds}; a median needs at least 3")
    watch = stopwatch(threads)
    beside = LoadedExport(reference, feeds, threads)
    taken: list[tuple[Export, NDArray[np.float64]]] = []
    for group in _groups(exports):
        loaded = [LoadedExport(export.path, feeds, threads) for export in group]
        samples = np.zeros((len(group), rounds, 3))
        for number in range(rounds):
            for index, model in enumerate(loaded):
                own, wall = model.timed(watch)
                samples[index, number] = own, wall, beside.timed(watch)[0]
                if advance:
                    advance(1)
        taken += zip(group, samples, strict=True)
    if reference_ms is None:
        reference_ms = float(np.median(np.concatenate([samples[:, 2] for _, samples in taken])))
    return [_summary(export, samples, reference_ms) for export, samples in taken]


class LoadedExport:
    """An exported file in a session, its inputs bound.

    Args:
        path: ONNX file.
        feeds: its inputs, by name or in order.
        threads: intra-op threads.
        profile: prefix of the file of the runtime's profiler; ``None`` leaves it off.

    Raises:
        InvalidInput: the inputs are not those of the file.
    """

    def __init__(self, path: str | Path, feeds: Feeds, threads: int = 1, profile: str | None = None) -> None:
        ort = require()
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [node.name for node in self.session.get_inputs()]
        given = dict(feeds) if isinstance(feeds, Mapping) else dict(zip(names, feeds, strict=False))
        if len(feeds) != len(names) or set(given) != set(names):
            told = ", ".join(given) if isinstance(feeds, Mapping) else f"{len(feeds)} arrays"
            raise InvalidInput(f"{path} has the inputs {', '.join(names)}; got {told}")
        self._binding = self.session.io_binding()
        for name, value in given.items():
            self._binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value)))
        for node in self.session.get_outputs():
            self._binding.bind_output(node.name)

    def run(self) -> None:
        """One call."""
        self.session.run_with_iobinding(self._binding)

    def timed(self, watch: Clock) -> tuple[float, float]:
        """Milliseconds of a call on a watch and on the wall clock, after one that is not timed."""
        self.run()
        wall, own = time.perf_counter(), watch()
        self.run()
        return 1e3 * (watch() - own), 1e3 * (time.perf_counter() - wall)


def _summary(export: Export, samples: NDArray[np.float64], reference_ms: float) -> MeasuredExport:
    ratio = samples[:, 0] / samples[:, 2]
    low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75])
    wall = float(np.median(samples[:, 1]))
    spread = float((high - low) / middle)
    return MeasuredExport(export.label, dict(export.formats), float(middle) * reference_ms, wall, spread, len(samples))


def _groups(exports: Sequence[Export]) -> list[list[Export]]:
    """In order, cut where the next file would not fit beside the group."""
    groups: list[list[Export]] = []
    used = 0
    for export in exports:
        size = 4 * Path(export.path).stat().st_size  # codes become floats when they are loaded
        if not groups or used + size > GROUP_BYTES:
            groups.append([])
            used = 0
        groups[-1].append(export)
        used += size
    return groups
