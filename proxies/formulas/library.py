"""Formulas as readable data: what each computes, where it was found, and what it was worth on data not used for that.

A library is a JSON file ``{"version": 1, "formulas": [entry, …]}``, better entries before worse ones; see ``Entry`` for
the keys. The package ships one (``library.json``); a search for a user's own model writes another.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from ...errors import InvalidInput
from ...files import write_text
from .expression import Formula

Kind = Literal["released", "evolved"]
_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """A formula that can be named.

    Attributes:
        name: of the proxy.
        kind: ``released`` by others, or ``evolved`` by a search of bitfront.
        expression: text form of the formula.
        orientation: 1 where a higher score means a higher loss, -1 where it means a lower one.
        summary: one line.
        source: paper, or the command that found it.
        found: networks, digests of the benches, date, settings, as plain data.
        held_out: what it was worth on configurations and networks that did not choose it, as plain data.
        assumptions: what was decided where the source is silent.
    """

    name: str
    kind: Kind
    expression: str
    orientation: int
    summary: str
    source: str
    found: Mapping[str, Any] = field(default_factory=dict)
    held_out: Mapping[str, Any] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InvalidInput(f"formula {self.name}: kind {self.kind!r}; expected one of {', '.join(get_args(Kind))}")
        if self.orientation not in (1, -1):
            raise InvalidInput(f"formula {self.name}: orientation {self.orientation!r}; expected 1 or -1")
        if self.kind == "evolved" and not (self.found and self.held_out):
            raise InvalidInput(
                f"formula {self.name}: an evolved one says where it was found and its held-out numbers; "
                "give found and held_out"
            )
        if str(self.formula) != self.expression:
            raise InvalidInput(f"formula {self.name}: write {self.expression!r} in its own form: '{self.formula}'")

    @property
    def formula(self) -> Formula:
        """The expression, parsed."""
        return Formula.parse(self.expression)


def read_library(path: str | Path | None = None) -> dict[str, Entry]:
    """The formulas of a file by name, in its order.

    Args:
        path: of the file; ``None``: the library that is shipped.

    Raises:
        InvalidInput: no such file, or not a library of formulas.
    """
    where = path or "library.json of bitfront.proxies.formulas"
    try:
        text = Path(path).read_text("utf-8") if path else files(__package__).joinpath("library.json").read_text("utf-8")
        content = json.loads(text)
    except (OSError, ValueError) as cause:
        raise InvalidInput(f"{where} is no library of formulas: {cause}") from None
    if not isinstance(content, dict) or content.get("version") != _VERSION or "formulas" not in content:
        raise InvalidInput(f'{where} is no library of formulas: expected {{"version": {_VERSION}, "formulas": […]}}')
    entries = [_entry(each) for each in content["formulas"]]
    found = {entry.name: entry for entry in entries}
    if len(found) < len(entries):
        raise InvalidInput(f"{where} names a formula twice; give each a name of its own")
    return found


def write_library(path: str | Path, entries: Iterable[Entry]) -> None:
    """Write formulas, better ones first, to one file, complete or not at all."""
    content = {"version": _VERSION, "formulas": [asdict(entry) for entry in entries]}
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def best_evolved(library: Mapping[str, Entry]) -> Entry | None:
    """The first evolved formula of a library, if it holds one."""
    return next((entry for entry in library.values() if entry.kind == "evolved"), None)


def _entry(content: object) -> Entry:
    known = [each.name for each in fields(Entry)]
    if not isinstance(content, dict):
        raise InvalidInput(f"a formula of a library is an object with {', '.join(known)}; got {content!r}")
    for name in content:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise InvalidInput(f"a formula of a library has no {name!r}; did you mean {near!r}?")
    try:
        return Entry(**{**content, "assumptions": tuple(content.get("assumptions", ()))})
    except TypeError as cause:
        missing = [name for name in known[:6] if name not in content]
        raise InvalidInput(f"a formula of a library lacks {', '.join(missing) or cause}") from None
