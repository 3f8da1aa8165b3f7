"""``front.json`` of a search for architectures and formats: every point has a network of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import InvalidInput
from ..service.document_parts import Part
from ..service.front_document import Front, Point, Site, read_front


class JointPoint(Point):
    """A point with the value of every dimension of its network."""

    architecture: dict[str, Any]
    architecture_digest: str


class Architecture(Part):
    """A network that was assessed; ``sites`` of those that were measured."""

    sites: tuple[Site, ...] | None = None


class JointFront(Front):
    """The front of a joint search; ``model`` is the largest network."""

    points: tuple[JointPoint, ...]
    architectures: dict[str, Architecture]

    @property
    def every_site(self) -> tuple[Site, ...]:
        """The layers of the largest network, then those that only others have, by name."""
        found = {site.name: site for site in self.model.sites}
        for one in self.architectures.values():
            for site in one.sites or ():
                found.setdefault(site.name, site)
        return tuple(found.values())

    def sites_of(self, point: JointPoint) -> tuple[Site, ...]:
        """The layers of a point's network."""
        return self.architectures[point.architecture_digest].sites or ()


def read_any_front(path: str | Path) -> Front:
    """The front of a search, a ``JointFront`` for one of architectures and formats.

    Args:
        path: of ``front.json``.

    Raises:
        InvalidInput: as ``read_front``, or the parts about architectures are missing.
    """
    front = read_front(path)
    document = json.loads(Path(path).read_text(encoding="utf-8"))
    if document.get("kind") != "joint":
        return front
    try:
        return JointFront.model_validate(document)
    except ValidationError as cause:
        first = cause.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise InvalidInput(f"front document, at {place}: {first['msg']}") from None
