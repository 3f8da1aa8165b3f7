"""What an export hands back: where the files lie, how large they are, and how far they are from what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Artifact:
    """What a target wrote.

    Attributes:
        files: names relative to the folder, the main file first.
        float_bytes: size of the same model exported in float, in bytes.
        opset: version of the target's operator set; 0 where it has none.
        notes: what a user must know, one sentence each.
        tensor_bytes: bytes of all tensors in the files: codes, scales, zero-points, and what no site holds. The rest of
            the files is the graph and its description. ``None`` for a recipe and what else holds no quantized tensors.
    """

    files: tuple[str, ...]
    float_bytes: int
    opset: int = 0
    notes: tuple[str, ...] = ()
    tensor_bytes: int | None = None


@dataclass(frozen=True)
class Timing:
    """Wall time of one forward pass in the runtime.

    Attributes:
        median_ms: median of the passes.
        low_ms: 10th percentile.
        high_ms: 90th percentile.
        passes: how many were timed.
        batch: samples of each.
        threads: threads that the runtime was given.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    passes: int
    batch: int
    threads: int


@dataclass(frozen=True)
class QualityCheck:
    """Quality of the artifact and of the fake-quantized model on the same samples.

    Attributes:
        metric: as ``Task.metric``; lower is better.
        samples: how many validation samples.
        artifact: its value.
        fake_quantized: what the search measures.
        difference: artifact minus fake-quantized.
        low: lower end of its 95 % interval, from paired resamples.
        high: upper end.
        tolerance: the lower end that would have failed the export: half the interval of the fake-quantized model, what
            a search can tell apart on these samples.
    """

    metric: str
    samples: int
    artifact: float
    fake_quantized: float
    difference: float
    low: float
    high: float
    tolerance: float


@dataclass(frozen=True)
class Verification:
    """What loading the artifact in another process showed.

    Attributes:
        output_errors: output name -> relative error over all batches; see ``comparison.relative_error``.
        runtime: name of the runtime.
        version: its version.
        details: what else the loader told (plain JSON), such as ``node_counts``.
        dynamic_batch: whether it also ran with another batch size.
        latency: of the artifact.
        float_latency: of the float model in the same runtime, passes interleaved; ``None`` if not asked for.
        quality: on validation data; ``None`` without a task.
        peak_bytes: most resident memory of the process.
    """

    output_errors: dict[str, float]
    runtime: str
    version: str
    details: dict[str, Any] = field(default_factory=dict)
    dynamic_batch: bool = False
    latency: Timing | None = None
    float_latency: Timing | None = None
    quality: QualityCheck | None = None
    peak_bytes: int = 0

    @property
    def relative_error(self) -> float:
        """The largest relative error of any output."""
        return max(self.output_errors.values())


@dataclass(frozen=True)
class ExportReport:
    """What came of one export.

    Attributes:
        target: name of the target.
        path: the artifact.
        files: every file written, the artifact first, the certificate last.
        bytes_on_disk: size of the artifact in bytes, all its files.
        predicted_bytes: what ``size_mb`` says of the configuration: codes in their containers, scales, and every
            parameter and buffer of no site. It speaks of tensors, so ``tensor_bytes`` is what it is compared with.
        float_bytes: size of the float model exported the same way, in bytes.
        relative_error: the largest of ``output_errors``; ``None`` for a recipe, which nothing runs.
        bound: the error that would have failed the export; ``None`` likewise.
        noise: how far last-bit differences move the outputs of the fake-quantized model itself (relative).
        output_errors: output name -> norm of the difference to the fake-quantized model over the norm of its output.
        runtime: the runtime that loaded the artifact back; empty for a recipe.
        version: its version.
        node_counts: operator -> number of nodes after the runtime's own optimization, where it tells.
        integer_kernels: site -> operator, for sites whose products run on an integer kernel, where it tells.
        float_kernels: sites that round activations to integers but whose products the runtime computes in float.
        dynamic_batch: whether the artifact takes any batch size.
        opset: version of the operator set; 0 where there is none.
        seconds: wall time of export and check.
        latency: of the artifact in its runtime.
        float_latency: of the float model there, if it was asked for.
        quality: of the artifact against the fake-quantized model on validation data, if a task was given.
        notes: what a user must know.
        tensor_bytes: bytes of the tensors in the artifact; ``None`` where none is quantized.
    """

    target: str
    path: str
    files: tuple[str, ...]
    bytes_on_disk: int
    predicted_bytes: int
    float_bytes: int
    relative_error: float | None
    bound: float | None
    noise: float
    output_errors: dict[str, float]
    runtime: str
    version: str
    node_counts: dict[str, int]
    integer_kernels: dict[str, str]
    float_kernels: tuple[str, ...]
    dynamic_batch: bool
    opset: int
    seconds: float
    latency: Timing | None = None
    float_latency: Timing | None = None
    quality: QualityCheck | None = None
    notes: tuple[str, ...] = ()
    tensor_bytes: int | None = None

    @property
    def graph_bytes(self) -> int | None:
        """What the artifact holds besides tensors: the graph, names, code, headers. No price counts it."""
        return None if self.tensor_bytes is None else self.bytes_on_disk - self.tensor_bytes

    @property
    def size_error(self) -> float | None:
        """Bytes of the tensors over the predicted ones, minus 1; ``None`` where no tensor is quantized."""
        return None if self.tensor_bytes is None else self.tensor_bytes / self.predicted_bytes - 1

    @property
    def sizes(self) -> str:
        """Size on disk in its two parts, beside the predicted and the float size, in one line."""
        total, plain = f"{self.bytes_on_disk / 1e6:.3f} MB", f"float: {self.float_bytes / 1e6:.3f} MB"
        if self.tensor_bytes is None or self.graph_bytes is None:
            return f"{total} ({plain})"
        return (
            f"{total} (tensors {self.tensor_bytes / 1e6:.3f}, predicted {self.predicted_bytes / 1e6:.3f}; graph "
            f"{self.graph_bytes / 1e6:.3f}; {plain})"
        )

    @property
    def compression(self) -> float:
        """How many times smaller than the float export the artifact is."""
        return self.float_bytes / self.bytes_on_disk

    @property
    def checked(self) -> str:
        """What the check back found, in one line."""
        if self.relative_error is None or self.bound is None:
            return "written and read back; it is not quantized here, so nothing was run"
        return f"{self.runtime} {self.version}: relative error {self.relative_error:.3g}, bound {self.bound:.3g}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        found = asdict(self)
        return found | {name: list(found[name]) for name in ("files", "float_kernels", "notes")}

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> ExportReport:
        """The report that ``to_dict`` wrote; keys of later versions are ignored."""
        known = {each.name for each in fields(ExportReport)}
        kept = {name: value for name, value in content.items() if name in known}
        for name in ("files", "float_kernels", "notes"):
            kept[name] = tuple(kept.get(name, ()))
        for name in ("latency", "float_latency"):
            kept[name] = Timing(**kept[name]) if kept.get(name) else None
        kept["quality"] = QualityCheck(**kept["quality"]) if kept.get("quality") else None
        return ExportReport(**kept)
