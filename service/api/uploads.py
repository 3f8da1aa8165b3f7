"""Routes that take files: weights, exported programs, data, latency tables. They are checked, never loaded here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import anyio.from_thread
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from ...store import Upload
from .identity import Submitter, Viewer
from .notes import notes_of
from .plain import plain
from .responses import ALWAYS, problems
from .state import state_of

router = APIRouter(tags=["uploads"], responses=ALWAYS)
Kind = Literal["weights", "exported", "data", "table"]
_BODY = {
    "requestBody": {
        "required": True,
        "description": "the bytes of the file",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
FileName = Annotated[
    str,
    Query(
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_. +-]*$",
        description="of the file; its ending says what it is",
        examples=["weights.safetensors"],
    ),
]


class UploadView(BaseModel):
    """A file that was sent; jobs name it ``upload:SHA256``."""

    sha256: str
    kind: Kind
    name: str
    owner: str
    bytes: int
    details: dict[str, Any] = Field(description="such as the device and rows of a latency table")
    at: float = Field(description="when it was first sent")

    @staticmethod
    def of(found: Upload) -> UploadView:
        """From the store."""
        names = ("sha256", "kind", "name", "owner", "bytes", "at")
        fields = {name: getattr(found, name) for name in names}
        return UploadView.model_validate({**fields, "details": plain(found.details)})


class Body:
    """A request's body for code in a thread, read as from a file.

    Args:
        request: whose.
    """

    def __init__(self, request: Request) -> None:
        self._pieces = request.stream().__aiter__()
        self._rest = bytearray()
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes, all that is left if it is negative; nothing at the end."""
        while not self._ended and (size < 0 or len(self._rest) < size):
            self._rest += anyio.from_thread.run(self._next)
        count = len(self._rest) if size < 0 else size
        found = bytes(self._rest[:count])
        del self._rest[:count]
        return found

    async def _next(self) -> bytes:
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            self._ended = True
            return b""


@router.post(
    "/uploads", status_code=201, summary="Send a file", responses=problems(400), openapi_extra=_BODY, name="upload"
)
async def upload(request: Request, who: Submitter, kind: Annotated[Kind, Query()], name: FileName) -> UploadView:
    """Weights are .safetensors, exported programs .pt2, data .npz without objects, tables .csv or .parquet."""
    return await _received(request, who.name, kind, name)


@router.get("/uploads", summary="List the files that were sent", name="list_uploads")
def uploads(request: Request, who: Viewer, kind: Annotated[Kind | None, Query()] = None) -> list[UploadView]:
    """Oldest first."""
    return [UploadView.of(each) for each in state_of(request).artifacts.uploads(kind or "")]


@router.post(
    "/tables", status_code=201, summary="Send measured latencies", responses=problems(400), openapi_extra=_BODY
)
async def add_table(request: Request, who: Submitter, name: FileName) -> UploadView:
    """A .csv or .parquet of kernels; jobs that waited for its devices go on."""
    return await _received(request, who.name, "table", name)


@router.get("/tables", summary="List the latency tables that were sent")
def tables(request: Request, who: Viewer) -> list[UploadView]:
    """Oldest first; GET /devices lists all tables that answer."""
    return [UploadView.of(each) for each in state_of(request).artifacts.uploads("table")]


async def _received(request: Request, owner: str, kind: Kind, name: str) -> UploadView:
    state = state_of(request)
    body = Body(request)

    def kept() -> Upload:
        from ..uploads import accept

        return accept(body, kind, name, owner, state.settings, state.store)

    found = await run_sync(kept, limiter=state.upload_threads)
    notes_of(request).target = f"upload:{found.sha256}"
    notes_of(request).detail = f"{kind} {name}, {found.bytes} bytes"
    return UploadView.of(found)
