"""What an exporter is: four verbs that turn a configuration into a file of one runtime, and prove it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..formats import Format
from ..space import Configuration, SearchSpace

if TYPE_CHECKING:
    from torch import nn

    from ..evaluators import QuantizedModel
    from ..task import Batch
    from .report import Artifact, Verification


@dataclass(frozen=True)
class Capability:
    """Whether a target can represent a format, and why.

    Attributes:
        supported: whether a site may be exported in the format.
        reason: how it is represented there, or what is missing.
    """

    supported: bool
    reason: str

    def __bool__(self) -> bool:
        return self.supported


@dataclass(frozen=True)
class ExportRequest:
    """Everything that an exporter reads.

    Attributes:
        quantized: the model with its calibration; ``quantized.applied(configuration)`` is what was measured and
            what the artifact has to reproduce.
        configuration: the format of every site; sites left out stay in float.
        example: the batch that the model is traced with and that the artifact is checked on.
        opset: version of the target's operator set; ``None`` lets the exporter choose.
    """

    quantized: QuantizedModel
    configuration: Configuration
    example: Batch
    opset: int | None = None

    @property
    def model(self) -> nn.Module:
        """The float model."""
        return self.quantized.model

    @property
    def rounded_modules(self) -> dict[str, str]:
        """Module path -> site, for the modules whose input the fake-quantized model rounds."""
        return {
            module: site.name
            for site in self.space.sites
            if site.name in self.configuration
            for module in site.modules
            if self.quantized.rounding(site, module, Format.parse(self.configuration[site.name])) is not None
        }

    @property
    def space(self) -> SearchSpace:
        """The sites of the model."""
        return self.quantized.space


class Exporter(Protocol):
    """One target. A class without arguments; ``registry.get`` makes an instance for each export."""

    name: str

    def capabilities(self, format: Format) -> Capability:
        """Whether the target can represent a format."""
        ...

    def validate(self, request: ExportRequest) -> None:
        """Refuse what cannot be exported, before any work is done.

        Raises:
            InvalidInput: names the site and what to do about it.
        """
        ...

    def export(self, request: ExportRequest, path: Path) -> Artifact:
        """Write the artifact to ``path``.

        Raises:
            UnsupportedModel: the model cannot be expressed in the target; the message carries the first cause.
        """
        ...

    def verify(self, request: ExportRequest, path: Path) -> Verification:
        """Load the artifact from disk in its runtime and compare it with the fake-quantized model.

        Raises:
            ExportMismatch: the stored weights are not those of the fake-quantized model.
            UnsupportedModel: the runtime does not load the artifact.
        """
        ...

    def default_bound(self, request: ExportRequest, noise: float) -> float:
        """The relative error up to which the artifact counts as computing the same.

        Args:
            request: what is exported.
            noise: what last-bit differences do to the fake-quantized model itself; see ``noise.rounding_noise``.
        """
        ...
