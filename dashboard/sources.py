"""What can be looked at: jobs of the server and runs in folders, and the view of one.

A source is named ``job:ID`` or ``run:FOLDER``; links and session state carry that name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import streamlit as st

from ..errors import Conflict, NotFound
from ..service.client import Client
from ..service.client_views import ENDED, JobView
from ..service.front_document import Front
from .joint_front import JointFront, read_any_front
from .live_joint import of_live_joint
from .loading import load_runs
from .session import require_client, server
from .view import View, of_columns, of_front

MOST_POINTS = 20_000
"""Measured candidates of a job that a view holds: the telling ones and the newest of more."""


@dataclass(frozen=True)
class Source:
    """Something with a front.

    Attributes:
        key: ``job:ID`` or ``run:FOLDER``.
        title: for lists.
        state: of the job or run.
    """

    key: str
    title: str
    state: str


def sources(limit: int = 500) -> list[Source]:
    """Jobs that the person may see, the newest first, then the runs in folders."""
    found = []
    if server() is not None:
        searches = (job for job in require_client().jobs() if job.kind == "search")
        shown = islice(searches, limit)
        found += [Source(f"job:{job.id}", f"{job.name} ({job.id}, {job.state})", job.state) for job in shown]
    return [*found, *(Source(f"run:{run.run.key}", run.run.key, run.state) for run in load_runs())]


def load_view(key: str) -> tuple[View | None, str]:
    """The view of a source as of now, or ``None`` and why there is none yet.

    Raises:
        NotFound: there is no such job or run.
        BitfrontError: the server refuses or fails.
    """
    kind, _, name = key.partition(":")
    if kind == "run":
        run = next((run for run in load_runs() if run.run.key == name), None)
        if run is None:
            raise NotFound(f"no run {name} in the folders of this dashboard")
        if run.front is None:
            return None, run.reason
        return _run_view(name, run.run.front_path.stat().st_mtime_ns, run.front), ""
    client = require_client()
    job = client.show(name)
    try:
        return _job_view(client, job, client.url, job.id, _stamp(job)), ""
    except Conflict as cause:
        return None, str(cause)


def _stamp(job: JobView) -> str:
    """Changes whenever the job has measured something new."""
    return f"{job.state}/{job.attempt}/{job.progress.get('evaluated')}/{job.progress.get('done')}"


def _read_run(key: str, modified_ns: int, _front: Front) -> View:
    del modified_ns  # only a key of the cache
    return of_front(key, _front)


def _read_job(_client: Client, _job: JobView, url: str, job_id: str, stamp: str) -> View:
    """Shared by all sessions: who comes here was shown the job by the server, which lets viewers see all of it."""
    del url, stamp  # only keys of the cache
    finished = document(_client, job_id) if _job.state in ENDED else None
    if isinstance(finished, JointFront):  # its points have networks of their own, which are no columns
        return of_front(job_id, finished)
    if family := family_of(_job):
        return of_live_joint(_client.front_document(job_id, networks=True), _job.name, family)
    return of_columns(_client.columns(job_id, MOST_POINTS), finished)


_run_view: Callable[[str, int, Front], View] = st.cache_resource(max_entries=16, show_spinner=False)(_read_run)
_job_view: Callable[[Client, JobView, str, str, str], View] = st.cache_resource(
    max_entries=16, show_spinner="Reading what was measured …"
)(_read_job)


def family_of(job: JobView) -> str:
    """The family of architectures that a job searches; empty for a job that searches formats alone."""
    asked = job.specification.get("space")
    found = asked.get("architecture") if isinstance(asked, dict) else None
    return str(found.get("family", "")) if isinstance(found, dict) else ""


def document(client: Client, job_id: str) -> Front | None:
    """The ``front.json`` that a job has written, or ``None``."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return read_any_front(client.download(job_id, "front.json", Path(folder) / "front.json"))
        except NotFound:
            return None
