"""Parameters that several routes take; whatever is not stored as text by every database is refused here."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Path, Query

_TEXT = r"^[^\x00]*$"
MOST_ID = 2**53  # beyond it JSON readers round

JobId = Annotated[
    str, Path(pattern="^[A-Za-z0-9_-]+$", max_length=32, description="of a job", examples=["3f2a9c51d0e7"])
]
UserName = Annotated[str, Path(pattern=_TEXT, min_length=1, max_length=80, examples=["ann"])]
ArtifactName = Annotated[str, Path(pattern=_TEXT, min_length=1, max_length=300, examples=["export/p05.onnx"])]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern="^[!-~]+$",
        description="a second request with it gives what the first one made",
    ),
]
Cursor = Annotated[
    str | None, Query(max_length=200, pattern="^[!-~]+$", description="of the page before; none: the first page")
]
PartOfName = Annotated[str, Query(max_length=200, pattern=_TEXT, description="part of the name")]
OwnerName = Annotated[str | None, Query(max_length=80, pattern=_TEXT, description="only theirs")]
