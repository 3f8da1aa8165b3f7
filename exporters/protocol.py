"""What a target is: the verbs that turn a configuration into what one runtime loads, and prove it there.

The frame (``api.export``) calls them in this order:

1. ``capability`` and ``fused`` for every site, ``validate`` for the rest: all violations end in one error (``rules``);
2. ``export`` into an empty folder beside the destination;
3. ``check``, in this process: what can be compared exactly, such as stored codes, is compared exactly;
4. ``runtime``: the frame starts another process that cannot import bitfront, loads the files there, runs them on the
   example and the validation data, and times them (``verify``);
5. only then do the files take their place, with the certificate beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..formats import Format
from ..space import Configuration, SearchSpace, Site, Tie

if TYPE_CHECKING:
    from torch import nn

    from ..evaluators import QuantizedModel
    from ..task import Batch
    from .report import Artifact

Layout = Literal["file", "folder"]


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
class Violation:
    """One reason why a configuration cannot be exported.

    Attributes:
        sites: names of the sites that it concerns; empty for the model as a whole.
        given: the format (or formats, or option) that was given.
        reason: what is wrong with it.
        nearest: the nearest format that all these sites can take; ``None`` where there is none, or it is not about
            formats.
    """

    sites: tuple[str, ...]
    given: str
    reason: str
    nearest: str | None = None

    def __str__(self) -> str:
        names = ", ".join(self.sites[:6]) + (f" and {len(self.sites) - 6} more" if len(self.sites) > 6 else "")
        where = f"site{'s' if len(self.sites) > 1 else ''} {names}: " if self.sites else ""
        given = f"{self.given}: " if self.given and not self.reason.startswith(self.given) else ""
        choice = f"; nearest that works: {self.nearest}" if self.nearest else ""
        return f"{where}{given}{self.reason}{choice}"


@dataclass(frozen=True)
class ExportRequest:
    """Everything that a target reads.

    Attributes:
        quantized: the model with its calibration; ``quantized.applied(configuration)`` is what was measured and
            what the artifact has to reproduce.
        configuration: the format of every site; sites left out stay in float.
        example: the batch that the model is traced with and that the artifact is checked on.
        opset: version of the target's operator set; ``None`` lets the target choose.
        name: file name of the artifact; of a target whose layout is a folder, the folder's name.
        generation: generation of the device (``device_generations.GENERATIONS``) that must have kernels for every
            format; ``None``: any that the runtime loads will do.
        options: what only this target understands; ``Target.options`` names the keys.
    """

    quantized: QuantizedModel
    configuration: Configuration
    example: Batch
    opset: int | None = None
    name: str = "model"
    generation: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

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

    def narrow_weights(self) -> list[Violation]:
        """A violation for each site whose weight is not float32, for targets that read nothing else."""
        types = {site.name: self.model.get_parameter(site.parameter).dtype for site in self.space.sites}
        return [
            Violation((name,), str(dtype), "the weight must be float32; export model.float()")
            for name, dtype in types.items()
            if str(dtype) != "torch.float32"
        ]

    def format_of(self, site: Site) -> Format:
        """The format of a site; float where the configuration leaves it out."""
        return self.format_at(site.name)

    def format_at(self, name: str) -> Format:
        """The format of the site of a name; float where the configuration leaves it out."""
        return Format.parse(self.configuration.get(name, "fp32"))


@dataclass(frozen=True)
class Runtime:
    """How an artifact is loaded and run in another process.

    The loader is a Python file that runs without bitfront, which cannot be imported there::

        def load(path: str, settings: dict) -> Loaded: ...      # path: the main file, or the folder

        class Loaded:
            def run(self, inputs: list[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]: ...
            def details(self) -> dict: ...                      # JSON: "runtime", "version", and what else is known

    Inputs come by name (positional ones as ``"0"``, ``"1"``, …) in the order of the example; outputs are named, in
    the order in which ``torch.export`` flattens them, 16-bit floats widened to float32. Whatever it raises fails the
    export with its first line.

    Attributes:
        loader: path of that file.
        settings: plain JSON, handed to ``load``. Paths in it may lead to the scratch folder of ``Target.runtime``.
        seconds: most wall time that loading, running and timing may take.
        memory_bytes: most resident memory of the process and its children.
    """

    loader: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 600.0
    memory_bytes: int = 8_000_000_000


class Target(Protocol):
    """One target. A class without arguments; ``registry.get`` makes an instance for each export.

    Attributes:
        name: as ``registry.get`` knows it.
        layout: whether the artifact is one main file (perhaps with others beside it) or a folder.
        packages: modules that must be importable; ``extra`` is the extra of bitfront that brings them.
        extra: see ``packages``; empty where none does.
        libraries: libraries of ``device_generations`` that count as this target's kernels; empty: all of them.
        options: keys of ``ExportRequest.options`` that it understands.
    """

    name: str
    layout: Layout
    packages: tuple[str, ...]
    extra: str
    libraries: tuple[str, ...]
    options: frozenset[str]

    def capability(self, format: Format, site: Site | None = None) -> Capability:
        """Whether the target can represent a format at a site.

        Args:
            format: of weight and input.
            site: where; ``None`` asks whether any site could take it.
        """
        ...

    def fused(self, space: SearchSpace) -> list[Tie]:
        """Groups of sites that the runtime fuses into one kernel, so that they must share a format."""
        ...

    def validate(self, request: ExportRequest) -> list[Violation]:
        """What else speaks against it: types, sizes, values of options.

        Formats, groups, packages and names of options are checked by the frame. The calibration may still be empty.
        """
        ...

    def export(self, request: ExportRequest, folder: Path) -> Artifact:
        """Write the artifact into an empty folder; the same request gives the same bytes.

        A target whose layout is ``"file"`` writes the main file as ``folder / request.name`` and may write others
        beside it, whose names begin with ``request.name``.

        Raises:
            UnsupportedModel: the model cannot be expressed in the target; the message carries the first cause.
        """
        ...

    def check(self, request: ExportRequest, folder: Path) -> None:
        """Compare what can be compared without running it: stored codes, scales, ranges.

        Raises:
            ExportMismatch: they are not those of the fake-quantized model.
        """
        ...

    def runtime(self, request: ExportRequest, folder: Path, scratch: Path) -> Runtime | None:
        """How the artifact is loaded in another process.

        Args:
            request: what was exported.
            folder: holds the artifact.
            scratch: a folder for what the runtime needs besides it, such as the code of the model; it is thrown away.

        Returns:
            The runtime; ``None`` for a target that writes a recipe for another tool, which nothing runs.
        """
        ...

    def default_bound(self, request: ExportRequest, noise: float) -> float:
        """The relative error up to which the artifact counts as computing the same.

        Args:
            request: what is exported.
            noise: what last-bit differences do to the fake-quantized model itself; see ``noise.rounding_noise``.
        """
        ...
