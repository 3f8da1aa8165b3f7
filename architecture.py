"""Architectures as choices: dimensions with conditions and ties, one genome for architecture and formats, families.

A *dimension* is one decision about the network: a depth, a width or expansion, a kernel size, the input resolution, the
operator of an edge, whether a block is skipped, the rank of a factored layer. A *family* turns choices into a module.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

from .errors import InvalidInput
from .files import write_text
from .space import Configuration

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

Value: TypeAlias = int | float | str | bool
"""One value of a dimension: a JSON scalar."""

_FLOAT = Configuration(())

Kind = Literal["depth", "width", "expansion", "kernel", "resolution", "operator", "skip", "rank"]


@dataclass(frozen=True, slots=True)
class Dimension:
    """One decision about an architecture.

    Attributes:
        name: unique in its space, such as ``stage2.block3.kernel``.
        kind: what it decides.
        values: what may be chosen, in order of size where there is one; at least one, all different.
        when: conditions (name of another dimension, its values); the decision exists only where every one holds. A
            block beyond the chosen depth has no kernel size.
    """

    name: str
    kind: Kind
    values: tuple[Value, ...]
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()

    def __post_init__(self) -> None:
        for value in self.values:
            _check_scalar(self.name, value)
        if not self.values or len(set(self.values)) < len(self.values):  # 1, 1.0 and True are one value
            raise InvalidInput(f"dimension {self.name!r} needs different values, got {list(self.values)}")


@dataclass(frozen=True)
class Choices(Mapping[str, Value]):
    """A value for every dimension that exists: hashable, ordered by name, JSON in and out.

    >>> Choices.from_dict({"depth": 2, "block1.kernel": 3}).to_dict()
    {'block1.kernel': 3, 'depth': 2}
    """

    pairs: tuple[tuple[str, Value], ...]

    def __post_init__(self) -> None:
        twice = sorted(name for name, count in Counter(name for name, _ in self.pairs).items() if count > 1)
        if twice:
            raise InvalidInput(f"the choices name dimensions twice: {', '.join(twice)}; give each one value")
        object.__setattr__(self, "pairs", tuple(sorted(self.pairs, key=itemgetter(0))))

    @staticmethod
    def from_dict(values: Mapping[str, Value]) -> Choices:
        """From ``{dimension: value}``.

        Raises:
            InvalidInput: a value is no JSON scalar.
        """
        for name, value in values.items():
            _check_scalar(name, value)
        return Choices(tuple(values.items()))

    def to_dict(self) -> dict[str, Value]:
        """``{dimension: value}``."""
        return dict(self.pairs)

    @property
    def digest(self) -> str:
        """Content hash: the first 16 hex digits of the sha256 of the canonical JSON."""
        return _digest(self.pairs)

    @cached_property
    def _by_name(self) -> dict[str, Value]:
        return dict(self.pairs)

    def __getitem__(self, name: str) -> Value:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __hash__(self) -> int:
        return hash(self.pairs)

    def __eq__(self, other: object) -> bool:
        return self.pairs == other.pairs if isinstance(other, Choices) else NotImplemented


@dataclass(frozen=True)
class Genome:
    """An architecture with the formats of its sites: what a joint search proposes, measures and exports.

    Attributes:
        choices: the architecture.
        configuration: formats of the sites that this architecture has; empty for the float network.
    """

    choices: Choices
    configuration: Configuration = _FLOAT

    @property
    def digest(self) -> str:
        """Content hash of both (16 hex digits)."""
        return _digest([self.choices.pairs, self.configuration.pairs])

    def to_dict(self) -> dict[str, Any]:
        """``{"architecture": {dimension: value}, "formats": {site: format}}``."""
        return {"architecture": self.choices.to_dict(), "formats": self.configuration.to_dict()}

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Genome:
        """What ``to_dict`` wrote.

        Raises:
            InvalidInput: other keys, or values of another kind.
            UnknownFormat: a format name is not in the grammar.
        """
        if set(content) != {"architecture", "formats"} or not all(
            isinstance(part, Mapping) for part in content.values()
        ):
            raise InvalidInput(
                f'a genome is {{"architecture": {{…}}, "formats": {{…}}}}, got the keys {sorted(content)}'
            )
        for site, name in content["formats"].items():
            if not isinstance(name, str):
                raise InvalidInput(f"site {site!r} needs the name of a format, such as 'w4', got {name!r}")
        return Genome(Choices.from_dict(content["architecture"]), Configuration.from_dict(content["formats"]))

    def to_json(self, path: str | Path) -> None:
        """Write as JSON (written to the side, synced, then renamed)."""
        write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @staticmethod
    def from_json(path: str | Path) -> Genome:
        """Read what ``to_json`` wrote.

        Raises:
            InvalidInput: the file is missing or holds something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as cause:
            raise InvalidInput(f"cannot read the genome {path}: {cause.strerror}") from None
        except ValueError as cause:
            raise InvalidInput(f"{path} is not JSON: {cause}") from None
        if not isinstance(content, dict):
            raise InvalidInput(f"{path} must hold one JSON object")
        return Genome.from_dict(content)


