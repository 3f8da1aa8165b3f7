"""Reading server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One message of a stream.

    Attributes:
        event: its type.
        data: its lines, joined.
        id: its own; ``None``: it has none, and a stream cannot go on after it.
    """

    event: str
    data: str
    id: str | None


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """The messages in the lines of a stream; comments are passed over, and so is one that the stream broke off in.

    >>> list(messages([": alive", "id: 7", "event: log", 'data: {"line": "x"}', "", "data: half"]))
    [Message(event='log', data='{"line": "x"}', id='7')]
    """
    event, data = "", list[str]()
    own: str | None = None
    for line in lines:
        if not line:
            if data:
                yield Message(event or "message", "\n".join(data), own)
            event, data, own = "", [], None
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            own = value
