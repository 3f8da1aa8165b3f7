"""The Python client of a bitfront server: the verbs of the command line as methods."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from ..errors import BitfrontError, InvalidInput, NotFound
from ..files import replacing
from .client_front import frame_of
from .client_views import ArtifactView, JobEvent, JobView
from .event_stream import messages
from .http_connection import HttpConnection, Unreachable
from .sent_files import job_content, with_sent_files
from .settings import DEFAULT_PORT

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SERVER_VARIABLE", "ArtifactView", "Client", "JobEvent", "JobView", "Unreachable", "WaitedTooLong"]

SERVER_VARIABLE = "BITFRONT_SERVER"
DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}"
_STREAM_TRIES = 9  # to reach a server again that restarts: about 45 s
_LOOK_EVERY = 2.0  # seconds at most between two looks at a job that is waited for


class WaitedTooLong(BitfrontError, TimeoutError):
    """A job did not end within the time that its caller would wait."""


class Client:
    """Talks to a bitfront server; use it as a context manager, or close it.

    Args:
        url: of the server; by default ``$BITFRONT_SERVER``, else ``http://127.0.0.1:8765``.
        token: bearer token; by default ``$BITFRONT_TOKEN``, else the one that `bitfront serve` wrote for this URL.
        timeout: seconds to wait for an answer.
        transport: of httpx, instead of the network.

    All methods raise the package's own errors with the server's line: ``NotFound``, ``Conflict``, ``Refused``,
    ``InvalidInput`` and its kinds, ``Unreachable``. What can be sent twice without harm is sent again when a connection
    breaks; a submission always can, since it carries an idempotency key.

    >>> client = Client("http://127.0.0.1:8765", token="bf_0123")
    >>> job = client.submit("job.yaml", priority=5)  # doctest: +SKIP
    >>> client.wait(job.id).state  # doctest: +SKIP
    'succeeded'
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        where = url or os.environ.get(SERVER_VARIABLE) or DEFAULT_URL
        self._server = HttpConnection(where, token, timeout, transport)
        self.url = self._server.url

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._server.close()

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def submit(
        self,
        job: str | Path | Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        priority: int = 0,
        attempts: int | None = None,
        seconds: float | None = None,
    ) -> JobView:
        """Queue a job.

        Args:
            job: path of a YAML file, whose data and weights are sent first; the job as a mapping; or YAML text of more
                than one line.
            idempotency_key: a second submission with it gives the first one's job; by default a new one.
            priority: higher ones first.
            attempts: claims before a job that kills its workers counts as failed; by default the server's.
            seconds: of workers' time over all attempts; by default no limit.

        Raises:
            InvalidInput: the job breaks the schema, or can never run.
            Conflict: the key was used for another job.
            Refused: it names what this server does not allow.
        """
        content, kind = self._body(job)
        limits = {"priority": priority, "attempts": attempts, "seconds": seconds}
        response = self._server.ask(
            "POST",
            "/v1/jobs",
            again=True,
            content=content,
            params={name: value for name, value in limits.items() if value is not None},
            headers={"Content-Type": kind, "Idempotency-Key": idempotency_key or uuid.uuid4().hex},
        )
        return JobView.of(response.json())

    def check(self, job: str) -> dict[str, Any]:
        """What is wrong with a job (YAML text) and on which line, and how long it would work; nothing is queued.

        Returns:
            ``problems`` (message, line, column), ``name``, ``waits_for``, ``estimate`` (seconds, low, high, jobs).
        """
        headers = {"Content-Type": "application/yaml"}
        answer = self._server.ask("POST", "/v1/jobs/check", again=True, content=job.encode(), headers=headers)
        found: dict[str, Any] = answer.json()
        return found

    def jobs(self, *, state: str | None = None, owner: str | None = None, name: str = "") -> Iterator[JobView]:
        """The jobs, the newest first, page by page as they are read.

        Args:
            state: only in this one.
            owner: only theirs.
            name: only names that contain this.
        """
        chosen = {"state": state, "owner": owner, "name": name or None}
        for row in self._pages("/v1/jobs", "jobs", {key: value for key, value in chosen.items() if value is not None}):
            yield JobView.of(row)

    def show(self, job_id: str) -> JobView:
        """A job in full: with its specification, its record and its conditions."""
        return JobView.of(self._get(_job(job_id)))

    def cancel(self, job_id: str) -> JobView:
        """End a job."""
        return self._change(job_id, "cancel", again=True)

    def pause(self, job_id: str) -> JobView:
        """Stop a job so that it can go on."""
        return self._change(job_id, "pause", again=True)

    def resume(self, job_id: str) -> JobView:
        """Queue a paused job again; what was measured is not measured again."""
        return self._change(job_id, "resume")

    def retry(self, job_id: str) -> JobView:
        """Queue a failed or cancelled job again, with all its attempts."""
        return self._change(job_id, "retry")

    def wait(
        self, job_id: str, timeout: float | None = None, watch: Callable[[JobView], object] | None = None
    ) -> JobView:
        """Wait until a job has ended or is paused.

        Args:
            job_id: which.
            timeout: seconds to wait at most; ``None``: as long as it takes.
            watch: called with the job at every look.

        Returns:
            The job in full.

        Raises:
            WaitedTooLong: it goes on.
        """
        until = None if timeout is None else time.monotonic() + timeout
        pause = 0.1
        while True:
            found = self.show(job_id)
            if watch is not None:
                watch(found)
            if found.ended or found.state == "paused":
                return found
            left = pause if until is None else until - time.monotonic()
            if left <= 0:
                raise WaitedTooLong(f"job {job_id} is {found.state} after {timeout:g} s; it goes on")
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LOOK_EVERY)

    def events(self, job_id: str, after: int = 0) -> Iterator[JobEvent]:
        """What a job tells, as it comes, until it has ended; a broken stream goes on where it was.

        Args:
            job_id: which.
            after: id of the last event that is known.

        Raises:
            Unreachable: the server cannot be reached again.
        """
        last, failures = after, 0
        while True:
            try:
                headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last)}
                with self._server.stream(f"{_job(job_id)}/events", headers) as response:
                    for message in messages(response.iter_lines()):
                        failures = 0
                        if message.event == "end":
                            return
                        if message.id is not None:
                            last = int(message.id)
                            yield JobEvent(last, message.event, json.loads(message.data))
            except Unreachable:
                failures += 1
                if failures == _STREAM_TRIES:
                    raise
            time.sleep(min(0.25 * 2.0**failures, 10.0))

    def log(self, job_id: str, *, structured: bool = False) -> str:
        """The log of a job so far.

        Args:
            job_id: which.
            structured: whether as one JSON document a line, with id, kind, time and content.
        """
        params = {"structured": "true"} if structured else {}
        return self._server.ask("GET", f"{_job(job_id)}/log", params=params).text

    # -- results ------------------------------------------------------------------------------------------------------

    def front(self, job_id: str) -> pd.DataFrame:
        """The measured front of a job and its uniform configurations, while it runs or after, as of ``bf.run``."""
        return frame_of(self.front_document(job_id))

    def front_document(self, job_id: str, networks: bool = False) -> dict[str, Any]:
        """The measured front of a job as the server tells it.

        Args:
            job_id: which.
            networks: of a job that searches architectures, the layers of every point's network too.
        """
        found: dict[str, Any] = self._get(f"{_job(job_id)}/front", {"networks": "true"} if networks else None)
        return found

    def columns(self, job_id: str, rows: int | None = None) -> dict[str, Any]:
        """All that a job measured with its scores and prices, one list a column; at most ``rows`` candidates.

        Raises:
            Conflict: the job has neither prices nor scores yet.
            InvalidInput: it searches architectures, whose layers are no columns.
        """
        found: dict[str, Any] = self._get(f"{_job(job_id)}/columns", {"rows": rows} if rows else None)
        return found

    def candidates(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Every configuration that a job has measured, page by page as they are read."""
        yield from self._pages(f"{_job(job_id)}/candidates", "candidates", {})

    def solve(self, job_id: str, **budgets: float) -> dict[str, Any]:
        """The best answer to new budgets, from what was measured and scored; nothing is run.

        Args:
            job_id: which.
            budgets: price -> largest value, such as ``size_mb=3``.

        Raises:
            InfeasibleBudget: no configuration meets them.
        """
        found: dict[str, Any] = self._server.ask(
            "POST", f"{_job(job_id)}/solve", again=True, json={"budgets": budgets}
        ).json()
        return found

    def export(self, job_id: str, point: str = "best", target: str = "onnx") -> JobView:
        """Have a point of a job's front exported and checked back.

        Args:
            job_id: which.
            point: its id, or ``best``.
            target: an export target.

        Returns:
            The job that exports, the same for the same configuration and target; once it has succeeded the artifact is
            one of its files.
        """
        asked = {"point": point, "target": target}
        return JobView.of(self._server.ask("POST", f"{_job(job_id)}/export", again=True, json=asked).json())

    def artifacts(self, job_id: str) -> list[ArtifactView]:
        """The files that a job wrote."""
        found = self._get(f"{_job(job_id)}/artifacts")
        return [ArtifactView(row["name"], row["bytes"], row["sha256"]) for row in found]

    def download(self, job_id: str, name: str, path: str | Path) -> Path:
        """Fetch a file of a job and check its content; the file appears whole or not at all.

        Args:
            job_id: which.
            name: of the artifact.
            path: file to write; or a folder for it, one that is there or is written with a ``/`` at its end.

        Returns:
            The file.

        Raises:
            NotFound: the job has none of this name.
            BitfrontError: what came is not what the job wrote.
        """
        wanted = next((each for each in self.artifacts(job_id) if each.name == name), None)
        if wanted is None:
            raise NotFound(f"job {job_id} has no artifact {name!r}")
        target = Path(path)
        if target.is_dir() or str(path).endswith("/"):
            target = target / PurePosixPath(name).name
        content = hashlib.sha256()
        with replacing(target) as side, side.open("wb") as stream:
            with self._server.stream(f"{_job(job_id)}/artifacts/{quote(name)}") as response:
                for piece in response.iter_bytes():
                    content.update(piece)
                    stream.write(piece)
            if content.hexdigest() != wanted.sha256:
                raise BitfrontError(
                    f"{name} of job {job_id} came with SHA-256 {content.hexdigest()[:12]}…, the job wrote "
                    f"{wanted.sha256[:12]}…; it was changed or torn, fetch it again"
                )
        return target

    # -- the server ---------------------------------------------------------------------------------------------------

    def devices(self) -> list[dict[str, Any]]:
        """The devices that latency can be priced for."""
        found: list[dict[str, Any]] = self._get("/v1/devices")
        return found

    def device(self, name: str) -> dict[str, Any]:
        """One device in full: its data sheet, and the table that answers for each kernel."""
        found: dict[str, Any] = self._get(f"/v1/devices/{quote(name, safe='')}")
        return found

    def workers(self) -> list[dict[str, Any]]:
        """Who runs jobs."""
        found: list[dict[str, Any]] = self._get("/v1/workers")
        return found

    def users(self) -> list[dict[str, Any]]:
        """Names and roles; for administrators."""
        found: list[dict[str, Any]] = self._get("/v1/users")
        return found

    def add_user(self, name: str, role: str) -> dict[str, Any]:
        """Add a user, or give a known one another role; for administrators."""
        found: dict[str, Any] = self._server.ask(
            "POST", "/v1/users", again=True, json={"name": name, "role": role}
        ).json()
        return found

    def remove_user(self, name: str) -> None:
        """Remove a user with all tokens; for administrators."""
        self._server.ask("DELETE", f"/v1/users/{quote(name, safe='')}")

    def new_token(self, name: str, note: str = "", seconds: float | None = None) -> str:
        """A new token of a user, shown this once; for administrators.

        Args:
            name: of the user.
            note: what it is for.
            seconds: until it expires; ``None``: it does not.
        """
        body = {"note": note, "seconds": seconds}
        return str(self._server.ask("POST", f"/v1/users/{quote(name, safe='')}/tokens", json=body).json()["token"])

    def upload(self, path: str | Path, kind: str) -> str:
        """Send a file that jobs may name as ``upload:SHA256``; one that the server has is not sent again.

        Args:
            path: of the file.
            kind: ``weights`` (.safetensors), ``exported`` (.pt2), ``data`` (.npz) or ``table`` (.csv, .parquet).

        Returns:
            Its SHA-256.

        Raises:
            InvalidInput: there is no such file, or the server takes none of this kind and content.
        """
        file = Path(path)
        try:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                known = self._get("/v1/uploads", {"kind": kind})
                if any(each["sha256"] == digest for each in known):
                    return digest
                stream.seek(0)
                params = {"kind": kind, "name": _plain_name(file.name)}
                headers = {"Content-Type": "application/octet-stream", "Content-Length": str(file.stat().st_size)}
                sent = self._server.ask("POST", "/v1/uploads", content=stream, params=params, headers=headers).json()
        except OSError as cause:
            raise InvalidInput(f"cannot read {file}: {cause.strerror or cause}") from None
        if sent["sha256"] != digest:
            raise BitfrontError(f"{file} arrived with another content; it changed while it was sent, send it again")
        return digest

    def tables(self) -> list[dict[str, Any]]:
        """The latency tables that users have sent."""
        found: list[dict[str, Any]] = self._get("/v1/tables")
        return found

    # -- inside -------------------------------------------------------------------------------------------------------

    def _body(self, job: str | Path | Mapping[str, Any]) -> tuple[bytes, str]:
        """Content and media type of a submission."""
        if isinstance(job, str) and "\n" in job:
            return job.encode(), "application/yaml"
        if not isinstance(job, Mapping):
            job = with_sent_files(job_content(job), Path(job).resolve().parent, self.upload)
        return json.dumps(job, allow_nan=False).encode(), "application/json"

    def _get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        return self._server.ask("GET", path, params=dict(params or {})).json()

    def _pages(self, path: str, rows: str, params: Mapping[str, Any]) -> Iterator[Any]:
        cursor: str | None = None
        while True:
            page = self._get(path, {**params, "limit": 200, **({"cursor": cursor} if cursor else {})})
            yield from page[rows]
            cursor = page["cursor"]
            if cursor is None:
                return

    def _change(self, job_id: str, verb: str, *, again: bool = False) -> JobView:
        return JobView.of(self._server.ask("POST", f"{_job(job_id)}/{verb}", again=again).json())


def _job(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _plain_name(name: str) -> str:
    """A file's name in the characters that a server takes; only its ending has a meaning."""
    return re.sub(r"^[^\w]|[^\w. +-]", "_", name, flags=re.ASCII)[-200:]