@dataclass(frozen=True)
class ArchitectureSpace:
    """The dimensions of a family, and which of them share a value.

    Attributes:
        dimensions: in an order in which every condition names an earlier dimension.
        ties: groups of dimensions that take one value (where they exist).
    """

    dimensions: tuple[Dimension, ...]
    ties: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        known: dict[str, Dimension] = {}
        for each in self.dimensions:
            if each.name in known:
                raise InvalidInput(f"two dimensions are called {each.name!r}")
            for parent, values in each.when:
                if parent not in known or not set(values) <= set(known[parent].values):
                    raise InvalidInput(
                        f"dimension {each.name!r} exists only when {parent!r} is one of {list(values)}, which must be "
                        "values of an earlier dimension"
                    )
            known[each.name] = each
        seen: set[str] = set()
        for tie in self.ties:
            unknown = [name for name in tie if name not in known]
            if unknown or len(tie) < 2 or seen & set(tie) or len({known[name].values for name in tie}) > 1:
                raise InvalidInput(
                    f"tie {list(tie)}: name two or more dimensions with the same values, each in one tie"
                )
            seen |= set(tie)

    @cached_property
    def by_name(self) -> dict[str, Dimension]:
        """The dimensions by name."""
        return {each.name: each for each in self.dimensions}

    @property
    def digest(self) -> str:
        """Content hash of dimensions and ties (16 hex digits)."""
        return _digest(
            [[[d.name, d.kind, d.values, d.when] for d in self.dimensions], sorted(sorted(tie) for tie in self.ties)]
        )

    def existing(self, values: Mapping[str, Value]) -> list[Dimension]:
        """The dimensions that exist under these values, in order; values of others do not count."""
        found: dict[str, Dimension] = {}
        for each in self.dimensions:
            if all(parent in found and values.get(parent) in allowed for parent, allowed in each.when):
                found[each.name] = each
        return list(found.values())

    def choices(self, values: Mapping[str, Value]) -> Choices:
        """Checked choices: values of dimensions that do not exist are left out, others are as the dimension has them.

        Raises:
            InvalidInput: an unknown dimension, a missing or impossible value, or a broken tie.
        """
        unknown = sorted(set(values) - set(self.by_name))
        if unknown:
            raise InvalidInput(
                f"no dimension is called {unknown[0]!r}; there are {', '.join(list(self.by_name)[:8])} …"
            )
        existing = self.existing(values)
        for each in existing:
            if each.name not in values:
                raise InvalidInput(f"dimension {each.name!r} needs one of {list(each.values)}")
            if values[each.name] not in each.values:
                raise InvalidInput(f"dimension {each.name!r} is one of {list(each.values)}, got {values[each.name]!r}")
        found = Choices(tuple((each.name, each.values[each.values.index(values[each.name])]) for each in existing))
        for tie in self.ties:
            if len({found[name] for name in tie if name in found}) > 1:
                raise InvalidInput(f"dimensions {', '.join(tie)} must share a value")
        return found

    def from_indices(self, indices: Sequence[int] | NDArray[Any]) -> Choices:
        """Choices of a vector of indices into ``values`` [dimensions]; the inverse of ``indices``.

        Indices of dimensions that do not exist do not count; a tie takes the value of its first dimension that has an
        index (is not -1).

        Raises:
            InvalidInput: too few or too many indices, one out of range, or -1 for a dimension that exists.
        """
        if len(indices) != len(self.dimensions):
            raise InvalidInput(f"{len(indices)} indices for {len(self.dimensions)} dimensions; give one for each")
        given: dict[str, Value] = {}
        for each, index in zip(self.dimensions, map(int, indices), strict=True):
            if not -1 <= index < len(each.values):
                raise InvalidInput(
                    f"dimension {each.name!r}: index {index} is out of range; it has {len(each.values)} values "
                    "(-1: it does not exist)"
                )
            if index >= 0:
                given[each.name] = each.values[index]
        for tie in self.ties:
            known = [given[name] for name in tie if name in given]
            given |= dict.fromkeys(tie, known[0]) if known else {}
        return self.choices(given)

    def indices(self, choices: Mapping[str, Value]) -> NDArray[np.int64]:
        """Indices into ``values`` [dimensions], -1 where a dimension does not exist."""
        return np.array(
            [each.values.index(choices[each.name]) if each.name in choices else -1 for each in self.dimensions],
            dtype=np.int64,
        )

    def sample(self, draw: np.random.Generator) -> Choices:
        """Random choices: every dimension uniform over its values."""
        return self.from_indices([int(draw.integers(len(each.values))) for each in self.dimensions])

    def largest(self) -> Choices:
        """The last value of every dimension."""
        return self.from_indices([len(each.values) - 1 for each in self.dimensions])

    def smallest(self) -> Choices:
        """The first value of every dimension."""
        return self.from_indices([0] * len(self.dimensions))

    def all(self) -> Iterator[Choices]:
        """Every architecture once; for small spaces."""
        yield from (Choices(tuple(values.items())) for values in self._completed({}, 0))

    def _completed(self, values: dict[str, Value], position: int) -> Iterator[dict[str, Value]]:
        """Every way to go on from the dimensions before a position."""
        if position == len(self.dimensions):
            yield values
            return
        each = self.dimensions[position]
        if not all(parent in values and values[parent] in allowed for parent, allowed in each.when):
            yield from self._completed(values, position + 1)
            return
        tie = next((tie for tie in self.ties if each.name in tie), ())
        tied = [values[name] for name in tie if name in values]
        for value in tied[:1] or each.values:
            yield from self._completed({**values, each.name: value}, position + 1)


@runtime_checkable
class Family(Protocol):
    """A family of networks: what ``space.architecture`` of a job names, and what a user may bring.

    Attributes:
        name: for records.
        architecture: its dimensions.
    """

    name: str
    architecture: ArchitectureSpace

    def build(self, choices: Choices) -> nn.Module:
        """The network of these choices as a plain module in evaluation mode, with its weights.

        A supernet cuts them out of its own; the caller may change the module without changing the family.
        """
        ...

    def resolution(self, choices: Choices) -> int | None:
        """Height and width in pixels that inputs must be resized to (bilinear), ``None`` to leave them."""
        ...

    @property
    def digest(self) -> str:
        """Content hash of all that ``build`` depends on, the weights included (16 hex digits)."""
        ...


def _check_scalar(name: str, value: Any) -> None:
    if not isinstance(value, (int, float, str)) or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidInput(f"dimension {name!r}: a value is a number, a text, true or false, got {value!r}")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()[:16]
