"""What an export hands back: where the files lie, how large they are, and how far they are from what was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Artifact:
    """What an exporter wrote.

    Attributes:
        float_bytes: size of the same model exported in float, in bytes.
        opset: version of the target's operator set.
    """

    float_bytes: int
    opset: int


@dataclass(frozen=True)
class Verification:
    """What loading the artifact back showed.

    Attributes:
        output_errors: output name -> relative error; see ``relative_error``.
        runtime: name of the runtime.
        version: its version.
        node_counts: operator -> how many of them the graph holds after the runtime's own optimization.
        integer_kernels: site -> operator, for sites whose products run on an integer kernel.
        float_kernels: sites whose format rounds activations to integers, but whose products run in float.
        dynamic_batch: whether it also ran with another batch size.
    """

    output_errors: dict[str, float]
    runtime: str
    version: str
    node_counts: dict[str, int] = field(default_factory=dict)
    integer_kernels: dict[str, str] = field(default_factory=dict)
    float_kernels: tuple[str, ...] = ()
    dynamic_batch: bool = False

    @property
    def relative_error(self) -> float:
        """The largest relative error of any output."""
        return max(self.output_errors.values())


@dataclass(frozen=True)
class ExportReport:
    """The certificate of one export.

    Attributes:
        target: name of the exporter.
        path: the artifact.
        files: every file written, the artifact first.
        bytes_on_disk: size of the artifact in bytes.
        float_bytes: size of the float model exported the same way, in bytes.
        relative_error: the largest of ``output_errors``.
        bound: the error that would have failed the export.
        noise: how far last-bit differences move the outputs of the fake-quantized model itself (relative).
        output_errors: output name -> norm of the difference to the fake-quantized model over the norm of its output.
        runtime: the runtime that loaded the artifact back.
        version: its version.
        node_counts: operator -> number of nodes after the runtime's own optimization.
        integer_kernels: site -> operator, for sites whose products run on an integer kernel.
        float_kernels: sites that round activations to integers but whose products the runtime computes in float.
        dynamic_batch: whether the artifact takes any batch size.
        opset: version of the operator set.
        seconds: wall time of export and check.
    """

    target: str
    path: str
    files: tuple[str, ...]
    bytes_on_disk: int
    float_bytes: int
    relative_error: float
    bound: float
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

    @property
    def compression(self) -> float:
        """How many times smaller than the float export the artifact is."""
        return self.float_bytes / self.bytes_on_disk

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "files": list(self.files), "float_kernels": list(self.float_kernels)}
