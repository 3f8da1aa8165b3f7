"""Files: what jobs wrote and what users sent, each with its size and SHA-256; the bytes lie in a folder or bucket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select

from ..errors import NotFound
from .clock import now
from .queue_models import Artifact, Upload
from .store import Store


@dataclass(frozen=True)
class StoredFile:
    """A file.

    Attributes:
        name: shown to people; of an artifact its path below the output folder.
        location: path or URL of the bytes.
        bytes: size.
        sha256: of the content.
    """

    name: str
    location: str
    bytes: int
    sha256: str


class Artifacts:
    """Artifacts of jobs and uploads of users.

    Args:
        store: where; a ``LeasedStore`` writes only while its lease holds.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def put(self, job_id: str, files: list[StoredFile]) -> None:
        """Record what a job wrote, in place of what was recorded before."""
        with self.store.writing() as session:
            session.execute(delete(Artifact).where(Artifact.job_id == job_id))
            at = now(session)
            session.add_all(
                Artifact(
                    job_id=job_id, name=file.name, location=file.location, bytes=file.bytes, sha256=file.sha256, at=at
                )
                for file in files
            )

    def of(self, job_id: str) -> list[StoredFile]:
        """What a job wrote, by name."""
        with self.store.session() as session:
            kept = select(Artifact).where(Artifact.job_id == job_id, ~Artifact.removing)
            rows = session.scalars(kept.order_by(Artifact.name))
            return [StoredFile(row.name, row.location, row.bytes, row.sha256) for row in rows]

    def get(self, job_id: str, name: str) -> StoredFile:
        """One file of a job.

        Raises:
            NotFound: the job wrote none of this name, or its files were removed.
        """
        with self.store.session() as session:
            row = session.get(Artifact, (job_id, name))
        if row is None or row.removing:
            raise NotFound(f"job {job_id} has no artifact {name!r}")
        return StoredFile(row.name, row.location, row.bytes, row.sha256)

    def add_upload(self, kind: str, file: StoredFile, owner: str, details: Mapping[str, Any] | None = None) -> None:
        """Record what a user sent; content that is known stays as it is."""
        with self.store.writing() as session:
            if session.get(Upload, file.sha256) is None:
                at = now(session)
                session.add(
                    Upload(
                        sha256=file.sha256,
                        kind=kind,
                        name=file.name,
                        owner=owner,
                        location=file.location,
                        bytes=file.bytes,
                        details=dict(details or {}),
                        at=at,
                    )
                )

    def upload(self, sha256: str) -> Upload:
        """What was sent under a content hash.

        Raises:
            NotFound: nothing.
        """
        with self.store.session() as session:
            row = session.get(Upload, sha256)
        if row is None:
            raise NotFound(f"no upload {sha256!r}; send the file first")
        return row

    def uploads(self, kind: str = "") -> list[Upload]:
        """What was sent, oldest first."""
        query = select(Upload).order_by(Upload.at, Upload.sha256)
        with self.store.session() as session:
            return list(session.scalars(query.where(Upload.kind == kind) if kind else query))
