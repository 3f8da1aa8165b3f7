"""Site, Tie, SearchSpace, Configuration: what may be chosen, and what was."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .activations import ActivationGraph
from .errors import InvalidInput, UnsupportedModel
from .files import write_text
from .formats import Format, precision_order

if TYPE_CHECKING:
    from torch import nn

    from .architecture import ArchitectureSpace, Choices

WEIGHT_ONLY_KINDS = frozenset({"embedding", "mha_in_proj", "mha_out_proj"})


@dataclass(frozen=True, slots=True)
class Site:
    """One place where a format is chosen: a weight, and the layer (or layers) that compute with it.

    Attributes:
        name: the module path, such as ``"layer1.0.conv1"``; the key of every table and configuration.
        kind: ``linear``, ``conv1d``/``2d``/``3d``, ``conv_transpose1d``/``2d``/``3d``, ``embedding``, ``hf_conv1d``,
            ``mha_in_proj`` (packed or separate projections), ``mha_out_proj``.
        weight_shape: shape of the weight.
        macs: multiply-accumulates per sample, over all calls.
        formats: names of the formats offered here, coarse to fine.
        parameter: full name of the weight in ``model.named_parameters()``.
        modules: paths of all modules that compute with this weight (more than one when it is shared).
        channel_axis: axis of the weight that indexes output channels (embedding: rows).
        calls: how many times a forward pass runs it.
        input_shape: shape of the first input of the first call, batch included.
        output_shape: likewise of the output.
        samples: batch size that those shapes were recorded with.
        attributes: layer parameters that a kernel depends on (stride, padding, dilation, groups, bias).
        weight_bits: bits of one element of the float weight (32 or 16).
    """

    name: str
    kind: str
    weight_shape: tuple[int, ...]
    macs: int
    formats: tuple[str, ...]
    parameter: str
    modules: tuple[str, ...]
    channel_axis: int = 0
    calls: int = 1
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    samples: int = 1
    attributes: tuple[tuple[str, Any], ...] = ()
    weight_bits: int = 32

    @property
    def elements(self) -> int:
        """Number of weight elements."""
        return int(np.prod(self.weight_shape, dtype=np.int64))

    def offers(self, format_name: str) -> bool:
        """Whether the format may be chosen here."""
        return format_name in self.formats


@dataclass(frozen=True, slots=True)
class Tie:
    """Sites that must share a format.

    Attributes:
        sites: names of the sites.
        reason: why, for reports.
    """

    sites: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Configuration(Mapping[str, str]):
    """A format for every site: hashable, ordered by site, JSON in and out.

    Args:
        pairs: (site name, format name); sorted by site.

    >>> Configuration.from_dict({"fc": "w4", "conv": "w8"}).to_dict()
    {'conv': 'w8', 'fc': 'w4'}
    """

    pairs: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", tuple(sorted(self.pairs)))
        twice = sorted({first for (first, _), (second, _) in pairwise(self.pairs) if first == second})
        if twice:
            raise InvalidInput(f"the configuration names sites twice: {', '.join(twice)}")

    @staticmethod
    def from_dict(formats: Mapping[str, str]) -> Configuration:
        """A configuration from ``{site name: format name}``; every format name is checked.

        Raises:
            UnknownFormat: a name is not in the grammar.
        """
        for name in formats.values():
            Format.parse(name)
        return Configuration(tuple(formats.items()))

    def to_dict(self) -> dict[str, str]:
        """``{site name: format name}``."""
        return dict(self.pairs)

    def to_json(self, path: str | Path) -> None:
        """Write the configuration as JSON (written to the side, synced, then renamed)."""
        write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @staticmethod
    def from_json(path: str | Path) -> Configuration:
        """Read what ``to_json`` wrote.

        Raises:
            InvalidInput: the file is missing or not a JSON object of strings.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InvalidInput(f"no configuration file {path}") from None
        except OSError as cause:
            raise InvalidInput(f"cannot read the configuration {path}: {cause.strerror}") from None
        except ValueError as cause:
            raise InvalidInput(f"{path} is not JSON: {cause}") from None
        if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
            raise InvalidInput(f"{path} must hold one JSON object {{site name: format name}}")
        return Configuration.from_dict(content)

    @property
    def digest(self) -> str:
        """Content hash: the first 16 hex digits of the sha256 of the canonical JSON."""
        return hashlib.sha256(json.dumps(self.pairs, separators=(",", ":")).encode()).hexdigest()[:16]

    def __getitem__(self, site: str) -> str:
        return self._by_site[site]

    @cached_property
    def _by_site(self) -> dict[str, str]:
        return dict(self.pairs)

    def __iter__(self) -> Iterator[str]:
        return (site for site, _ in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __hash__(self) -> int:
        return hash(self.pairs)

    def __eq__(self, other: object) -> bool:
        return self.pairs == other.pairs if isinstance(other, Configuration) else NotImplemented


@dataclass(frozen=True)
class SearchSpace:
    """The sites of a model, the formats offered at each, and the ties.

    Attributes:
        sites: in the order in which the forward pass reaches them.
        formats: all format names, coarse to fine: the columns of every table.
        ties: groups of sites that must share a format.
        unused: quantizable modules that the forward pass never reached.
        skipped: module path -> why it is no site.
        fixed_bytes: bytes of all parameters and buffers that belong to no site.
        activations: all tensors of the traced forward pass; ``None`` where that was not recorded.
        architecture: the dimensions of the family that the model is of; ``None`` where there is only this model.
        choices: the architecture of which these are the sites: a value of every dimension that exists.

    Raises:
        InvalidInput: ``choices`` without ``architecture``, or such as it does not allow.
    """

    sites: list[Site]
    formats: tuple[str, ...]
    ties: list[Tie] = field(default_factory=list)
    unused: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    fixed_bytes: int = 0
    activations: ActivationGraph | None = field(default=None, repr=False, compare=False)
    architecture: ArchitectureSpace | None = field(default=None, kw_only=True)
    choices: Choices | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if (self.architecture is None) != (self.choices is None):
            raise InvalidInput("architecture and choices come together: the dimensions, and which values were chosen")
        if self.architecture is not None and self.choices is not None:
            self.architecture.choices(self.choices)

    @staticmethod
    def from_model(
        model: nn.Module,
        example_inputs: Any,
        formats: Sequence[str] = ("w2", "w4", "w8", "bf16"),
        exclude: Sequence[str] = (),
        ties: str | Sequence[Sequence[str]] = "auto",
    ) -> SearchSpace:
        """Find the sites by one hooked forward pass.

        Args:
            model: any ``nn.Module``.
            example_inputs: one batch: a tensor, tuple or dict of tensors, or ``(inputs, targets)``.
            formats: format names offered; where a layer kind cannot take one it is left out there.
            exclude: globs of site names that stay in float.
            ties: ``"auto"`` ties siblings that read the same tensor and feed one fused kernel (q/k/v, gate/up);
                ``"residual"`` also ties down-sampling convolutions to the main path that they are added to (as
                HAWQ-V3 does); ``"none"``; or explicit groups of site names, added to the automatic ones.

        Returns:
            The space.

        Raises:
            UnsupportedModel: the model fails on the inputs, or has no site.
            UnknownFormat: a format name is not in the grammar.
            InvalidInput: a glob or a tie matches no site.
        """
        from .discovery import discover

        if isinstance(formats, str):
            raise InvalidInput(f"formats must be a list of names, got the text {formats!r}; write [{formats!r}]")
        return discover(model, example_inputs, precision_order(formats), exclude, ties)

    @property
    def names(self) -> list[str]:
        """Site names in order."""
        return [site.name for site in self.sites]

    @property
    def allowed(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Boolean array [sites, formats]: which formats each site offers."""
        return np.array([[site.offers(name) for name in self.formats] for site in self.sites], dtype=bool)

    @property
    def tie_indices(self) -> list[tuple[int, ...]]:
        """The ties as site indices."""
        position = {name: index for index, name in enumerate(self.names)}
        return [tuple(position[name] for name in tie.sites) for tie in self.ties]

    @property
    def digest(self) -> str:
        """Content hash of sites, formats and ties, and of the architecture where there is one (16 hex digits)."""
        content = repr((self.sites, self.formats, [tie.sites for tie in self.ties], self.fixed_bytes))
        if self.architecture is not None and self.choices is not None:
            content += f"|{self.architecture.digest}|{self.choices.digest}"
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def configuration(self, choice: Sequence[int] | np.ndarray[Any, Any]) -> Configuration:
        """The configuration that a choice array [sites] (indices into ``formats``) stands for."""
        return Configuration(
            tuple((site.name, self.formats[int(index)]) for site, index in zip(self.sites, choice, strict=True))
        )

    def choice(self, configuration: Mapping[str, str]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The choice array [sites] of a configuration.

        Raises:
            InvalidInput: a site is missing or unknown, takes a format that it does not offer, or breaks a tie.
        """
        unknown = sorted(set(configuration) - set(self.names))
        missing = [name for name in self.names if name not in configuration]
        if unknown or missing:
            found = f"unknown sites: {_listed(unknown)}; missing: {_listed(missing)}"
            raise InvalidInput(f"the configuration does not fit the model: {found}")
        for site in self.sites:
            if not site.offers(configuration[site.name]):
                raise InvalidInput(
                    f"site {site.name} ({site.kind}) does not offer {configuration[site.name]!r}; "
                    f"it offers {', '.join(site.formats)}"
                )
        for tie in self.ties:
            if len({configuration[name] for name in tie.sites}) > 1:
                raise InvalidInput(f"sites {', '.join(tie.sites)} must share a format ({tie.reason})")
        return np.array([self.formats.index(configuration[name]) for name in self.names], dtype=np.int64)

    def uniform(self, format_name: str) -> Configuration:
        """Every site in one format.

        A site that does not offer it (an embedding has no ``w8a8``) takes the offered format with the same weight
        bits, else the coarsest finer one, else its finest. Tied sites choose together.

        Raises:
            InvalidInput: the format is not in this space.
        """
        if format_name not in self.formats:
            raise InvalidInput(f"format {format_name!r} is not in this space ({', '.join(self.formats)})")
        bits = Format.parse(format_name).weight_bits
        offered = {site.name: site.formats for site in self.sites}
        for tie in self.ties:
            shared = tuple(name for name in self.formats if all(name in offered[site] for site in tie.sites))
            offered.update(dict.fromkeys(tie.sites, shared))
        nearest = {}
        for site, formats in offered.items():
            finer = [name for name in formats if Format.parse(name).weight_bits >= bits]
            nearest[site] = format_name if format_name in formats else (finer or formats[-1:])[0]
        return Configuration.from_dict(nearest)

    def uniforms(self) -> dict[str, Configuration]:
        """The uniform configuration of every format, by format name."""
        return {name: self.uniform(name) for name in self.formats}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"


def match_sites(names: Sequence[str], globs: Iterable[str], purpose: str) -> set[str]:
    """The names that match any of the globs.

    Raises:
        InvalidInput: a glob matches none of the names; the message names the nearest.
    """
    matched: set[str] = set()
    for glob in globs:
        hits = [name for name in names if fnmatchcase(name, glob)]
        if not hits:
            near = difflib.get_close_matches(glob, names, n=3, cutoff=0.3) or list(names[:3])
            raise InvalidInput(f"{purpose}: {glob!r} matches no site; nearest site names: {', '.join(near)}")
        matched.update(hits)
    return matched


def no_sites(model: nn.Module, skipped: Mapping[str, str]) -> UnsupportedModel:
    """The error for a model without any site."""
    why = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
    return UnsupportedModel(
        f"{type(model).__name__} has no layer whose weights could be quantized "
        "(Conv, ConvTranspose, Linear, Embedding, MultiheadAttention, Conv1D)" + (f": {why}" if why else "")
    )
