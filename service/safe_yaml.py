"""YAML and JSON from strangers: bounded in size, depth and nodes, plain data only, errors with line and column.

An alias costs the nodes that it stands for, so a few lines of nested aliases cannot become gigabytes ("billion
laughs"); tags, which would construct objects, are refused; so are keys given twice, of which one would be ignored.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import yaml

from ..errors import InvalidInput

_LONGEST_NUMBER = 60  # characters; long numbers in base 60 take quadratic time
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")  # no database stores them as text


@dataclass(frozen=True)
class Bounds:
    """How much a document may hold.

    Attributes:
        most_bytes: of UTF-8.
        most_depth: lists and mappings inside each other.
        most_nodes: scalars, lists and mappings, each alias counted as what it stands for.
        most_anchors: anchors and aliases.
    """

    most_bytes: int = 1_000_000
    most_depth: int = 20
    most_nodes: int = 20_000
    most_anchors: int = 100


def load(
    text: str,
    *,
    most_bytes: int = Bounds.most_bytes,
    most_depth: int = Bounds.most_depth,
    most_nodes: int = Bounds.most_nodes,
    origin: str = "the document",
) -> Any:
    """Plain data from YAML, or from JSON.

    Args:
        text: the document.
        most_bytes: of UTF-8.
        most_depth: lists and mappings inside each other.
        most_nodes: scalars, lists and mappings, each alias counted as what it stands for.
        origin: names the document in errors.

    Returns:
        ``None``, texts, whole numbers of 64 bits, finite numbers, booleans, lists, and mappings with texts as keys.
        Dates stay texts.

    Raises:
        InvalidInput: it is neither, or exceeds a bound; with line and column where there is one.
    """
    bounds = Bounds(most_bytes, most_depth, most_nodes)
    if len(text) > most_bytes or len(text.encode(errors="surrogatepass")) > most_bytes:
        raise InvalidInput(f"{origin} is longer than {most_bytes} bytes")
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text, object_pairs_hook=_object)
        except json.JSONDecodeError:
            pass  # a flow mapping of YAML starts so too
        except (RecursionError, ValueError) as cause:
            told = "is nested too deeply" if isinstance(cause, RecursionError) else f"is not usable JSON: {cause}"
            raise InvalidInput(f"{origin} {told}") from None
        else:
            check(found, bounds, origin)
            return found
    try:
        loader = _Loader(text, bounds)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as cause:
        raise InvalidInput(f"{origin} is not YAML: character {cause.character:#x} at {cause.position}") from None
    except yaml.YAMLError as cause:
        mark = getattr(cause, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(cause, "problem", None) or " ".join(str(cause).split())
        told = "cannot be used" if isinstance(cause, _Refused) else "is not YAML"
        raise InvalidInput(f"{origin} {told}{where}: {problem}") from None


def check(content: Any, bounds: Bounds, origin: str) -> None:
    """Hold plain data that came some other way to the same bounds.

    Raises:
        InvalidInput: it exceeds one.
    """
    count = 0
    waiting: list[tuple[Any, int]] = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if count > bounds.most_nodes:
            raise InvalidInput(f"{origin} holds more than {bounds.most_nodes} values")
        if isinstance(value, dict | list):
            if depth >= bounds.most_depth:
                raise InvalidInput(f"{origin} is nested deeper than {bounds.most_depth}")
            inner = value if isinstance(value, list) else [*value.values(), *value]
            waiting += [(each, depth + 1) for each in inner]
        elif (problem := _scalar_problem(value)) is not None:
            raise InvalidInput(f"{origin}: {problem}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key[:80]!r} is given twice")
        found[key] = value
    return found


def _scalar_problem(value: Any) -> str | None:
    """Why a scalar cannot be kept; ``None`` if it can."""
    if isinstance(value, str):
        return "a text holds NUL or half a surrogate pair" if _NOT_TEXT.search(value) else None
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else "a whole number is beyond 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else "a number is infinite or not a number"
    return f"a value is of type {type(value).__name__}; expected plain data"


class _Refused(yaml.MarkedYAMLError):
    """A document beyond the bounds."""


def _refuse(problem: str, mark: Any) -> _Refused:
    return _Refused(problem=problem, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    """Composes within bounds and constructs plain data only."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (as in the base class) dates stay texts
        first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str, bounds: Bounds) -> None:
        super().__init__(text)
        self._bounds = bounds
        self._depth = 0
        self._nodes = 0
        self._anchored = 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if getattr(event, "tag", None) is not None:
            raise _refuse(f"the tag {event.tag!r} is not allowed; give plain data", mark)
        if event.anchor is not None:
            self._anchored += 1
            if self._anchored > self._bounds.most_anchors:
                raise _refuse(f"more than {self._bounds.most_anchors} anchors and aliases", mark)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self._sizes:
                raise _refuse(f"the anchor {event.anchor!r} holds itself", mark)
            self._count(self._sizes.get(str(event.anchor), 1), mark)
            return super().compose_node(parent, index)
        before = self._nodes
        self._count(1, mark)
        self._depth += not isinstance(event, yaml.ScalarEvent)
        if self._depth > self._bounds.most_depth:
            raise _refuse(f"nested deeper than {self._bounds.most_depth}", mark)
        node = super().compose_node(parent, index)
        self._depth -= not isinstance(event, yaml.ScalarEvent)
        if event.anchor is not None:
            self._sizes[event.anchor] = self._nodes - before
        return node

    def _count(self, nodes: int, mark: Any) -> None:
        self._nodes += nodes
        if self._nodes > self._bounds.most_nodes:
            raise _refuse(f"more than {self._bounds.most_nodes} values, aliases counted as what they stand for", mark)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if number and len(node.value) > _LONGEST_NUMBER:
            raise _refuse(f"a number of more than {_LONGEST_NUMBER} characters", node.start_mark)
        try:
            value = super().construct_object(node, deep)
        except ValueError as cause:
            raise _refuse(f"{node.value[:40]!r} is no number: {cause}", node.start_mark) from None
        if isinstance(node, yaml.ScalarNode) and (problem := _scalar_problem(value)) is not None:
            raise _refuse(problem, node.start_mark)
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: dict[str, Any] = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                told = f"the key {key.value!r}" if isinstance(key, yaml.ScalarNode) else "a key"
                raise _refuse(f"{told} is no text; put it in quotes", key.start_mark)
            if key.value in seen:
                first = seen[key.value].start_mark.line + 1
                raise _refuse(f"the key {key.value!r} is given twice (first in line {first})", key.start_mark)
            seen[key.value] = key
        return super().construct_mapping(node, deep)
