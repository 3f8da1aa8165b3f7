"""What the layers of the server tell each other about a request, until its line of the audit trail is written."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from ...store import Identity


@dataclass
class Notes:
    """Of one request.

    Attributes:
        who: asks; ``None`` while nobody was identified.
        action: such as ``"cancel"``; empty: the name of the route.
        target: what it is about; empty: taken from the path.
        detail: why it was refused, or what came of it; never a secret.
        audited: whether a refusal is worth a line of the audit trail.
    """

    who: Identity | None = None
    action: str = ""
    target: str = ""
    detail: str = ""
    audited: bool = True


def notes_in(scope: MutableMapping[str, Any]) -> Notes:
    """The notes of a request, by its ASGI scope."""
    found: Notes = scope.setdefault("state", {}).setdefault("bitfront_notes", Notes())
    return found


def notes_of(request: Request) -> Notes:
    """The notes of a request."""
    return notes_in(request.scope)
