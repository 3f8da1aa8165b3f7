"""What recipes have in common: one text file, written from the formats and read back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import ExportMismatch
from ...formats import Format
from ...space import SearchSpace, Site, Tie
from ..protocol import Capability, ExportRequest, Layout, Violation
from ..report import Artifact


class Recipe(ABC):
    """A target whose artifact tells another tool what to do; nothing in it is quantized, so nothing runs it.

    The tool chooses scales (and perhaps codes) of its own: what it makes has the formats that were measured, not the
    same weights. A subclass says ``kinds``, ``refusal``, ``settings``, ``text`` and ``parsed``.
    """

    name: str
    layout: Layout = "file"
    packages: tuple[str, ...] = ()
    extra = ""
    libraries: tuple[str, ...] = ()
    options: frozenset[str] = frozenset()
    #: layer kinds that the tool quantizes; layers of other kinds stay in float
    kinds: frozenset[str] = frozenset({"linear"})
    #: how the tool takes the file, one sentence
    usage = ""

    @abstractmethod
    def refusal(self, format: Format) -> str:
        """Why the tool cannot say a format; empty if it can."""

    @abstractmethod
    def settings(self, request: ExportRequest) -> dict[str, Any]:
        """What is said of every layer, by the name that the tool knows it by."""

    @abstractmethod
    def text(self, request: ExportRequest, settings: Mapping[str, Any]) -> str:
        """The file."""

    @abstractmethod
    def parsed(self, text: str) -> dict[str, Any]:
        """``settings``, read back from the file."""

    def capability(self, format: Format, site: Site | None = None) -> Capability:
        """Whether the tool has such a format, and quantizes such a layer."""
        reason = self.refusal(format)
        if not reason and not self._plain(format) and site is not None and site.kind not in self.kinds:
            reason = f"{self.name} quantizes {', '.join(sorted(self.kinds))}, not {site.kind}"
        return Capability(not reason, reason or f"said in the words of {self.name}")

    def fused(self, space: SearchSpace) -> list[Tie]:
        """None: the tool decides what it fuses."""
        return []

    def validate(self, request: ExportRequest) -> list[Violation]:
        """Nothing more."""
        return []

    def export(self, request: ExportRequest, folder: Path) -> Artifact:
        """Write the file."""
        (folder / request.name).write_text(self.text(request, self.settings(request)), encoding="utf-8")
        size = sum(each.numel() * each.element_size() for each in request.model.state_dict().values())
        return Artifact((request.name,), size, notes=(self.usage,) if self.usage else ())

    def check(self, request: ExportRequest, folder: Path) -> None:
        """Read the file back.

        Raises:
            ExportMismatch: it does not say what the configuration says.
        """
        wanted = self.settings(request)
        given = self.parsed((folder / request.name).read_text(encoding="utf-8"))
        for layer in sorted({*wanted, *given}):
            if given.get(layer) != wanted.get(layer):
                raise ExportMismatch(
                    f"{layer}: the recipe says {given.get(layer)}, the configuration {wanted.get(layer)}"
                )

    def runtime(self, request: ExportRequest, folder: Path, scratch: Path) -> None:
        """Nothing runs a recipe."""
        return

    def default_bound(self, request: ExportRequest, noise: float) -> float:
        """Not used: nothing is run."""
        return 0.0

    def _plain(self, format: Format) -> bool:
        return format.is_wide

    def _layers(self, request: ExportRequest) -> list[tuple[str, Site, Format]]:
        """Every module of every site whose kind the tool quantizes, with its format."""
        return [
            (module, site, request.format_of(site))
            for site in request.space.sites
            if site.kind in self.kinds
            for module in site.modules
        ]
