"""Files of jobs: looked up by name in the store, never in the file system."""

from __future__ import annotations

import hashlib
import logging
import mimetypes
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse

from ...errors import Conflict, NotFound
from ...store import Job, StoredFile
from ..locations import is_url, opened
from ..settings import Settings
from .identity import Viewer
from .parameters import ArtifactName, JobId
from .responses import ALWAYS, problems, problems_of_stream
from .state import state_of
from .views import ArtifactView

router = APIRouter(tags=["artifacts"], responses=ALWAYS)
_LOG = logging.getLogger("bitfront.api")
_PIECE = 1 << 18
_TAG = {"ETag": {"description": 'the SHA-256, `"sha256-…"`', "schema": {"type": "string"}}}


class Torn(RuntimeError):
    """A file is not what was recorded; the connection breaks off, so that nobody takes it for whole."""


@router.get("/jobs/{job_id}/artifacts", summary="The files that a job wrote", responses=problems(404))
def artifacts(request: Request, who: Viewer, job_id: JobId) -> list[ArtifactView]:
    """By name; a job's files are recorded when it ends."""
    state = state_of(request)
    state.queue.job(job_id)
    return [ArtifactView.of(each) for each in state.artifacts.of(job_id)]


@router.get(
    "/jobs/{job_id}/artifacts/{name:path}",
    summary="One file of a job",
    name="download",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}, "headers": _TAG},
        304: {"description": "it is the one of If-None-Match", "headers": _TAG},
        **problems_of_stream(404, 409),
    },
)
def download(
    request: Request,
    who: Viewer,
    job_id: JobId,
    name: ArtifactName,
    if_none_match: Annotated[str | None, Header(max_length=1000)] = None,
) -> Response:
    """The bytes, checked against the recorded hash while they go out: a torn file breaks off before its end."""
    state = state_of(request)
    job = state.queue.job(job_id)
    file = state.artifacts.get(job_id, name)
    tag = f'"sha256-{file.sha256}"'
    if if_none_match is not None and tag in (each.strip().removeprefix("W/") for each in if_none_match.split(",")):
        return Response(status_code=304, headers={"ETag": tag})
    location = inside(file, job, state.settings)
    headers = {
        "ETag": tag,
        "Content-Length": str(file.bytes),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(Path(name).name, safe='')}",
        "Cache-Control": "private, no-cache",
    }
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return StreamingResponse(_checked(location, file), media_type=kind, headers=headers)


def inside(file: StoredFile, job: Job, settings: Settings) -> str:
    """Where the bytes lie, if that is below the job's output folder, links followed.

    Raises:
        NotFound: it is not, or there is no such file any more.
        Conflict: it has another size than was recorded.
    """
    root = job.out or f"{settings.outputs.rstrip('/')}/{job.id}"
    gone = NotFound(f"artifact {file.name!r} of job {job.id} is no longer there")
    if is_url(file.location):
        parts = file.location.removeprefix(f"{root.rstrip('/')}/").split("/")
        if not file.location.startswith(f"{root.rstrip('/')}/") or ".." in parts:
            _LOG.error("artifact %r of job %s lies outside the job's folder", file.name, job.id)
            raise gone
        return file.location
    path = Path(file.location).resolve()
    if is_url(root) or not path.is_relative_to(Path(root).resolve()):
        _LOG.error("artifact %r of job %s lies outside the job's folder", file.name, job.id)
        raise gone
    if not path.is_file():
        raise gone
    if (size := path.stat().st_size) != file.bytes:
        raise Conflict(
            f"artifact {file.name!r} of job {job.id} has {size} bytes, {file.bytes} were recorded: it was changed or "
            "torn; submit the job again"
        )
    return str(path)


def _checked(location: str, file: StoredFile) -> Iterator[bytes]:
    """The pieces, the last one only when the hash is right.

    Raises:
        Torn: it is not.
    """
    content, sent = hashlib.sha256(), 0
    with opened(location, "artifact") as stream:
        piece = stream.read(_PIECE)
        while piece:
            content.update(piece)
            sent += len(piece)
            following = stream.read(_PIECE)
            if not following and (sent != file.bytes or content.hexdigest() != file.sha256):
                _LOG.error("artifact %r at %s is not what was recorded", file.name, location)
                raise Torn(f"artifact {file.name!r} is not what was recorded")
            yield piece
            piece = following
